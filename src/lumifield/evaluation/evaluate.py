"""Evaluation of a split: rendered views, scores, metrics.json, metrics.csv, error maps and report.html."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.evaluation import appearance_fit, report
from lumifield.evaluation.chamfer import chamfer_distance
from lumifield.evaluation.metrics import (
    LPIPS_MIN_SIZE,
    Metrics,
    Perceptual,
    ViewScore,
    intersection_over_union,
    load_lpips,
    mean_scores,
    score_image,
)
from lumifield.evaluation.protocol import Scoring, describe_protocol, downscale_factors, has_masks
from lumifield.evaluation.report import ReportView
from lumifield.evaluation.sdf_slices import render_slices
from lumifield.methods import method_name
from lumifield.rendering.view import RenderedView
from lumifield.runs.checkpoint import read_history
from lumifield.runtime import colormaps, distributed, image_io
from lumifield.runtime.files import replacing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

Progress = Callable[[int, int], None]

ERROR_RANGE = 0.25


def evaluate(
    run: LoadedRun,
    split: str = "test",
    out: Path | None = None,
    *,
    scoring: Scoring | None = None,
    save_images: bool = True,
    download_lpips: bool = False,
    progress: Progress | None = None,
) -> Metrics:
    """Renders all views of a split, scores them and writes `evaluation_folder(run, split, scoring)` (or `out`).

    `psnr` is the mean over images of the PSNR of each; an image without valid pixels has none. Several processes
    share the views, and the first writes the result. Raises `DataError` if the run has no images of the split, or `out`
    is not writable.
    """
    rank, world = distributed.join()
    scene = load_ground_truth(run, split, slice(rank, None, world))
    scoring = Scoring.of(run) if scoring is None else scoring
    out = evaluation_folder(run, split, scoring) if out is None else out
    history = read_history(run.folder)
    perceptual, reason = load_lpips(run.device, download=download_lpips)
    own: list[dict[str, Any]] = []
    for row in range(len(scene)):
        file = out / f"{rank + row * world:03d}.png" if save_images else None
        own.append(asdict(score_view(run, scene, row, scoring, perceptual, file)))
        if progress is not None:
            progress(row + 1, len(scene))
    shares = distributed.gather(own)
    views = [ReportView.from_json(shares[row % world][row // world]) for row in range(sum(map(len, shares)))]
    protocol = describe_protocol(run, split, scene, [view.size for view in views], scoring)
    metrics = summarize(run, split, views, protocol, out, lpips_reason=reason, right_half=scoring.right_half)
    if rank == 0:
        metrics = replace(metrics, chamfer=chamfer_distance(run))
        report.write_report(metrics, views, history)
        if save_images and run.method.traits.has_signed_distance:
            image_io.write_png(out / "slices.png", render_slices(run.method, scene.box.to(run.device)))
        write_scores(metrics)
    return metrics


def write_scores(metrics: Metrics) -> None:
    """Writes metrics.json, and metrics.csv with one row per image (empty cells for undefined scores)."""
    rows = [view.to_row() for view in metrics.per_image]
    file = metrics.folder / "metrics.csv"
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        table = csv.DictWriter(opened, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    with replacing(metrics.folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def score_view(
    run: LoadedRun, scene: Scene, row: int, scoring: Scoring, perceptual: Perceptual | None, file: Path | None
) -> ReportView:
    """Renders and scores one view; writes the rendering to `file` and its error map next to it."""
    view = appearance_fit.render_with_appearance(run, scene, row, scoring.appearance)
    images = comparison_images(view, scene, row)
    if file is not None:
        image_io.write_png(file, images["rendering"])
        for name in images.keys() - {"ground truth", "rendering", "depth"}:
            image_io.write_png(file.with_stem(f"{file.stem}_{name}"), images[name])
    columns = slice(scoring.first_column(scene.size(row)[0]), None)
    valid = scene.valid_mask(row).cpu()[:, columns] if has_masks(scene) else None
    overlap = None
    if scene.has_object_mask:
        overlap = intersection_over_union(view.hit_mask, scene.object_mask(row).cpu())
    rendering, ground_truth = images["rendering"][:, columns], images["ground truth"][:, columns]
    scores = score_image(rendering, ground_truth, valid, perceptual, overlap)
    score = ViewScore(**asdict(scores), name=scene.names[row], seconds=view.seconds)
    return ReportView.of(score, scene.size(row), images)


def evaluation_folder(run: LoadedRun, split: str, scoring: Scoring | None = None) -> Path:
    """RUN/eval/SPLIT, with a suffix for each non-default choice.

    Suffixes: `_downscale_4` (another size than in training), `_masks`, `_mean` or another appearance, `_right`.
    """
    default, scoring = Scoring.of(run), scoring or Scoring.of(run)
    now, trained = downscale_factors(run)
    parts = [split]
    parts += [f"downscale_{now}"] if now != trained else []
    parts += ["masks"] if run.source is not None and run.source.masks is not None else []
    parts += [Path(scoring.appearance).stem] if scoring.appearance != default.appearance else []
    parts += ["right"] if scoring.right_half and scoring.appearance not in appearance_fit.FITTED_APPEARANCES else []
    return run.folder / "eval" / "_".join(parts)


def load_ground_truth(run: LoadedRun, split: str, rows: slice = slice(None)) -> Scene:
    """Images of a split; raises `DataError` if they are unknown or missing."""
    if run.source is not None and not run.source.data.exists():
        raise DataError(run.source.data, "folder", "nothing", "the images of the run", "give their folder with --data")
    return run.capture.read(split, rows=rows)


def comparison_images(view: RenderedView, scene: Scene, index: int) -> dict[str, Tensor]:
    """8-bit images of a view for the report: ground truth, rendering, error, depth, channels of the method.

    The error is the mean absolute difference over channels, black at 0 and brightest from `ERROR_RANGE` up. Objects
    with masks also have silhouettes: white where both agree, red if missing, blue if added.
    """
    ground_truth, rendering = image_io.to_uint8(scene.ground_truth(index).cpu()), image_io.to_uint8(view.rgb)
    error = (ground_truth.float() - rendering.float()).abs().mean(-1) / 255
    error = error * scene.valid_mask(index).cpu()
    images = {
        "ground truth": ground_truth,
        "rendering": rendering,
        "error": image_io.to_uint8(colormaps.apply_colormap(error, 0.0, ERROR_RANGE, colormaps.HEAT)),
        "depth": view.depth_image(*colormaps.quantile_range(view.depth[view.hit_mask])),
    }
    if scene.has_object_mask:
        images["silhouettes"] = compare_silhouettes(view.hit_mask, scene.object_mask(index).cpu())
    return images | {name: image_io.to_uint8(values) for name, values in view.channels.items()}


def compare_silhouettes(rendered: Bool[Tensor, "h w"], ground_truth: Bool[Tensor, "h w"]) -> UInt8[Tensor, "h w 3"]:
    """White where both are set, red where only the ground truth is, blue where only the rendering is."""
    return 255 * torch.stack([ground_truth, ground_truth & rendered, rendered], -1).to(torch.uint8)


def summarize(
    run: LoadedRun,
    split: str,
    views: Sequence[ReportView],
    protocol: dict[str, str],
    out: Path,
    *,
    lpips_reason: str | None,
    right_half: bool = False,
) -> Metrics:
    """Metrics of scored views, as written to the folder `out`."""
    scores, training = [view.score for view in views], run.training_summary
    seconds = sum(score.seconds for score in scores)
    means, sizes = mean_scores(scores), [view.size for view in views]
    if means.lpips is None and lpips_reason is None:
        lpips_reason = f"all images are smaller than {LPIPS_MIN_SIZE} pixels"
    by_size = {size: [view.score for view in views if view.size == size] for size in sorted(set(sizes))[::-1]}
    return Metrics(
        **asdict(means),
        lpips_reason=lpips_reason,
        n_images=len(views),
        n_train_images=training.n_train_images,
        train_seconds=training.seconds,
        train_steps=training.steps,
        train_rays_per_second=per_second(training.rays, training.seconds),
        render_seconds=seconds,
        render_rays_per_second=per_second(sum(width * height for width, height in sizes), seconds),
        method=method_name(run.config.method),
        data=str(run.source.data) if run.source else None,
        split=split,
        per_scale={f"{width}x{height}": mean_scores(part) for (width, height), part in by_size.items()},
        per_image=tuple(scores),
        protocol=protocol,
        folder=out,
        right_half=right_half,
    )


def per_second(count: int, seconds: float) -> float | None:
    """Count per second; None if no time has passed."""
    return count / seconds if seconds > 0 else None
