"""A split rendered and scored: metrics.json and .csv, images, error maps and report.html."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lumifield import data
from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.evaluation import appearance_fit, report
from lumifield.evaluation.chamfer import chamfer
from lumifield.evaluation.sdf_slices import slices
from lumifield.rendering.view import View
from lumifield.runtime import colormaps, distributed, image_io, image_metrics
from lumifield.runtime.config import read_json
from lumifield.runtime.files import replacing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

Perceptual = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
LPIPS_NET, LPIPS_SMALLEST = "alex", 32
ERROR_RANGE = 0.25
BACKDROPS = {
    "white": "white",
    "black": "black",
    "random": "white (random colors while training)",
    "none": "images are opaque; black behind the scene",
}


@dataclass(frozen=True)
class Scoring:
    """What views wear (`lumifield.rendering.appearance`), and whether their right halves alone are scored."""

    appearance: str
    right_half: bool

    @staticmethod
    def of(run: LoadedRun, worn: str | None = None, *, right_half: bool = False) -> Scoring:
        """As asked for, else as usual for the method; no half is scored that an appearance was learned from."""
        worn = appearance_fit.usual(run.method) if worn is None else worn
        return Scoring(worn, right_half or worn in appearance_fit.LEARNED)

    def first(self, width: int) -> int:
        """The first column that is scored."""
        return width // 2 if self.right_half else 0


def evaluate(
    run: LoadedRun,
    split: str = "test",
    out: Path | None = None,
    *,
    scoring: Scoring | None = None,
    save_images: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Renders all views of a split, scores them and writes `folder_of(run, split, scoring)` (or `out`).

    Returns what metrics.json holds: `psnr` is the mean over the images of each one's PSNR; an image without a pixel
    that counts has none. Several processes share the views, and the first writes the result. Raises `DataError` where
    the run has no images of the split, or `out` cannot be written.
    """
    rank, world = distributed.join()
    scene = photographs(run, split, slice(rank, None, world))
    scoring = Scoring.of(run) if scoring is None else scoring
    out = folder_of(run, split, scoring) if out is None else out
    noted = history(run.folder)
    perceptual, reason = perceptual_metric(run.device)
    own = []
    for row in range(len(scene)):
        file = out / f"{rank + row * world:03d}.png" if save_images else None
        own.append(look(run, scene, row, scoring, perceptual, file))
        if progress is not None:
            progress(row + 1, len(scene))
    shares = distributed.gather(own)
    looks = [shares[index % world][index // world] for index in range(sum(map(len, shares)))]
    metrics = summary(run, split, looks, reason) | {"protocol": protocol(run, split, scene, looks, scoring)}
    if rank == 0:
        metrics["chamfer"] = chamfer(run)
        sights = [report.Sight(each["name"], each["scores"], each["images"]) for each in looks]
        report.write(out / "report.html", metrics, sights, noted)
        if save_images and run.method.surface_level is not None:
            image_io.write_png(out / "slices.png", slices(run.method, scene.box.to(run.device)))
        write_scores(out, metrics)
    return metrics


def write_scores(out: Path, metrics: dict[str, Any]) -> None:
    """metrics.json, and metrics.csv with a row for each image (empty where it has no such score)."""
    with replacing(out / "metrics.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(metrics["per_image"][0]))
        table.writeheader()
        table.writerows(metrics["per_image"])
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def look(
    run: LoadedRun, scene: Scene, row: int, scoring: Scoring, perceptual: Perceptual | None, file: Path | None
) -> dict[str, Any]:
    """One view rendered and scored, as JSON holds it; its image goes to `file`, its error map beside it."""
    view = appearance_fit.worn(run, scene, row, scoring.appearance)
    images = compared(view, scene, row)
    if file is not None:
        image_io.write_png(file, images["prediction"])
        for name in images.keys() - {"truth", "prediction", "depth"}:
            image_io.write_png(file.with_stem(f"{file.stem}_{name}"), images[name])
    scored = slice(scoring.first(scene.size(row)[0]), None)
    valid = scene.valid_mask(row).cpu()[:, scored] if _masked(scene) else None
    scores = score(images["prediction"][:, scored], images["truth"][:, scored], valid, perceptual)
    scores |= {"mask_iou": overlap(view.solid, scene.object_mask(row).cpu()) if scene.has_object_mask else None}
    sight = report.Sight.of(scene.names[row], scores, images)
    return asdict(sight) | {"size": scene.size(row), "seconds": view.seconds}


def folder_of(run: LoadedRun, split: str, scoring: Scoring | None = None) -> Path:
    """RUN/eval/SPLIT, and in its name whatever is unusual: `_downscale_4` (another size than for training), `_masks`,
    `_mean` or another appearance, `_right` halves.
    """
    usual, scoring = Scoring.of(run), scoring or Scoring.of(run)
    now, trained = downscales(run)
    parts = [split]
    parts += [f"downscale_{now}"] if now != trained else []
    parts += ["masks"] if run.source is not None and run.source.masks is not None else []
    parts += [Path(scoring.appearance).stem] if scoring.appearance != usual.appearance else []
    parts += ["right"] if scoring.right_half and scoring.appearance not in appearance_fit.LEARNED else []
    return run.folder / "eval" / "_".join(parts)


def downscales(run: LoadedRun) -> tuple[int, int]:
    """By how much the images are shrunk now, and by how much they were for the training."""
    trained = run.config["source"].get("downscale", 1)
    return trained if run.source is None else run.source.downscale, trained


def photographs(run: LoadedRun, split: str, rows: slice = slice(None)) -> Scene:
    """The images of a split; raises `DataError` where the run knows of none to compare with."""
    if run.source is None:
        raise DataError(run.folder, "data", "unknown to the run", "a data set", "evaluate a run trained on images")
    if not run.source.data.exists():
        fix = "name their new place with --data"
        raise DataError(run.source.data, "folder", "missing", "the images of the run", fix)
    return data.read(run.source, split, rows=rows)


def compared(view: View, scene: Scene, index: int) -> dict[str, Tensor]:
    """What the report shows of a view, as 8-bit images: truth, prediction, error, depth, the method's own channels.

    The error is the mean absolute difference of the channels, black at 0 and brightest from `ERROR_RANGE` up. Of an
    object that is cut out there are silhouettes, too: white where both agree, red what is missing, blue what is added.
    """
    truth, prediction = image_io.to_uint8(scene.ground_truth(index).cpu()), image_io.to_uint8(view.rgb)
    error = (truth.float() - prediction.float()).abs().mean(-1) / 255
    error = error * scene.valid_mask(index).cpu()
    return {
        "truth": truth,
        "prediction": prediction,
        "error": image_io.to_uint8(colormaps.apply_colormap(error, 0.0, ERROR_RANGE, colormaps.HEAT)),
        "depth": view.depth_image(*colormaps.quantile_range(view.depth[view.solid])),
        **({"silhouettes": silhouettes(view.solid, scene.object_mask(index).cpu())} if scene.has_object_mask else {}),
        **{name: image_io.to_uint8(values) for name, values in view.channels.items()},
    }


def silhouettes(found: Bool[Tensor, "h w"], truth: Bool[Tensor, "h w"]) -> UInt8[Tensor, "h w 3"]:
    """White where both are, red where the truth alone is, blue where it is not."""
    return 255 * torch.stack([truth, truth & found, found], -1).to(torch.uint8)


def score(
    prediction: UInt8[Tensor, "h w 3"],
    truth: UInt8[Tensor, "h w 3"],
    valid: Bool[Tensor, "h w"] | None,
    perceptual: Perceptual | None,
) -> dict[str, float | None]:
    """Scores of one 8-bit image; where not all pixels are `valid`, SSIM and LPIPS see both images black there."""
    a, b = prediction.float() / 255, truth.float() / 255
    counts = valid is None or bool(valid.any())
    own = image_metrics.psnr(image_metrics.mean_squared_error(a, b, valid)) if counts else None
    masked = None
    if valid is not None:
        a, b = a * valid[..., None], b * valid[..., None]
        masked = image_metrics.psnr(image_metrics.mean_squared_error(a, b))
    large = min(a.shape[:2]) >= LPIPS_SMALLEST
    return {
        "psnr": own,
        "psnr_masked_image": masked,
        "ssim": ssim(a, b),
        "lpips": float(perceptual(_batched(a), _batched(b))) if perceptual is not None and large else None,
    }


def overlap(a: Bool[Tensor, "h w"], b: Bool[Tensor, "h w"]) -> float:
    """Intersection over union of two silhouettes; 1 where both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def ssim(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"]) -> float | None:
    """Structural similarity with a Gaussian window; None for an image smaller than the window."""
    if min(a.shape[:2]) < SSIM_WINDOW:
        return None
    value = structural_similarity_index_measure(
        _batched(a), _batched(b), sigma=SSIM_SIGMA, kernel_size=SSIM_WINDOW, data_range=1.0
    )
    assert isinstance(value, Tensor)
    return float(value)


def perceptual_metric(device: torch.device) -> tuple[Perceptual | None, str | None]:
    """LPIPS (Zhang et al. 2018) of images in [0, 1], or None and the reason why it cannot be had."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        metric = LearnedPerceptualImagePatchSimilarity(LPIPS_NET, normalize=True)
    except ModuleNotFoundError:
        return None, "torchvision is not installed; pip install torchvision"
    except OSError as error:
        return None, f"the weights of {LPIPS_NET} cannot be fetched ({error})"
    metric = metric.to(device).requires_grad_(False)
    return lambda a, b: metric(a.to(device), b.to(device)), None


def summary(run: LoadedRun, split: str, looks: list[dict[str, Any]], lpips_reason: str | None) -> dict[str, Any]:
    """All of metrics.json but its protocol."""
    seconds = sum(look["seconds"] for look in looks)
    scores = means(looks)
    if scores["lpips"] is None and lpips_reason is None:
        lpips_reason = f"no image has {LPIPS_SMALLEST} pixels a side"
    return {
        **scores,
        "lpips_reason": lpips_reason,
        "n_images": len(looks),
        "n_train_images": run.training_summary["n_train_images"],
        "train_seconds": run.training_summary["seconds"],
        "train_steps": run.training_summary["steps"],
        "train_rays_per_second": rate(run.training_summary["rays"], run.training_summary["seconds"]),
        "render_seconds": seconds,
        "render_rays_per_second": rate(sum(width * height for width, height in sizes(looks)), seconds),
        "method": run.config["method"]["kind"],
        "data": str(run.source.data) if run.source else None,
        "split": split,
        "per_scale": {
            f"{width}x{height}": means([look for look in looks if tuple(look["size"]) == (width, height)])
            for width, height in sorted(set(sizes(looks)), reverse=True)
        },
        "per_image": [{"name": look["name"], "seconds": look["seconds"]} | look["scores"] for look in looks],
    }


def sizes(looks: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Width and height of each view."""
    return [tuple(look["size"]) for look in looks]


def told(metrics: dict[str, Any], scoring: Scoring) -> list[str]:
    """The scores in a few lines for the terminal."""
    words = {"psnr": "dB", "ssim": "", "lpips": ""}
    scores = [f"{k} {metrics[k]:.4g} {unit}".strip() for k, unit in words.items() if metrics[k] is not None]
    views = f"{metrics['n_images']} {'right halves' if scoring.right_half else 'views'}"
    lines = [f"{metrics['split']}, {views}: {', '.join(scores)}"]
    if metrics.get("chamfer") is not None:
        lines.append(f"surface: {metrics['chamfer']:.2%} of the true one's diagonal from it (chamfer)")
    if metrics["lpips"] is None:
        lines.append(f"no lpips: {metrics['lpips_reason']}")
    for name, row in metrics.get("starts", {}).items():
        lines.append(f"{name} start: {row['before']:.2f} dB, adapted {row['psnr']:.2f} dB")
    return lines


def protocol(run: LoadedRun, split: str, scene: Scene, looks: list[dict[str, Any]], scoring: Scoring) -> dict[str, str]:
    """Every choice that moves the scores, in words; `scene` is a part of the split or all of it."""
    return {
        "background": BACKDROPS[scene.background],
        "resolution": resolution(run, sizes(looks)),
        "pixel_centers": "at one half",
        "split_rule": data.split_rule(run.source, split) if run.source else "unknown",
        "clipping": "to [0, 1] before rounding",
        "rounding_8bit": "prediction and truth are rounded to the nearest of 256 levels before scoring",
        "psnr": f"mean over images of each one's PSNR on sRGB values; {image_metrics.PSNR_LIMIT:.0f} dB for equal images",
        "mask": told_masks(scene),
        "columns": "the right half, from column W // 2 on" if scoring.right_half else "all",
        "ssim": f"torchmetrics, Gaussian window {SSIM_WINDOW}, sigma {SSIM_SIGMA}, range 1, edges mirrored",
        "lpips_net": LPIPS_NET,
        "embedding_fit": appearance_fit.told(run.method, scoring.appearance),
        "color_pass": "the finest",
    }


def told_masks(scene: Scene) -> str:
    """Which pixels count, in words."""
    if not _masked(scene):
        return "none, all pixels count"
    if not scene.has_object_mask:
        return "pixels outside the masks do not count"
    return "pixels outside the silhouettes (alpha below one half) do not count; SSIM and LPIPS see them black"


def resolution(run: LoadedRun, sizes: list[tuple[int, int]]) -> str:
    """The sizes of the images, and how they came to be."""
    smallest, largest = (f"{width}x{height}" for width, height in (min(sizes), max(sizes)))
    now, trained = downscales(run)
    notes = [f"1/{now} of the files"] if now > 1 else []
    notes += [f"trained at 1/{trained}"] if now != trained else []
    shown = smallest if smallest == largest else f"{smallest} to {largest}"
    return f"{shown} ({', '.join(notes)})" if notes else shown


def history(folder: Path) -> list[dict[str, Any]]:
    """What the training wrote down as it went: step, seconds, psnr; empty where it did not."""
    path = folder / "log" / "history.json"
    return read_json(path) if path.is_file() else []


def means(looks: list[dict[str, Any]]) -> dict[str, float | None]:
    """The mean of each score over some views, and their `average_error`."""
    scores = {key: mean([look["scores"][key] for look in looks]) for key in looks[0]["scores"]}
    return scores | {"average_error": average_error(scores["psnr"], scores["ssim"], scores["lpips"])}


def average_error(psnr: float | None, ssim: float | None, lpips: float | None) -> float | None:
    """Geometric mean of the squared error, sqrt(1 - SSIM) and LPIPS (mip-NeRF, section 4); None if one is missing."""
    if psnr is None or ssim is None or lpips is None:
        return None
    return (10 ** (-psnr / 10) * max(1 - ssim, 0.0) ** 0.5 * max(lpips, 0.0)) ** (1 / 3)


def mean(values: list[float | None]) -> float | None:
    """The mean of the values that are there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def rate(count: int, seconds: float) -> float | None:
    """Count per second; None where no time passed."""
    return count / seconds if seconds > 0 else None


def _masked(scene: Scene) -> bool:
    return scene.has_object_mask or (scene.images is not None and scene.images.mask is not None)


def _batched(image: Float[Tensor, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    return image.permute(2, 0, 1)[None]
