"""How long `instant` takes for a new object from a learned start, and from a random one, in one run.

`python benchmarks/instant_start.py --start RUN --out benchmarks/results`, after `recipes/meta_instant_kenney.sh`. Each
test object is learned from its first 10 frames in runs of 15 and 60 seconds of training, which stand still while the
frames 25 to 49 are scored.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from lumifield.checkpoint import Run, load, write_json
from lumifield.core.randomness import Draws
from lumifield.core.scene import Scene, draw
from lumifield.data.collection import Task, tasks
from lumifield.meta.inner import copy_for
from lumifield.meta.protocol import mean_psnr, spread
from lumifield.meta.starts import standard
from lumifield.methods.base import Method
from lumifield.optimising.optimisers import build_optimiser
from lumifield.training.fit import Budget, Report, State, fit

SUPPORT, HELD_OUT = slice(10), slice(25, 50)
MARKS = (0.0, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
KINDS = {"random, 60 s": (False, 60.0), "random, 15 s": (False, 15.0), "learned, 15 s": (True, 15.0)}


def curve(method: Method, scene: Scene, held_out: Scene, seconds: float, seed: int) -> dict[float, float]:
    """PSNR on the held-out frames after so many seconds of a training of that length [dB]."""
    found = {0.0: mean_psnr(method, held_out)}
    settings = method.settings
    state = State(
        method, build_optimiser(settings.optimiser, method.param_groups()), Draws(torch.Generator().manual_seed(seed))
    )

    def look(state: State, _: Report) -> None:
        passed = [mark for mark in MARKS if max(found) < mark <= min(state.clock.seconds, seconds)]
        if passed:
            with state.clock.paused():
                found[passed[-1]] = mean_psnr(method, held_out)
                method.train()

    fit(state, lambda rays, draws: draw(scene, rays, draws), Budget(None, seconds), settings.schedule, listeners=[look])
    return found | {seconds: mean_psnr(method, held_out)}


def trial(run: Run, task: Task, views: int, seed: int) -> dict[str, dict[float, float]]:
    """The curves of each kind on one object."""
    scene, held_out = task.photographs(SUPPORT), spread(task.photographs(HELD_OUT), views)
    found = {}
    for kind, (learned, seconds) in KINDS.items():
        start = run.method if learned else standard(run.method, scene, seed)
        found[kind] = curve(copy_for(start, scene), scene, held_out, seconds, seed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--views", type=int, default=25, help="held-out frames to look at")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run = load(given.start)
    assert run.source is not None
    every, objects = {}, tasks(run.source, given.split)
    first = objects[0].photographs(SUPPORT)
    curve(copy_for(run.method, first), first, spread(first, 1), 2.0, 0)  # compiles kernels
    for task in objects:
        for seed in given.seeds:
            curves = every[f"{task.name}, seed {seed}"] = trial(run, task, given.views, seed)
            best = max(curves["random, 60 s"].values())
            learned = curves["learned, 15 s"]
            reached = min((second for second, value in learned.items() if value >= best), default=None)
            told = "not reached" if reached is None else f"reached after {reached:g} s"
            ends = ", ".join(f"{kind}: {list(found.values())[-1]:.2f}" for kind, found in curves.items())
            print(f"{task.name}, seed {seed}: best random {best:.2f} dB, {told}; {ends}", flush=True)
    gain = [max(c["learned, 15 s"].values()) - max(c["random, 60 s"].values()) for c in every.values()]
    print(f"best learned within 15 s over best random within 60 s: {statistics.mean(gain):+.2f} dB")
    if given.out is not None:
        write_json(given.out / "instant_start.json", every)


if __name__ == "__main__":
    main()
