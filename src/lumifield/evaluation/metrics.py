"""Scores of rendered images: PSNR, SSIM, LPIPS, silhouette overlap, and their means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lumifield.runtime import image_metrics

Perceptual = Callable[[Tensor, Tensor], Tensor]

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
LPIPS_NET, LPIPS_MIN_SIZE = "alex", 32
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
"""File of the AlexNet weights in torch's hub folder."""


def score_image(
    rendered: UInt8[Tensor, "h w 3"],
    ground_truth: UInt8[Tensor, "h w 3"],
    valid: Bool[Tensor, "h w"] | None,
    perceptual: Perceptual | None,
) -> dict[str, float | None]:
    """Scores of one 8-bit image; for SSIM and LPIPS, pixels that are not `valid` are black in both images."""
    a, b = rendered.float() / 255, ground_truth.float() / 255
    has_pixels = valid is None or bool(valid.any())
    psnr = image_metrics.psnr(image_metrics.mean_squared_error(a, b, valid)) if has_pixels else None
    masked = None
    if valid is not None:
        a, b = a * valid[..., None], b * valid[..., None]
        masked = image_metrics.psnr(image_metrics.mean_squared_error(a, b))
    is_large = min(a.shape[:2]) >= LPIPS_MIN_SIZE
    return {
        "psnr": psnr,
        "psnr_masked_image": masked,
        "ssim": ssim(a, b),
        "lpips": float(perceptual(_batched(a), _batched(b))) if perceptual is not None and is_large else None,
    }


def intersection_over_union(a: Bool[Tensor, "h w"], b: Bool[Tensor, "h w"]) -> float:
    """Intersection over union of two silhouettes; 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def ssim(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"]) -> float | None:
    """Structural similarity with a Gaussian window; None if the image is smaller than the window."""
    if min(a.shape[:2]) < SSIM_WINDOW:
        return None
    value = structural_similarity_index_measure(
        _batched(a), _batched(b), sigma=SSIM_SIGMA, kernel_size=SSIM_WINDOW, data_range=1.0
    )
    assert isinstance(value, Tensor)
    return float(value)


def load_lpips(device: torch.device, *, download: bool = False) -> tuple[Perceptual | None, str | None]:
    """LPIPS (Zhang et al. 2018) of images in [0, 1], or None and the reason why it is unavailable.

    The weights are fetched only if `download` is set; otherwise they must be in torch's hub folder.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    weights = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS
    if not download and not weights.is_file():
        return None, "weights are not on this machine; --lpips downloads them (244 MB from download.pytorch.org)"
    try:
        metric = LearnedPerceptualImagePatchSimilarity(LPIPS_NET, normalize=True)
    except ModuleNotFoundError:
        return None, "torchvision is not installed; pip install torchvision"
    except OSError as error:
        return None, f"the weights of {LPIPS_NET} cannot be downloaded ({error})"
    metric = metric.to(device).requires_grad_(False)
    return lambda a, b: metric(a.to(device), b.to(device)), None


def mean_scores(views: list[dict[str, Any]]) -> dict[str, float | None]:
    """Mean of each score over the views, and their `average_error`."""
    scores = {key: mean([view["scores"][key] for view in views]) for key in views[0]["scores"]}
    return scores | {"average_error": average_error(scores["psnr"], scores["ssim"], scores["lpips"])}


def average_error(psnr: float | None, ssim: float | None, lpips: float | None) -> float | None:
    """Geometric mean of the squared error, sqrt(1 - SSIM) and LPIPS (mip-NeRF, section 4); None if one is missing."""
    if psnr is None or ssim is None or lpips is None:
        return None
    return (10 ** (-psnr / 10) * max(1 - ssim, 0.0) ** 0.5 * max(lpips, 0.0)) ** (1 / 3)


def mean(values: list[float | None]) -> float | None:
    """Mean of the values that are not None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _batched(image: Float[Tensor, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    return image.permute(2, 0, 1)[None]
