"""Two processes together take the steps that one alone would take."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lumifield import checkpoint
from lumifield.training import Train
from lumifield.training.run import Job, train
from scenes import NERF, written

STEPS = 4
FEW = {"samples": 6, "fine_samples": 6, "width": 8, "depth": 2, "position_octaves": 2, "batch": 32}


def together(*given: str) -> subprocess.CompletedProcess:
    starter = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    return subprocess.run(
        [*starter, "-m", "lumifield", *given], capture_output=True, text=True, timeout=300, check=False
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(folder / checkpoint.WEIGHTS)[0]


def test_two_processes_learn_what_one_does(tmp_path):
    source = written(tmp_path / "ball", views=4, size=8)
    options = [word for name, value in FEW.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    given = ["train", "nerf", "--data", str(source.data), "--out", str(tmp_path / "two"), "--steps", str(STEPS)]
    done = together(*given, "--bf16", "off", "--direction-octaves", "2", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{STEPS} steps, ") == 1
    train(Job(replace(NERF, **FEW), source, Train(steps=STEPS), tmp_path / "one"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], two[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert checkpoint.load(tmp_path / "two").train["rays"] == STEPS * FEW["batch"]
