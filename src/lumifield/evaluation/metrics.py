"""Scores of rendered images: PSNR, SSIM, LPIPS, silhouette overlap, and their means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """Scores of one image; None if a score is undefined for it."""

    psnr: float | None
    psnr_masked_image: float | None
    ssim: float | None
    lpips: float | None
    mask_iou: float | None


@dataclass(frozen=True, kw_only=True)
class ViewScore(ImageScores):
    """Scores of one rendered view, its name and its rendering time."""

    name: str
    seconds: float

    def to_row(self) -> dict[str, float | str | None]:
        """Name and rendering time, then the scores."""
        return {"name": self.name, "seconds": self.seconds} | asdict(self)


@dataclass(frozen=True, kw_only=True)
class MeanScores(ImageScores):
    """Mean of each score over the images that have it, and the `average_error` of the means."""

    average_error: float | None


@dataclass(frozen=True)
class TaskScore:
    """PSNR of the held-out views of a task before and after adaptation [dB]."""

    before: float
    psnr: float


@dataclass(frozen=True)
class InitializationScores:
    """Mean PSNR of an initialization before and after adaptation and over its steps [dB], and that of each task."""

    before: float
    psnr: float
    curve: dict[int, float]
    tasks: dict[str, TaskScore]


@dataclass(frozen=True, kw_only=True)
class Metrics(MeanScores):
    """Scores of a split, in the order of metrics.json in `folder`; `right_half` is whether only right halves count."""

    lpips_reason: str | None
    n_images: int
    n_train_images: int | None
    train_seconds: float
    train_steps: int
    train_rays_per_second: float | None
    render_seconds: float
    render_rays_per_second: float | None
    method: str
    data: str | None
    split: str
    per_scale: dict[str, MeanScores]
    per_image: tuple[ViewScore, ...]
    protocol: dict[str, str]
    folder: Path
    right_half: bool = False
    chamfer: float | None = None
    initializations: dict[str, InitializationScores] | None = None

    @property
    def report(self) -> Path:
        """The HTML report with images and error maps."""
        return self.folder / "report.html"

    @property
    def lines(self) -> list[str]:
        """Scores as a few lines for the terminal."""
        units = {"psnr": "dB", "ssim": "", "lpips": ""}
        scores = {name: getattr(self, name) for name in units}
        shown = [f"{name} {value:.4g} {units[name]}".strip() for name, value in scores.items() if value is not None]
        views = f"{self.n_images} {'right halves' if self.right_half else 'views'}"
        lines = [f"{self.split}, {views}: {', '.join(shown)}"]
        if self.chamfer is not None:
            lines.append(f"surface: chamfer distance {self.chamfer:.2%} of the diagonal of the ground truth mesh")
        if self.lpips is None:
            lines.append(f"no lpips: {self.lpips_reason}")
        for name, row in (self.initializations or {}).items():
            lines.append(f"{name} initialization: {row.before:.2f} dB, adapted {row.psnr:.2f} dB")
        return lines

    def to_json(self) -> dict[str, object]:
        """Content of metrics.json."""
        omitted = {"folder", "right_half", "initializations" if self.initializations is None else "chamfer"}
        content: dict[str, object] = {name: value for name, value in asdict(self).items() if name not in omitted}
        return content | {"per_image": [view.to_row() for view in self.per_image]}


def score_image(
    rendered: UInt8[Tensor, "h w 3"],
    ground_truth: UInt8[Tensor, "h w 3"],
    valid: Bool[Tensor, "h w"] | None,
    perceptual: Perceptual | None,
    mask_iou: float | None = None,
) -> ImageScores:
    """Scores of one 8-bit image; for SSIM and LPIPS, pixels that are not `valid` are black in both images."""
    a, b = rendered.float() / 255, ground_truth.float() / 255
    has_pixels = valid is None or bool(valid.any())
    psnr = image_metrics.psnr(image_metrics.mean_squared_error(a, b, valid)) if has_pixels else None
    masked = None
    if valid is not None:
        a, b = a * valid[..., None], b * valid[..., None]
        masked = image_metrics.psnr(image_metrics.mean_squared_error(a, b))
    is_large = min(a.shape[:2]) >= LPIPS_MIN_SIZE
    lpips = float(perceptual(_batched(a), _batched(b))) if perceptual is not None and is_large else None
    return ImageScores(psnr=psnr, psnr_masked_image=masked, ssim=ssim(a, b), lpips=lpips, mask_iou=mask_iou)


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


def mean_scores(views: Sequence[ImageScores]) -> MeanScores:
    """Mean of each score over the views, and their `average_error`."""
    names = [field.name for field in fields(ImageScores)]
    scores = {name: mean([getattr(view, name) for view in views]) for name in names}
    return MeanScores(**scores, average_error=average_error(scores["psnr"], scores["ssim"], scores["lpips"]))


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
