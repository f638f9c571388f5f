"""Evaluation of a split: rendered views, scores, metrics.json, metrics.csv, error maps and report.html."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict
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
    Perceptual,
    intersection_over_union,
    load_lpips,
    mean_scores,
    score_image,
)
from lumifield.evaluation.protocol import Scoring, describe_protocol, downscale_factors, has_masks
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
) -> dict[str, Any]:
    """Renders all views of a split, scores them and writes `evaluation_folder(run, split, scoring)` (or `out`).

    Returns the content of metrics.json: `psnr` is the mean over images of the PSNR of each; an image without valid
    pixels has none. Several processes share the views, and the first writes the result. Raises `DataError` if the run
    has no images of the split, or `out` is not writable.
    """
    rank, world = distributed.join()
    scene = load_ground_truth(run, split, slice(rank, None, world))
    scoring = Scoring.of(run) if scoring is None else scoring
    out = evaluation_folder(run, split, scoring) if out is None else out
    history = read_history(run.folder)
    perceptual, reason = load_lpips(run.device, download=download_lpips)
    own = []
    for row in range(len(scene)):
        file = out / f"{rank + row * world:03d}.png" if save_images else None
        own.append(score_view(run, scene, row, scoring, perceptual, file))
        if progress is not None:
            progress(row + 1, len(scene))
    shares = distributed.gather(own)
    views = [shares[index % world][index // world] for index in range(sum(map(len, shares)))]
    protocol = describe_protocol(run, split, scene, image_sizes(views), scoring)
    metrics = summarize(run, split, views, reason) | {"protocol": protocol}
    if rank == 0:
        metrics["chamfer"] = chamfer_distance(run)
        report_views = [report.ReportView(view["name"], view["scores"], view["images"]) for view in views]
        report.write_report(out / "report.html", metrics, report_views, history)
        if save_images and run.method.traits.has_signed_distance:
            image_io.write_png(out / "slices.png", render_slices(run.method, scene.box.to(run.device)))
        write_scores(out, metrics)
    return metrics


def write_scores(out: Path, metrics: dict[str, Any]) -> None:
    """Writes metrics.json, and metrics.csv with one row per image (empty cells for undefined scores)."""
    with replacing(out / "metrics.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(metrics["per_image"][0]))
        table.writeheader()
        table.writerows(metrics["per_image"])
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def score_view(
    run: LoadedRun, scene: Scene, row: int, scoring: Scoring, perceptual: Perceptual | None, file: Path | None
) -> dict[str, Any]:
    """Renders and scores one view, as JSON; writes the rendering to `file` and its error map next to it."""
    view = appearance_fit.render_with_appearance(run, scene, row, scoring.appearance)
    images = comparison_images(view, scene, row)
    if file is not None:
        image_io.write_png(file, images["rendering"])
        for name in images.keys() - {"ground truth", "rendering", "depth"}:
            image_io.write_png(file.with_stem(f"{file.stem}_{name}"), images[name])
    columns = slice(scoring.first_column(scene.size(row)[0]), None)
    valid = scene.valid_mask(row).cpu()[:, columns] if has_masks(scene) else None
    scores = score_image(images["rendering"][:, columns], images["ground truth"][:, columns], valid, perceptual)
    scores["mask_iou"] = None
    if scene.has_object_mask:
        scores["mask_iou"] = intersection_over_union(view.hit_mask, scene.object_mask(row).cpu())
    report_view = report.ReportView.of(scene.names[row], scores, images)
    return asdict(report_view) | {"size": scene.size(row), "seconds": view.seconds}


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


def summarize(run: LoadedRun, split: str, views: list[dict[str, Any]], lpips_reason: str | None) -> dict[str, Any]:
    """Content of metrics.json without its protocol."""
    seconds = sum(view["seconds"] for view in views)
    scores, sizes, training = mean_scores(views), image_sizes(views), run.training_summary
    if scores["lpips"] is None and lpips_reason is None:
        lpips_reason = f"all images are smaller than {LPIPS_MIN_SIZE} pixels"
    by_size = {size: [view for view in views if tuple(view["size"]) == size] for size in sorted(set(sizes))[::-1]}
    return {
        **scores,
        "lpips_reason": lpips_reason,
        "n_images": len(views),
        "n_train_images": training.n_train_images,
        "train_seconds": training.seconds,
        "train_steps": training.steps,
        "train_rays_per_second": per_second(training.rays, training.seconds),
        "render_seconds": seconds,
        "render_rays_per_second": per_second(sum(width * height for width, height in sizes), seconds),
        "method": method_name(run.config.method),
        "data": str(run.source.data) if run.source else None,
        "split": split,
        "per_scale": {f"{width}x{height}": mean_scores(part) for (width, height), part in by_size.items()},
        "per_image": [{"name": view["name"], "seconds": view["seconds"]} | view["scores"] for view in views],
    }


def image_sizes(views: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Width and height of each view."""
    return [tuple(view["size"]) for view in views]


def format_scores(metrics: dict[str, Any], scoring: Scoring) -> list[str]:
    """Scores as a few lines for the terminal."""
    units = {"psnr": "dB", "ssim": "", "lpips": ""}
    scores = [f"{key} {metrics[key]:.4g} {unit}".strip() for key, unit in units.items() if metrics[key] is not None]
    views = f"{metrics['n_images']} {'right halves' if scoring.right_half else 'views'}"
    lines = [f"{metrics['split']}, {views}: {', '.join(scores)}"]
    if metrics.get("chamfer") is not None:
        lines.append(f"surface: chamfer distance {metrics['chamfer']:.2%} of the diagonal of the ground truth mesh")
    if metrics["lpips"] is None:
        lines.append(f"no lpips: {metrics['lpips_reason']}")
    for name, row in metrics.get("initializations", {}).items():
        lines.append(f"{name} initialization: {row['before']:.2f} dB, adapted {row['psnr']:.2f} dB")
    return lines


def per_second(count: int, seconds: float) -> float | None:
    """Count per second; None if no time has passed."""
    return count / seconds if seconds > 0 else None
