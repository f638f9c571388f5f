"""`instant` and `nerf-w` on a Blender scene with the perturbations of NeRF-W, compared with the published results.

Run `python benchmarks/perturbed.py SCENE --runs RUNS --minutes 10`; it updates perturbed.json and .md after each
training. Runs and scenes are kept in RUNS and reused: the same command continues after an interruption, or after the
given number of `--trainings`. Test views have the appearance of the first training image, which is not perturbed.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from resumable import read_or_measure, train_or_resume

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import Source
from lumifield.evaluation.evaluate import Scoring, evaluate
from lumifield.methods import Instant, NerfW, Settings, method_name
from lumifield.runtime.files import replacing, write_json
from lumifield.synthetic.perturbations import perturb_scene
from lumifield.training import Train
from lumifield.training.job import TrainingJob

CPU = torch.device("cpu")
SCORE_FILE = "score.json"
PAPER = {"clean": (32.89, None), "color": (23.38, 30.66), "occluder": (19.35, 23.47), "both": (15.73, 22.19)}
"""PSNR of NeRF, and of NeRF-A, -U and -W (Martin-Brualla et al. 2021, supplement, section D) [dB]."""
NERF_PL = {"clean": (30.93, None), "color": (23.17, 28.20), "occluder": (21.94, 28.60), "both": (18.83, 24.86)}
"""The same for the nerfw branch of nerf_pl at 200x200 [dB]."""


def select_methods(kind: str) -> tuple[Settings, ...]:
    """The methods; `nerf-w` has only the components that address the perturbation."""
    parts = {"color": NerfW(transient_dim=0), "occluder": NerfW(appearance_dim=0), "both": NerfW()}
    return (Instant(), parts[kind]) if kind in parts else (Instant(),)


def prepare_scene(scene: Path, kind: str, runs: Path, seed: int) -> Path:
    """The folder of the scene or of its perturbed copy, which is written if missing."""
    if kind == "clean":
        return scene
    folder = runs / f"scene_{kind}"
    if not folder.exists():
        perturb_scene(scene, folder, kind, seed)  # type: ignore[arg-type]
    return folder


def train_and_score(scene: Path, settings: Settings, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Trains once; returns PSNR of the test views [dB], steps and seconds."""
    source = Source(scene, downscale=options.downscale)
    run = train_or_resume(TrainingJob(settings, source, Train(minutes=options.minutes, seed=options.seed), out))
    has_appearance = run.method.appearance_embeddings is not None and run.method.traits.num_appearance_dims > 0
    appearance = Path(run.scenes["train"].names[0]).name if has_appearance else "mean"
    metrics = evaluate(run, scoring=Scoring(appearance, right_half=False), save_images=False)
    return {"psnr": metrics.psnr, "steps": metrics.train_steps, "seconds": metrics.train_seconds}


def format_table(result: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. {result['scene']} at 1/{result['downscale']}, "
        f"{result['minutes']:g} minutes each, seed {result['seed']}, test PSNR in dB.",
        "",
        "| perturbation | instant | nerf-w | paper: NeRF | paper: NeRF-W | nerf_pl: NeRF | nerf_pl: NeRF-W |",
        "| --- " * 7 + "|",
    ]
    for kind, row in result["rows"].items():
        ours = [row["instant"]["psnr"], row["nerf-w"]["psnr"] if "nerf-w" in row else None]
        cells = ["-" if value is None else f"{value:.2f}" for value in (*ours, *PAPER[kind], *NERF_PL[kind])]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_results(result: dict[str, Any], out: Path) -> None:
    """Writes the results so far as JSON and Markdown."""
    write_json(out / "perturbed.json", result)
    with replacing(out / "perturbed.md") as temporary:
        temporary.write_text(format_table(result), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path, help="folder of the Blender scene")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the perturbed scenes and the runs")
    parser.add_argument("--kinds", nargs="+", choices=list(PAPER), default=list(PAPER), help="perturbations")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes per training")
    parser.add_argument("--trainings", type=int, default=7, help="maximum number of new trainings")
    parser.add_argument("--downscale", type=int, default=1, help="downscale factor of the images")
    parser.add_argument("--seed", type=int, default=0, help="seed of perturbations and trainings")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the results")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "machine": describe_machine(CPU),
        "commit": current_commit(),
        "scene": options.scene.name,
        "rows": {},
    }
    result |= {"minutes": options.minutes, "downscale": options.downscale, "seed": options.seed}
    num_trainings = 0
    for kind, settings in [(each, settings) for each in options.kinds for settings in select_methods(each)]:
        name = method_name(settings)
        out = options.runs / f"{name}_{kind}"
        num_trainings += not (out / SCORE_FILE).is_file()
        if num_trainings > options.trainings:
            break
        folder = prepare_scene(options.scene, kind, options.runs, options.seed)
        row = read_or_measure(out / SCORE_FILE, partial(train_and_score, folder, settings, out, options))
        result["rows"].setdefault(kind, {})[name] = row
        write_results(result, options.out)
    print(format_table(result))


if __name__ == "__main__":
    main()
