"""Two processes together take the steps that one alone would take."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lumifield.runs import run_folder
from lumifield.training import Train
from lumifield.training.job import TrainingJob, run_training
from scenes import NERF, written

pytestmark = pytest.mark.slow

STEPS = 4
FEW = {
    "num_samples": 6,
    "num_fine_samples": 6,
    "hidden_dim": 8,
    "num_layers": 2,
    "num_position_frequencies": 2,
    "batch_size": 32,
}


def together(*given: str) -> subprocess.CompletedProcess:
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([*starter, *given], capture_output=True, text=True, timeout=300, check=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return run_folder.read_tensors(folder / run_folder.WEIGHTS)[0]


def test_two_processes_learn_what_one_does(tmp_path):
    source = written(tmp_path / "ball", views=4, size=8)
    options = [word for name, value in FEW.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    given = [
        "-m",
        "lumifield",
        "train",
        "nerf",
        "--data",
        str(source.data),
        "--out",
        str(tmp_path / "two"),
        "--steps",
        str(STEPS),
    ]
    done = together(*given, "--bf16", "off", "--num-direction-frequencies", "2", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{STEPS} steps, ") == 1
    run_training(TrainingJob(replace(NERF, **FEW), source, Train(steps=STEPS), tmp_path / "one"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], two[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert run_folder.read_run(tmp_path / "two").training_summary.rays == STEPS * FEW["batch_size"]


def test_all_processes_fail_and_stop_together(tmp_path):
    """Only the second process sees the fault, and only the first is asked to stop."""
    program = """
import datetime, sys
from pathlib import Path
import torch, torch.distributed as dist
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from scenes import NERF, ball
from lumifield.runtime.distributed import leave
from lumifield.runtime.rng import Rng
from lumifield.data.scene import sample_batch
from lumifield.optim import Optimizer, Schedule
from lumifield.optim.optimizers import build_optimizer
from lumifield.runs.state import Budget
from lumifield.training.fit import TrainingState, fit
from lumifield.training.guard import DivergenceGuard

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
rank, scene, calls = dist.get_rank(), ball(2, 8), []
torch.manual_seed(0)
method = replace(NERF, batch_size=8).build(scene)
rng = Rng(torch.Generator().manual_seed(0), rank, 2)
state = TrainingState(method, build_optimizer(Optimizer(lr=1e-3), method.param_groups()), rng)

def batch_of(rays, rng):
    calls.append(1)
    batch = sample_batch(scene, rays, rng)
    return replace(batch, rgb=batch.rgb * torch.nan) if rank == 1 and len(calls) == 3 else batch

def stop(state, report):
    state.stopped = rank == 0 and state.step == 5

fit(state, batch_of, Budget(50), Schedule(), callbacks=[DivergenceGuard(), stop])
total = sum(float(p.detach().double().sum()) for p in method.parameters())
Path(sys.argv[2], f"{rank}.txt").write_text(f"step {state.step} factor {state.rate_factor} sum {total:.9f}")
leave()
"""
    file = tmp_path / "program.py"
    file.write_text(program)
    done = together(str(file), str(Path(__file__).parents[1]), str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert first.startswith("step 5 factor 0.5 sum")
    assert second == first
