"""A split rendered and scored: metrics.json, pictures, error maps and report.html."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lumifield import data, report
from lumifield.core import images
from lumifield.core.errors import DataError
from lumifield.core.files import replacing
from lumifield.core.scene import Scene
from lumifield.core.settings import read_json
from lumifield.methods.views import View, render_view, view_psnr

if TYPE_CHECKING:
    from lumifield.checkpoint import Run

Perceptual = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
LPIPS_NET, LPIPS_SMALLEST = "alex", 32
ERROR_RANGE = 0.25
BACKDROPS = {
    "white": "white",
    "black": "black",
    "random": "white (random colours while training)",
    "none": "photographs are opaque; black behind the scene",
}


def evaluate(
    run: Run,
    split: str = "test",
    out: Path | None = None,
    *,
    save_pictures: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Renders all views of a split, scores them and writes RUN/eval/SPLIT (or `out`); returns what metrics.json holds.

    `psnr` is the mean over the pictures of each one's PSNR; a picture without a pixel that counts has none. Raises
    `DataError` where the run has no photographs of the split, or `out` cannot be written.
    """
    scene = photographs(run, split)
    out = run.folder / "eval" / split if out is None else out
    noted = history(run.folder)
    perceptual, reason = perceptual_metric(run.device)
    per_image, sights, pixels = [], [], 0
    for index in range(len(scene)):
        view = render_view(run.method, scene, index, device=run.device)
        pictures = compared(view, scene, index)
        scores = score(view, scene, index, pictures, perceptual)
        per_image.append({"name": scene.names[index], "seconds": view.seconds} | scores)
        sights.append(report.Sight.of(scene.names[index], scores, pictures))
        pixels += view.opacity.numel()
        if save_pictures:
            images.write_png(out / f"{index:03d}.png", pictures["prediction"])
            images.write_png(out / f"{index:03d}_error.png", pictures["error"])
        if progress is not None:
            progress(index + 1, len(scene))
    metrics = summary(run, split, scene, per_image, pixels) | {"lpips_reason": reason}
    if metrics["lpips"] is None and reason is None:
        metrics["lpips_reason"] = f"no picture has {LPIPS_SMALLEST} pixels a side"
    report.write(out / "report.html", metrics, sights, noted)
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return metrics


def photographs(run: Run, split: str) -> Scene:
    """The photographs of a split; raises `DataError` where there are none to compare with."""
    if run.source is None:
        raise DataError(run.folder, "data", "unknown to the run", "a data set", "evaluate a run trained on photographs")
    if not run.source.data.exists():
        cure = "name their new place with --data"
        raise DataError(run.source.data, "folder", "missing", "the photographs of the run", cure)
    scene = data.read(run.source, split)
    if len(scene) == 0:
        raise DataError(run.source.data, f"split {split!r}", "empty", "one picture or more", "choose another split")
    return scene


def compared(view: View, scene: Scene, index: int) -> dict[str, Tensor]:
    """What the report shows of a view, as 8-bit pictures: truth, prediction, error and depth.

    The error is the mean absolute difference of the channels, black at 0 and brightest from `ERROR_RANGE` up.
    """
    truth, prediction = images.to_uint8(scene.truth(index).cpu()), images.to_uint8(view.rgb)
    error = (truth.float() - prediction.float()).abs().mean(-1) / 255
    error = error * scene.valid(index).cpu()
    return {
        "truth": truth,
        "prediction": prediction,
        "error": images.to_uint8(images.colourise(error, 0.0, ERROR_RANGE, images.HEAT)),
        "depth": view.depth_picture(*images.quantile_range(view.depth[view.solid])),
    }


def score(
    view: View, scene: Scene, index: int, pictures: dict[str, Tensor], perceptual: Perceptual | None
) -> dict[str, float | None]:
    """Scores of one 8-bit picture; with a mask, SSIM and LPIPS see both pictures black outside it."""
    a, b = pictures["prediction"].float() / 255, pictures["truth"].float() / 255
    masked = None
    if _masked(scene):
        inside = scene.valid(index).cpu()[..., None]
        a, b = a * inside, b * inside
        masked = images.psnr(images.mean_squared_error(a, b))
    large = min(a.shape[:2]) >= LPIPS_SMALLEST
    return {
        "psnr": view_psnr(view, scene, index),
        "psnr_masked_image": masked,
        "ssim": ssim(a, b),
        "lpips": float(perceptual(_batched(a), _batched(b))) if perceptual is not None and large else None,
    }


def ssim(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"]) -> float | None:
    """Structural similarity with a Gaussian window; None for a picture smaller than the window."""
    if min(a.shape[:2]) < SSIM_WINDOW:
        return None
    value = structural_similarity_index_measure(
        _batched(a), _batched(b), sigma=SSIM_SIGMA, kernel_size=SSIM_WINDOW, data_range=1.0
    )
    assert isinstance(value, Tensor)
    return float(value)


def perceptual_metric(device: torch.device) -> tuple[Perceptual | None, str | None]:
    """LPIPS (Zhang et al. 2018) of pictures in [0, 1], or None and the reason why it cannot be had."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        metric = LearnedPerceptualImagePatchSimilarity(LPIPS_NET, normalize=True)
    except ModuleNotFoundError:
        return None, "torchvision is not installed; pip install torchvision"
    except OSError as error:
        return None, f"the weights of {LPIPS_NET} cannot be fetched ({error})"
    metric = metric.to(device).requires_grad_(False)
    return lambda a, b: metric(a.to(device), b.to(device)), None


def summary(run: Run, split: str, scene: Scene, per_image: list[dict[str, Any]], pixels: int) -> dict[str, Any]:
    """All of metrics.json but the reason for a missing LPIPS."""
    seconds = sum(picture["seconds"] for picture in per_image)
    keys = ("psnr", "psnr_masked_image", "ssim", "lpips")
    return {
        **{key: mean([picture[key] for picture in per_image]) for key in keys},
        "n_images": len(per_image),
        "n_train_images": run.train["n_train_images"],
        "train_seconds": run.train["seconds"],
        "train_steps": run.train["steps"],
        "train_rays_per_second": rate(run.train["rays"], run.train["seconds"]),
        "render_seconds": seconds,
        "render_rays_per_second": rate(pixels, seconds),
        "method": run.config["method"]["kind"],
        "data": str(run.source.data) if run.source else None,
        "split": split,
        "protocol": protocol(run, split, scene),
        "per_image": per_image,
    }


def protocol(run: Run, split: str, scene: Scene) -> dict[str, str]:
    """Every choice that moves the scores, in words."""
    sizes = sorted({tuple(size) for size in scene.cameras.size.tolist()})
    shown = [f"{width}x{height}" for width, height in sizes]
    downscale = run.source.downscale if run.source else 1
    return {
        "background": BACKDROPS[scene.background],
        "resolution": (shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}")
        + (f" (1/{downscale} of the files)" if downscale > 1 else ""),
        "pixel_centres": "at one half",
        "split_rule": split_rule(run, split),
        "clipping": "to [0, 1] before rounding",
        "rounding_8bit": "prediction and truth are rounded to the nearest of 256 levels before scoring",
        "psnr": f"mean over pictures of each one's PSNR on sRGB values; {images.PSNR_LIMIT:.0f} dB for equal pictures",
        "mask": "pixels outside the masks do not count" if _masked(scene) else "none, all pixels count",
        "ssim": f"torchmetrics, Gaussian window {SSIM_WINDOW}, sigma {SSIM_SIGMA}, range 1, edges mirrored",
        "lpips_net": LPIPS_NET,
        "embedding_fit": "none, the method has no embedding of a picture",
        "colour_pass": "the finest",
    }


def split_rule(run: Run, split: str) -> str:
    """How the split was chosen."""
    if run.source is None:
        return "unknown"
    named = run.source.data / f"transforms_{split}.json"
    if named.is_file():
        return f"the data's own {named.name}"
    return "every-8th held out" if run.source.hold_out == "auto" else f"{run.source.hold_out} held out"


def history(folder: Path) -> list[dict[str, Any]]:
    """What the training wrote down as it went: step, seconds, psnr; empty where it did not."""
    path = folder / "log" / "history.json"
    return read_json(path) if path.is_file() else []


def mean(values: list[float | None]) -> float | None:
    """The mean of the values that are there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def rate(count: int, seconds: float) -> float | None:
    """Count per second; None where no time passed."""
    return count / seconds if seconds > 0 else None


def _masked(scene: Scene) -> bool:
    return scene.pictures is not None and scene.pictures.mask is not None


def _batched(picture: Float[Tensor, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    return picture.permute(2, 0, 1)[None]
