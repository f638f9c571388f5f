"""A field that has learned a 7-Scenes folder for minutes: its images and depth, and what localization makes of it.

Run `python benchmarks/seven_scenes.py FOLDER --runs RUNS`; it writes seven_scenes.json and .md. What it makes stays in
RUNS, and is not made again. Test frames are those with depth, which training does not see. Short trainings with several
focal lengths are compared on validation frames; the best one's is that of the field. Depth is compared with the
sensor's, whose points are seen through the run's camera. Poses start 5 degrees and 10 cm off, in random directions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import free_space
import numpy as np
import torch
from resumable import read_or_measure, train_or_resume

from lumifield import data
from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import Source
from lumifield.data.scene import Scene
from lumifield.evaluation.evaluate import evaluate
from lumifield.localization import Baseline, Density, Pose, Select, Synthesize
from lumifield.localization.pose_refinement import localize, perturb_pose, queries_of_split
from lumifield.localization.pose_regression import compare, sequence
from lumifield.methods import Instant
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.files import replacing, write_json
from lumifield.training import Train
from lumifield.training.job import TrainingJob

CPU = torch.device("cpu")
DEGREES, CENTIMETERS = 5.0, 10.0
SYNTHETIC_SIZE = (128, 96)


def train_field(options: argparse.Namespace, name: str, focal: float, minutes: float) -> LoadedRun:
    """A run of `instant` with a focal length."""
    source = Source(options.data, downscale=options.downscale, focal=focal)
    return train_or_resume(
        TrainingJob(Instant(), source, Train(minutes=minutes, seed=options.seed), options.runs / name)
    )


def compare_focal_lengths(options: argparse.Namespace) -> dict[str, Any]:
    """PSNR of validation frames for each focal length [dB], and the best of these."""
    scores = {}
    for focal in options.focals:
        run = train_field(options, f"focal_{focal:g}", focal, options.focal_minutes)
        scores[focal] = evaluate(run, "val", save_images=False).psnr
    return {"psnr": list(scores.items()), "best": max(scores, key=lambda focal: scores[focal])}


def score_held_out_views(run: LoadedRun) -> dict[str, Any]:
    """PSNR of the test frames [dB], and the median error of their depth [m]."""
    assert run.source is not None
    test = data.read_scene(run.source, "test")
    off = [depth_errors(run, test, index) for index in range(len(test))]
    metrics = evaluate(run)
    return {
        "images": len(test),
        "psnr": metrics.psnr,
        "ssim": metrics.ssim,
        "train_seconds": metrics.train_seconds,
        "median_depth_error": float(np.median(np.concatenate(off))),
        "median_depth_errors": [float(np.median(each)) for each in off],
    }


def depth_errors(run: LoadedRun, scene: Scene, index: int) -> np.ndarray:
    """Differences of the depth along the optical axis at the pixels of the sensor's points [m]."""
    assert run.source is not None
    depth = free_space.meters(run.source.data / f"{scene.names[index].removesuffix('.color.jpg')}.depth.png")
    local = free_space.local_points(depth, free_space.FOCAL)
    z = local[:, 2]
    camera = scene.cameras[[index]]
    focal, center, size = (values[0].numpy() for values in (camera.focal, camera.center, camera.size))
    xy = np.floor(local[:, :2] / z[:, None] * focal + center).astype(int)
    within = ((xy >= 0) & (xy < size)).all(-1)
    view = render_view(run.method, scene, index, device=CPU)
    rays = scene.rays(index)
    along = (rays.directions @ camera.forward[0]).view(view.depth.shape) * view.depth
    x, y = xy[within].T
    return np.abs(along.numpy()[y, x] - z[within])


def refine_poses(run: LoadedRun) -> dict[str, Any]:
    """How well poses of the test frames are refined."""
    seed = Pose().seed
    asked = queries_of_split(run, "test")
    starts = [perturb_pose(run, each, DEGREES, CENTIMETERS, seed=seed) for each in asked]
    return {"seed": seed} | localize(run, asked, starts, run.folder / "localize" / "pose")


def check_novel_views(run: LoadedRun, options: argparse.Namespace) -> dict[str, Any]:
    """How far new views are from true surfaces [m]."""
    Density().apply(run, ignore_progress)
    Select(places=options.places, num_views=options.views).apply(run, ignore_progress)
    return free_space.measure(run.folder / "localize" / "views.json", options.data)


def compare_regressors(run: LoadedRun) -> dict[str, Any]:
    """How far off a pose regressor is on test frames, without and with the new views."""
    assert run.source is not None
    Synthesize(size=SYNTHETIC_SIZE).apply(run, ignore_progress)
    local = run.folder / "localize"
    training, test = (data.read_scene(run.source, split) for split in ("train", "test"))
    return compare(Baseline(), training, test, sequence(local / "sequence"), local / "baseline")


def ignore_progress(done: int, of: int) -> None:
    """Progress that nobody looks at."""


def table_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What was measured, and how much it is."""
    pose, space, baseline = result["pose"], result["places"], result["baseline"]
    far, wide = pose["median_error"]
    found = [(f"validation PSNR, focal length {f:g}", f"{psnr:.2f} dB") for f, psnr in result["focal"]["psnr"]]
    found += [
        ("test PSNR", f"{result['field']['psnr']:.2f} dB"),
        ("median error of test depth, all pixels", f"{100 * result['field']['median_depth_error']:.1f} cm"),
        (
            f"pose refinement from {DEGREES:g} degrees and {CENTIMETERS:g} cm, median",
            f"{wide:.2f} degrees, {far:.1f} cm",
        ),
        *((f"poses {name}", f"{share:.0%}") for name, share in pose["success"].items()),
        ("seconds per pose", f"{pose['seconds'] / pose['images']:.1f}"),
        (f"minimum distance of {space['views']} novel views to a ground truth surface", f"{space['least']:.2f} m"),
        ("novel views behind a ground truth surface", f"{space['behind']:.1%}"),
    ]
    for name in ("without", "with"):
        far, wide = baseline[name]
        found.append((f"pose regressor {name} synthetic views, median", f"{wide:.2f} degrees, {far:.1f} cm"))
    return [*found, ("reduction", " and ".join(f"{share:.0%}" for share in baseline["drop"][::-1]))]


def format_table(result: dict[str, Any]) -> str:
    """The figures in one table."""
    about = result["field"]
    seeds = len({row["seed"] for row in result["baseline"]["rows"]})
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. {result['data']} at 1/{result['downscale']}: "
        f"{about['images']} test frames with depth; `instant`, {about['train_seconds']:.0f} s; seed "
        f"{result['seed']}; pose regression over {seeds} seeds.",
        "",
        "| quantity | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in table_rows(result)),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder of 7-Scenes of which some frames have depth")
    parser.add_argument("--runs", type=Path, required=True, help="folder of all that is made on the way")
    parser.add_argument("--minutes", type=float, default=5.0, help="length of the training")
    parser.add_argument("--focals", type=float, nargs="+", default=[525.0, 555.0, 585.0], help="focal lengths tried")
    parser.add_argument("--focal-minutes", type=float, default=1.0, help="length of a training for each of these")
    parser.add_argument("--downscale", type=int, default=2, help="images at 1/K of their width and height")
    parser.add_argument("--places", choices=["grid", "path"], default="grid", help="where new views are")
    parser.add_argument("--views", type=int, default=400, help="how many there are")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trainings")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the results")
    options = parser.parse_args()
    records = options.runs / "records"
    focal = read_or_measure(records / "focal.json", lambda: compare_focal_lengths(options))
    run = train_field(options, "field", focal["best"], options.minutes)
    result = {
        "machine": describe_machine(CPU),
        "commit": current_commit(),
        "data": options.data.name,
        "downscale": options.downscale,
        "seed": options.seed,
        "focal": focal,
        "field": read_or_measure(records / "field.json", lambda: score_held_out_views(run)),
        "pose": read_or_measure(records / "pose.json", lambda: refine_poses(run)),
        "places": read_or_measure(records / "places.json", lambda: check_novel_views(run, options)),
        "baseline": read_or_measure(records / "baseline.json", lambda: compare_regressors(run)),
    }
    write_json(options.out / "seven_scenes.json", result)
    with replacing(options.out / "seven_scenes.md") as temporary:
        temporary.write_text(format_table(result), encoding="utf-8")
    print(format_table(result))


if __name__ == "__main__":
    main()
