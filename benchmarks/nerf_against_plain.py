"""The plain networks and `nerf`, with and without its occupancy grid, learn one still life from the same rays.

Run `python benchmarks/nerf_against_plain.py --steps 2000`; it writes nerf_against_plain.json and .md, anew after
each training. Images are 64 x 64, over white; all take the same number of steps at the learning rate of `nerf`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from lumifield.bench import plain_nerf
from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import Source, read_scene
from lumifield.data.scene import Scene, sample_batch
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, TrainingContext, render_in_chunks
from lumifield.methods.nerf import Nerf
from lumifield.optim.optimizers import build_optimizer, learning_rate_factor
from lumifield.runtime.files import replacing, write_json
from lumifield.runtime.image_metrics import psnr
from lumifield.runtime.rng import Rng
from lumifield.synthetic import StillLife, synthesize_data

CHUNK = 512
SIZE, TEST_VIEWS = 64, 4


@dataclass(frozen=True)
class Task:
    """What both learn, and for how long."""

    train: Scene
    test: Scene
    steps: int
    settings: Nerf
    seed: int = 0

    def rng(self) -> Rng:
        """The random numbers of a run."""
        return Rng(torch.Generator().manual_seed(self.seed))

    def factor(self, step: int) -> float:
        """The learning rate's factor at a step."""
        return learning_rate_factor(self.settings.schedule, step / self.steps, step)


def train_nerf(task: Task) -> Method:
    """`nerf`, trained."""
    torch.manual_seed(task.seed)
    method, rng = task.settings.build(task.train), task.rng()
    optimizer = build_optimizer(task.settings.optimizer, method.param_groups())
    for step in range(task.steps):
        optimizer.set_rate(task.factor(step))
        method.before_step(step, rng)
        batch = sample_batch(task.train, task.settings.batch_size, rng)
        losses = method.losses(method(batch.rays, TrainingContext(batch.background, step, rng)), batch)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    return method


def train_plain(task: Task) -> plain_nerf.PlainNerf:
    """The plain networks, trained."""
    torch.manual_seed(task.seed)
    near, far = float(task.train.near[0]), float(task.train.far[0])
    model, rng = plain_nerf.PlainNerf(near, far, width=task.settings.hidden_dim), task.rng()
    for step in range(task.steps):
        for group in model.optimizer.param_groups:
            group["lr"] = plain_nerf.LEARNING_RATE * task.factor(step)
        batch = sample_batch(task.train, task.settings.batch_size, rng)
        model.step(batch.rays.origins, batch.rays.directions, batch.rgb)
    return model


def nerf_colors(method: Method, rays: Rays) -> torch.Tensor:
    """What `nerf` sees along the rays."""
    return render_in_chunks(method, rays, RenderContext(torch.ones(3)), CHUNK).rgb


@torch.no_grad()
def plain_colors(model: plain_nerf.PlainNerf, rays: Rays) -> torch.Tensor:
    """What the plain networks see along the rays."""
    parts = [rays[slice(start, start + CHUNK)] for start in range(0, len(rays), CHUNK)]
    return torch.cat([model.render_rays(part.origins, part.directions, jitter=False)[1] for part in parts])


def score(colors: torch.Tensor, scene: Scene, index: int) -> float:
    """PSNR of one image [dB]."""
    return psnr(float(((colors.clamp(0, 1) - scene.ground_truth(index).reshape(-1, 3)) ** 2).mean()))


def compare(task: Task) -> Iterator[dict[str, Any]]:
    """The plain networks, `nerf`, and `nerf` behind an occupancy grid: each trained, then scored on held-out views.

    Yields a row a method: mean PSNR [dB], seconds of training.
    """
    behind = replace(task, settings=replace(task.settings, occupancy=True))
    for name, learn, colors, own in (
        ("plain", train_plain, plain_colors, task),
        ("nerf", train_nerf, nerf_colors, task),
        ("nerf with occupancy", train_nerf, nerf_colors, behind),
    ):
        start = time.perf_counter()
        model = learn(own)
        seconds = time.perf_counter() - start
        scores = [score(colors(model, task.test.rays(i)), task.test, i) for i in range(len(task.test))]
        yield {"method": name, "seed": task.seed, "psnr": sum(scores) / len(scores), "seconds": seconds}


def format_table(result: dict[str, Any]) -> str:
    """Means over the seeds as a table; differences are those of the same seed."""
    rows: list[dict[str, Any]] = result["rows"]
    plain_psnr = {row["seed"]: row["psnr"] for row in rows if row["method"] == "plain"}
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. A still life of {SIZE} x {SIZE} pixels, "
        f"{result['steps']} steps of {result['rays']} rays, networks {result['width']} wide, seeds {[*plain_psnr]}.",
        "",
        "| method | held-out PSNR (mean) | over plain NeRF: mean, lowest, highest |",
        "| --- " * 3 + "|",
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        over = [row["psnr"] - plain_psnr[row["seed"]] for row in own]
        differences = ", ".join(f"{value:+.2f}" for value in (mean(over), min(over), max(over)))
        lines.append(f"| {name} | {mean(row['psnr'] for row in own):.2f} | {differences} |")
    return "\n".join(lines) + "\n"


def synthesize_still_life(folder: Path) -> tuple[Scene, Scene]:
    """The views to learn from and those to judge by."""
    source = Source(folder / "still_life", background="white")
    synthesize_data(StillLife(image_width=SIZE, num_test=TEST_VIEWS, ground_truth=False), source.data)
    return read_scene(source, "train"), read_scene(source, "test")


def write_results(result: dict[str, Any], out: Path) -> None:
    """Both files, as far as the rows go."""
    write_json(out / "nerf_against_plain.json", result)
    with replacing(out / "nerf_against_plain.md") as temporary:
        temporary.write_text(format_table(result), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="training steps of each")
    parser.add_argument("--rays", type=int, default=1024, help="rays a step")
    parser.add_argument("--width", type=int, default=256, help="width of all networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training of each method a seed")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the results")
    options = parser.parse_args()
    settings = Nerf(
        num_samples=plain_nerf.COARSE_SAMPLES,
        num_fine_samples=plain_nerf.FINE_SAMPLES,
        batch_size=options.rays,
        hidden_dim=options.width,
    )
    with tempfile.TemporaryDirectory() as folder:
        train, test = synthesize_still_life(Path(folder))
    result: dict[str, Any] = {
        "machine": describe_machine(torch.device("cpu")),
        "commit": current_commit(),
        "steps": options.steps,
    }
    result |= {"rays": options.rays, "width": options.width, "rows": []}
    for seed in options.seeds:
        for row in compare(Task(train, test, options.steps, settings, seed)):
            result["rows"].append(row)
            write_results(result, options.out)
    print(format_table(result))


if __name__ == "__main__":
    main()
