"""`nerf-w` and `instant` on images in the wild, by the protocol of NeRF-W: right halves of test images.

Run `python benchmarks/wild.py SCENE --runs RUNS --masks MASKS`; it writes wild_SCENE.json and .md. Runs stay in RUNS,
and what is there is not made again. `nerf-w` wears the appearance that fits the left half. `instant` knows of none: it
is scored as it is, and in colors A c + b that fit the left half. MASKS are black where pixels do not count.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from resumable import read_or_measure, train_or_resume

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import Source
from lumifield.evaluation.evaluate import Scoring, evaluate
from lumifield.methods import Instant, NerfW, Settings
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.files import replacing, write_json
from lumifield.training import Train
from lumifield.training.job import TrainingJob

CURVE_STEPS = {"nerf-w": ("fitted",), "instant": ("mean", "affine")}
TITLES = {"fitted": "fitted appearance", "mean": "none", "affine": "fitted affine colors"}


def train_and_score(
    settings: Settings, out: Path, looks: tuple[str, ...], options: argparse.Namespace
) -> dict[str, Any]:
    """PSNR of right halves in each look [dB], of all pixels and of those inside masks."""
    source = Source(options.data, downscale=options.downscale)
    run = train_or_resume(TrainingJob(settings, source, Train(minutes=options.minutes, seed=options.seed), out))
    masked = None if options.masks is None else replace(run, source=replace(source, masks=options.masks))
    kinds: dict[str, LoadedRun] = {"whole": run} | ({} if masked is None else {"inside": masked})
    return {
        "steps": run.training_summary.steps,
        "seconds": run.training_summary.seconds,
        "psnr": {
            look: {kind: evaluate(each, scoring=Scoring(look, right_half=True)).psnr for kind, each in kinds.items()}
            for look in looks
        },
    }


def format_table(result: dict[str, Any]) -> str:
    """The table."""
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. {result['data']} at 1/{result['downscale']}, "
        f"{result['minutes']:g} minutes each, seed {result['seed']}, PSNR of right halves of test images in dB.",
        "",
        "| method | appearance | whole | inside masks |",
        "| --- | --- | --- | --- |",
    ]
    for method, row in result["rows"].items():
        for look, psnr in row["psnr"].items():
            inside = f"{psnr['inside']:.2f}" if "inside" in psnr else "-"
            lines.append(f"| {method} | {TITLES[look]} | {psnr['whole']:.2f} | {inside} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the scene")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--masks", type=Path, help="folder of masks that are named as the images")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of each training")
    parser.add_argument("--beta-min", type=float, default=0.1, help="least uncertainty of a pixel")
    parser.add_argument("--downscale", type=int, default=1, help="images at 1/K of their width and height")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trainings")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the results")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "machine": describe_machine(torch.device("cpu")),
        "commit": current_commit(),
        "data": options.data.name,
    }
    result |= {"minutes": options.minutes, "downscale": options.downscale, "seed": options.seed, "rows": {}}
    methods: dict[str, Settings] = {"nerf-w": NerfW(beta_min=options.beta_min), "instant": Instant()}
    for name, settings in methods.items():
        out = options.runs / name
        measure = partial(train_and_score, settings, out, CURVE_STEPS[name], options)
        result["rows"][name] = read_or_measure(out / "score.json", measure)
    write_json(options.out / f"wild_{options.data.name}.json", result)
    with replacing(options.out / f"wild_{options.data.name}.md") as temporary:
        temporary.write_text(format_table(result), encoding="utf-8")
    print(format_table(result))


if __name__ == "__main__":
    main()
