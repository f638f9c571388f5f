"""Golden figures: what each method comes to in a few steps on a tiny scene, to the bit, before and after a change.

    python benchmarks/golden.py WORK                 compare with benchmarks/results/golden.json
    python benchmarks/golden.py WORK --record        write it

Weights are compared as a multiset of tensors, so that renaming a module changes nothing. The figures hold for one kind
of processor and one release of torch; record them before a change, on the machine that compares them after it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import trimesh
from safetensors.numpy import load_file

RESULT = Path(__file__).parent / "results" / "golden.json"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "LUMIFIELD_BF16": "0",
    "CUDA_VISIBLE_DEVICES": "",
}
SCENES = {
    "still-life": "still-life --image-width 32 --num-train 12 --num-val 2 --num-test 2 --samples-per-pixel 4",
    "forward": "still-life --image-width 32 --num-train 12 --samples-per-pixel 4 --format llff",
    "pyramid": "still-life --image-width 32 --num-train 8 --num-val 2 --num-test 2 --samples-per-pixel 4 "
    "--format multicam",
    "tourists": "tourists --image-width 32 --num-train 12 --num-test 3 --samples-per-pixel 4",
    "sculpture": "object-captures --image-width 32 --num-train 6 --num-val 1 --num-test 2 --samples-per-pixel 4",
    "chairs": "object-category --image-width 16 --num-train 3 --num-val 1 --num-test 1 --num-views 30 "
    "--samples-per-pixel 2",
}
SMALL = "--hidden-dim 32 --num-layers 4 --batch-size 64 --num-samples 16"
RUNS = {
    "instant": ("still-life", "instant"),
    "instant-proposals": ("forward", "instant --samples-per-step 4096"),
    "nerf": ("still-life", f"nerf {SMALL} --num-fine-samples 16"),
    "nerf-occupancy": ("still-life", f"nerf {SMALL} --occupancy"),
    "mip-nerf": ("pyramid", f"mip-nerf {SMALL}"),
    "nerf-w": ("tourists", "nerf-w"),
    "nerf-w-mlp": ("tourists", f"nerf-w --backbone mlp {SMALL} --num-fine-samples 16"),
    "simple-nerf": ("still-life", f"simple-nerf {SMALL}"),
    "nlr": ("sculpture", "nlr"),
}
MESHES = {"instant": "", "nlr": ""}


def lumifield(command: str) -> None:
    """Runs one command of the public command line."""
    words = [str(Path(sys.executable).with_name("lumifield")), *command.split()]
    subprocess.run(words, check=True, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL)


def digest(arrays: list[np.ndarray]) -> str:
    """SHA-256 of arrays in any order."""
    return hashlib.sha256("".join(sorted(hashlib.sha256(a.tobytes()).hexdigest() for a in arrays)).encode()).hexdigest()


def weights(run: Path) -> str:
    """SHA-256 of a run's weights."""
    return digest(list(load_file(run / "weights.safetensors").values()))


def scores(run: Path) -> dict[str, float]:
    """Mean scores of the test split."""
    metrics = json.loads((run / "eval" / "test" / "metrics.json").read_text())
    return {key: metrics[key] for key in ("psnr", "ssim") if key in metrics}


def mesh(file: Path) -> str:
    """SHA-256 of the vertices and faces of a mesh."""
    one = trimesh.load(file, process=False)
    return digest([np.asarray(one.vertices), np.asarray(one.faces)])


def measure(work: Path, only: list[str]) -> dict[str, dict]:
    """Every figure; scenes that are there already are used again."""
    figures = {}
    for name, (scene, method) in RUNS.items():
        if only and name not in only:
            continue
        data, run = work / scene, work / "runs" / name
        if not data.exists():
            lumifield(f"synthesize-data {SCENES[scene]} --out {data}")
        lumifield(f"train {method} --data {data} --steps 50 --seed 0 --device cpu --out {run}")
        lumifield(f"eval {run}")
        figures[name] = {"weights": weights(run)} | scores(run)
        if name in MESHES:
            lumifield(f"export mesh {run} --resolution 32 --out {work / name}.ply")
            figures[name]["mesh"] = mesh(work / f"{name}.ply")
        print(name, json.dumps(figures[name]), flush=True)
    if not only or "reptile" in only:
        data, run = work / "chairs", work / "runs" / "reptile"
        if not data.exists():
            lumifield(f"synthesize-data {SCENES['chairs']} --out {data}")
        lumifield(f"meta-train simple-nerf --data {data} --steps 3 --inner.steps 8 {SMALL} --out {run}")
        figures["reptile"] = {"weights": weights(run)}
        print("reptile", json.dumps(figures["reptile"]), flush=True)
    return figures


def main() -> None:
    """Records or compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    figures = measure(given.work, given.only)
    if given.record:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        RESULT.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
        return
    recorded = json.loads(RESULT.read_text())["figures"]
    different = [name for name, figure in figures.items() if figure != recorded.get(name)]
    print(f"{len(figures) - len(different)} of {len(figures)} equal", *different)
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
