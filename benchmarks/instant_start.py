"""Steps that `instant` takes for a new object from a meta-learned and from a random initialization, in one run.

`python benchmarks/instant_start.py --start RUN --out benchmarks/results`, after `recipes/meta_instant_kenney.sh`. Each
test object is trained from its first 10 frames for `--steps` and for a quarter of them, each with its own schedule;
frames 25 to 49 are scored. Seconds count training only.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lumifield.data.scene import Scene, sample_batch
from lumifield.data.scene_collection import Task, list_tasks
from lumifield.meta.few_shot import evenly_spaced_views, mean_psnr
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
    """PSNR of the held-out frames after a number of steps."""

    step: int
    seconds: float
    psnr: float


def train_and_score(method: Method, scene: Scene, held_out: Scene, steps: int, seed: int) -> list[Mark]:
    """The marks of a training of `steps` steps."""
    settings = method.settings
    found = [Mark(0, 0.0, mean_psnr(method, held_out))]
    state = TrainingState(
        method, build_optimizer(settings.optimizer, method.param_groups()), Rng(torch.Generator().manual_seed(seed))
    )

    def score(state: TrainingState, _: StepReport) -> None:
        if state.step in (*MARKS, steps):
            seconds = state.clock.seconds
            with state.clock.paused():
                found.append(Mark(state.step, seconds, mean_psnr(method, held_out)))
                method.train()

    fit(state, lambda rays, rng: sample_batch(scene, rays, rng), Budget(steps), settings.schedule, callbacks=[score])
    return found


def trial(run: LoadedRun, task: Task, steps: int, views: int, seed: int) -> dict[str, list[Mark]]:
    """The marks of each kind of training on one object."""
    scene, held_out = task.load_images(SUPPORT), evenly_spaced_views(task.load_images(HELD_OUT), views)
    kinds = {
        "random": (False, steps),
        "random, a quarter": (False, steps // 4),
        "learned, a quarter": (True, steps // 4),
    }
    found = {}
    for kind, (learned, count) in kinds.items():
        start = run.method if learned else random_initialization(run.method, scene, seed)
        found[kind] = train_and_score(clone_for_scene(start, scene), scene, held_out, count, seed)
    return found


def best(marks: list[Mark]) -> Mark:
    """The mark with the highest PSNR."""
    return max(marks, key=lambda mark: mark.psnr)


def describe_trial(name: str, trial: dict[str, list[Mark]]) -> str:
    """One line about a trial."""
    goal, learned = best(trial["random"]), trial["learned, a quarter"]
    reached = next((f"reached after {mark.step}" for mark in learned if mark.psnr >= goal.psnr), "not reached")
    ends = ", ".join(f"{kind}: {marks[0].psnr:.2f} to {marks[-1].psnr:.2f} dB" for kind, marks in trial.items())
    return f"{name}: best random {goal.psnr:.2f} dB after {goal.step} steps, {reached}; {ends}"


def trials_to_json(every: dict[str, dict[str, list[Mark]]]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """The trials as JSON values."""
    return {
        name: {kind: [asdict(mark) for mark in marks] for kind, marks in trial.items()} for name, trial in every.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--steps", type=int, default=400, help="length of the long training")
    parser.add_argument("--views", type=int, default=25, help="number of held-out frames")
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
            print(describe_trial(name, every[name]), flush=True)
            if given.out is not None:
                write_json(given.out / "instant_start.json", trials_to_json(every))
    gains = [best(trial["learned, a quarter"]).psnr - best(trial["random"]).psnr for trial in every.values()]
    print(f"best learned within a quarter of the steps over best random: {statistics.mean(gains):+.2f} dB")


if __name__ == "__main__":
    main()
