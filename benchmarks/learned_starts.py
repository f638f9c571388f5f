"""Few-shot scores of meta-learned initializations in one table: before and after adaptation, beside the paper.

First, for each seed, `recipes/meta_kenney.sh CLASS RUN --seed N` and
`lumifield eval RUN --initializations meta matched random shuffled`; then
`python benchmarks/learned_starts.py --data CLASS --runs RUN ... --out benchmarks/results`. Two baselines use no
image of the test objects: white, and the mean of the training images from nearby poses.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path

import torch
from torch import Tensor

from lumifield.data.scene import Scene
from lumifield.data.scene_collection import list_tasks
from lumifield.runs.run_folder import LoadedRun, read_run, write_json
from lumifield.runtime.config import read_json
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.image_metrics import mean_squared_error, psnr

PAPER = {
    "chairs": {"meta": 18.85, "matched": 16.40, "random": 12.49, "shuffled": 10.76},
    "cars": {"meta": 22.80, "matched": 22.39, "random": 11.45, "shuffled": 11.30},
    "lamps": {"meta": 22.35, "matched": 20.79, "random": 15.47, "shuffled": 13.88},
}
"""Single images of ShapeNet (Tancik et al. 2021) [dB]."""
NEAR = math.radians(10)
"""Angle between viewing directions at which a training image counts 0.6 of one from the very pose."""
HELD_OUT = slice(25, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = [read_json(run / "eval" / "test" / "metrics.json") for run in given.runs]
    white, mean = score_trivial_predictions(read_run(given.runs[0]))
    name = given.data.resolve().name
    table = format_table([one["initializations"] for one in found], PAPER.get(name, {}), white, mean)
    print(table)
    if given.out is not None:
        protocol = found[0]["protocol"]
        kept = {
            "initializations": [one["initializations"] for one in found],
            "white": white,
            "mean_image": mean,
            "protocol": protocol,
        }
        write_json(given.out / f"learned_starts_{name}.json", kept)
        told = f"{protocol['adaptation']}; {protocol['split_rule']}; {protocol['resolution']}; {len(found)} seeds"
        (given.out / f"learned_starts_{name}.md").write_text(
            f"# Meta-learned initializations, {name}\n\n{told}.\n\n{table}\n"
        )


def format_table(seeds: list[dict], paper: dict[str, float], white: float, mean: float) -> str:
    """The table, means over the seeds and their deviation."""
    lines = ["| initialization | before [dB] | adapted [dB] | deviation | after 100 steps | ShapeNet, in the paper |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for kind in seeds[0]:
        own = [seed[kind] for seed in seeds]
        adapted = [one["psnr"] for one in own]
        values = [statistics.mean(one["before"] for one in own), statistics.mean(adapted), statistics.pstdev(adapted)]
        values.append(statistics.mean(one["curve"].get("100", math.nan) for one in own))
        told = " | ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {kind} | {told} | {paper.get(kind, math.nan):.2f} |")
    lines.append(f"| mean image near the pose | {mean:.2f} | | | | |")
    lines.append(f"| white image | {white:.2f} | | | | |")
    return "\n".join(lines).replace("nan", "")


def score_trivial_predictions(run: LoadedRun) -> tuple[float, float]:
    """PSNR of white and of the mean image near the pose, over the held-out views of the test objects [dB]."""
    assert run.source is not None
    known = [task.load_images() for task in list_tasks(run.source, "train")]
    white, mean = [], []
    for task in list_tasks(run.source, "test"):
        scene = task.load_images(HELD_OUT)
        for row in range(len(scene)):
            truth = to_uint8(scene.ground_truth(row)).float() / 255
            white.append(psnr(mean_squared_error(torch.ones_like(truth), truth)))
            mean.append(psnr(mean_squared_error(nearest_views_mean(known, scene, row), truth)))
    return statistics.mean(white), statistics.mean(mean)


def nearest_views_mean(known: list[Scene], scene: Scene, row: int) -> Tensor:
    """The mean of known images, weighted by how near their viewing directions are to that of a view."""
    total, weights = torch.zeros(scene.ground_truth(row).shape), 0.0
    for other in known:
        angles = (other.cameras.forward @ scene.cameras.forward[row]).clamp(-1, 1).arccos()
        for place, angle in enumerate(angles.tolist()):
            weight = math.exp(-0.5 * (angle / NEAR) ** 2)
            total += weight * other.ground_truth(place)
            weights += weight
    return total / weights


if __name__ == "__main__":
    main()
