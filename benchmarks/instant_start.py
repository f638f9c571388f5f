"""How many steps `instant` takes for a new object from a learned start, and from a random one, in one run.

`python benchmarks/instant_start.py --start RUN --out benchmarks/results`, after `recipes/meta_instant_kenney.sh`. Each
test object is learned from its first 10 frames in trainings of `--steps` and of a quarter of them, each on a schedule
of its own; the frames 25 to 49 are scored. Seconds are those of training alone.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lumifield.data.scene import Scene, sample_batch
from lumifield.data.scene_collection import Task, list_tasks
from lumifield.meta.few_shot import max_channel_std, mean_psnr
from lumifield.meta.inner_loop import clone_for_scene
from lumifield.meta.reference_initializations import random_initialization
from lumifield.methods.base import Method
from lumifield.optim.optimizers import build_optimizer
from lumifield.runs.run_folder import LoadedRun, read_run
from lumifield.runs.state import Budget
from lumifield.runtime.files import write_json
from lumifield.runtime.rng import Rng
from lumifield.training.fit import StepReport, TrainingState, fit

SUPPORT, HELD_OUT = slice(10), slice(25, 50)
MARKS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 600, 800)


@dataclass(frozen=True)
class Mark:
    """How good a training is on the held-out frames after so many steps."""

    step: int
    seconds: float
    psnr: float


def curve(method: Method, scene: Scene, held_out: Scene, steps: int, seed: int) -> list[Mark]:
    """The marks of a training of that length."""
    settings = method.settings
    found = [Mark(0, 0.0, mean_psnr(method, held_out))]
    state = TrainingState(
        method, build_optimizer(settings.optimizer, method.param_groups()), Rng(torch.Generator().manual_seed(seed))
    )

    def look(state: TrainingState, _: StepReport) -> None:
        if state.step in (*MARKS, steps):
            seconds = state.clock.seconds
            with state.clock.paused():
                found.append(Mark(state.step, seconds, mean_psnr(method, held_out)))
                method.train()

    fit(state, lambda rays, rng: sample_batch(scene, rays, rng), Budget(steps), settings.schedule, callbacks=[look])
    return found


def trial(run: LoadedRun, task: Task, steps: int, views: int, seed: int) -> dict[str, list[Mark]]:
    """The marks of each kind of training on one object."""
    scene, held_out = task.photographs(SUPPORT), max_channel_std(task.photographs(HELD_OUT), views)
    kinds = {
        "random": (False, steps),
        "random, a quarter": (False, steps // 4),
        "learned, a quarter": (True, steps // 4),
    }
    found = {}
    for kind, (learned, count) in kinds.items():
        start = run.method if learned else random_initialization(run.method, scene, seed)
        found[kind] = curve(clone_for_scene(start, scene), scene, held_out, count, seed)
    return found


def best(marks: list[Mark]) -> Mark:
    """The best of a training."""
    return max(marks, key=lambda mark: mark.psnr)


def told(name: str, trial: dict[str, list[Mark]]) -> str:
    """A trial in a line."""
    goal, learned = best(trial["random"]), trial["learned, a quarter"]
    reached = next((f"reached after {mark.step}" for mark in learned if mark.psnr >= goal.psnr), "not reached")
    ends = ", ".join(f"{kind}: {marks[0].psnr:.2f} to {marks[-1].psnr:.2f} dB" for kind, marks in trial.items())
    return f"{name}: best random {goal.psnr:.2f} dB after {goal.step} steps, {reached}; {ends}"


def kept(every: dict[str, dict[str, list[Mark]]]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """The trials as plain numbers."""
    return {
        name: {kind: [asdict(mark) for mark in marks] for kind, marks in trial.items()} for name, trial in every.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--steps", type=int, default=400, help="length of the long training")
    parser.add_argument("--views", type=int, default=25, help="held-out frames to look at")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run = read_run(given.start)
    assert run.source is not None
    every = {}
    for task in list_tasks(run.source, given.split):
        for seed in given.seeds:
            name = f"{task.name}, seed {seed}"
            every[name] = trial(run, task, given.steps, given.views, seed)
            print(told(name, every[name]), flush=True)
            if given.out is not None:
                write_json(given.out / "instant_start.json", kept(every))
    gains = [best(trial["learned, a quarter"]).psnr - best(trial["random"]).psnr for trial in every.values()]
    print(f"best learned within a quarter of the steps over best random: {statistics.mean(gains):+.2f} dB")


if __name__ == "__main__":
    main()
