"""`nerf` and the textbook network learn the same still life from the same rays for the same number of steps.

Run `python benchmarks/nerf_against_textbook.py --steps 2000`; it prints the held-out PSNR of both as JSON. Pictures are
64 x 64, over white; both follow the learning rate of `nerf`'s settings.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lumifield.core.images import psnr
from lumifield.core.randomness import Draws
from lumifield.core.rays import Rays
from lumifield.core.scene import Scene, draw
from lumifield.data import Source, read
from lumifield.methods.base import Context, Method, chunked
from lumifield.methods.nerf import Nerf
from lumifield.optimising.optimisers import build_optimiser, rate
from lumifield.synthetic import StillLife, write

_spec = importlib.util.spec_from_file_location("textbook", Path(__file__).with_name("textbook.py"))
assert _spec is not None
assert _spec.loader is not None
textbook = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(textbook)

CHUNK = 512


@dataclass(frozen=True)
class Task:
    """What both learn, and for how long."""

    train: Scene
    test: Scene
    steps: int
    settings: Nerf
    seed: int = 0

    def draws(self) -> Draws:
        """The random numbers of a run."""
        return Draws(torch.Generator().manual_seed(self.seed))

    def factor(self, step: int) -> float:
        """The learning rate's factor at a step."""
        return rate(self.settings.schedule, step / self.steps, step)


def learn_nerf(task: Task) -> Method:
    """`nerf`, trained."""
    torch.manual_seed(task.seed)
    method, draws = task.settings.build(task.train), task.draws()
    optimiser = build_optimiser(task.settings.optimiser, method.param_groups())
    for step in range(task.steps):
        optimiser.set_rate(task.factor(step))
        method.before_step(step, draws)
        batch = draw(task.train, task.settings.batch, draws)
        losses = method.losses(method(batch.rays, Context(batch.background, step, draws)), batch)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    return method


def learn_textbook(task: Task) -> textbook.Textbook:
    """The textbook networks, trained."""
    torch.manual_seed(task.seed)
    near, far = float(task.train.near[0]), float(task.train.far[0])
    model, draws = textbook.Textbook(near, far, width=task.settings.width), task.draws()
    for step in range(task.steps):
        for group in model.optimiser.param_groups:
            group["lr"] = textbook.LEARNING_RATE * task.factor(step)
        batch = draw(task.train, task.settings.batch, draws)
        model.step(batch.rays.origins, batch.rays.directions, batch.rgb)
    return model


def nerf_colours(method: Method, rays: Rays) -> torch.Tensor:
    """What `nerf` sees along the rays."""
    return chunked(method, rays, Context(torch.ones(3)), CHUNK).rgb


@torch.no_grad()
def textbook_colours(model: textbook.Textbook, rays: Rays) -> torch.Tensor:
    """What the textbook networks see along the rays."""
    parts = [rays[slice(start, start + CHUNK)] for start in range(0, len(rays), CHUNK)]
    return torch.cat([model.look(part.origins, part.directions, jitter=False)[1] for part in parts])


def score(colours: torch.Tensor, scene: Scene, index: int) -> float:
    """PSNR of one picture [dB]."""
    return psnr(float(((colours.clamp(0, 1) - scene.truth(index).reshape(-1, 3)) ** 2).mean()))


def compare(task: Task) -> dict[str, float]:
    """Mean held-out PSNR [dB] and seconds of training of both."""
    found = {}
    for name, learn, colours in (
        ("nerf", learn_nerf, nerf_colours),
        ("textbook", learn_textbook, textbook_colours),
    ):
        start = time.perf_counter()
        model = learn(task)
        found[f"{name}_seconds"] = time.perf_counter() - start
        scores = [score(colours(model, task.test.rays(i)), task.test, i) for i in range(len(task.test))]
        found[f"{name}_psnr"] = sum(scores) / len(scores)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="training steps of each")
    parser.add_argument("--rays", type=int, default=1024, help="rays a step")
    parser.add_argument("--seed", type=int, default=0, help="seed of both")
    parser.add_argument("--occupancy", action="store_true", help="nerf with its occupancy grid")
    options = parser.parse_args()
    settings = Nerf(samples=textbook.COARSE, fine_samples=textbook.FURTHER, batch=options.rays)
    with tempfile.TemporaryDirectory() as folder:
        source = Source(Path(folder) / "still_life", background="white")
        write(StillLife(size=64, test=4, truth=False), source.data)
        train, test = read(source, "train"), read(source, "test")
    settings = replace(settings, occupancy=options.occupancy)
    print(json.dumps(compare(Task(train, test, options.steps, settings, options.seed))))


if __name__ == "__main__":
    main()
