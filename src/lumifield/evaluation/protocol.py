"""The evaluation protocol in words: every choice that affects the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.evaluation import appearance_fit
from lumifield.evaluation.metrics import LPIPS_NET, SSIM_SIGMA, SSIM_WINDOW
from lumifield.runtime import image_metrics

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

BACKGROUNDS = {
    "white": "white",
    "black": "black",
    "random": "white (random colors in training)",
    "none": "images are opaque; black behind the scene",
}


@dataclass(frozen=True)
class Scoring:
    """Appearance of the rendered views (see `appearance_fit`), and whether only their right halves are scored."""

    appearance: str
    right_half: bool

    @staticmethod
    def of(run: LoadedRun, appearance: str | None = None, *, right_half: bool = False) -> Scoring:
        """The requested or the default scoring; the half that an appearance was fitted to is never scored."""
        appearance = appearance_fit.default_appearance(run.method) if appearance is None else appearance
        return Scoring(appearance, right_half or appearance in appearance_fit.FITTED_APPEARANCES)

    def first_column(self, width: int) -> int:
        """First column that is scored."""
        return width // 2 if self.right_half else 0


def describe_split_rule(run: LoadedRun, split: str) -> str:
    """How the images of a split were selected; "unknown" without the data of the run."""
    try:
        return run.capture.describe_split(split)
    except DataError:
        return "unknown"


def describe_protocol(
    run: LoadedRun, split: str, scene: Scene, sizes: list[tuple[int, int]], scoring: Scoring
) -> dict[str, str]:
    """Every choice that affects the scores, in words; `scene` is the split or a part of it."""
    limit = f"{image_metrics.PSNR_LIMIT:.0f} dB"
    return {
        "background": BACKGROUNDS[scene.background],
        "resolution": describe_resolution(run, sizes),
        "pixel_centers": "at half-integers",
        "split_rule": describe_split_rule(run, split),
        "clipping": "to [0, 1] before rounding",
        "rounding_8bit": "rendering and ground truth are rounded to 256 levels before scoring",
        "psnr": f"mean over images of the PSNR of each image, sRGB values; {limit} for equal images",
        "mask": describe_masks(scene),
        "columns": "the right half, from column W // 2 on" if scoring.right_half else "all",
        "ssim": f"torchmetrics, Gaussian window {SSIM_WINDOW}, sigma {SSIM_SIGMA}, range 1, mirrored borders",
        "lpips_net": LPIPS_NET,
        "embedding_fit": appearance_fit.describe_appearance(run.method, scoring.appearance),
        "color_pass": "the finest",
    }


def describe_masks(scene: Scene) -> str:
    """Which pixels are scored, in words."""
    if not has_masks(scene):
        return "none, all pixels are scored"
    if not scene.has_object_mask:
        return "pixels outside the masks are not scored"
    return "pixels outside the silhouettes (alpha below one half) are not scored; they are black for SSIM and LPIPS"


def has_masks(scene: Scene) -> bool:
    """Whether only some pixels are scored."""
    return scene.has_object_mask or (scene.images is not None and scene.images.mask is not None)


def describe_resolution(run: LoadedRun, sizes: list[tuple[int, int]]) -> str:
    """Image sizes, and how they relate to the files and to training, in words."""
    smallest, largest = (f"{width}x{height}" for width, height in (min(sizes), max(sizes)))
    now, trained = downscale_factors(run)
    notes = [f"1/{now} of the files"] if now > 1 else []
    notes += [f"trained at 1/{trained}"] if now != trained else []
    shown = smallest if smallest == largest else f"{smallest} to {largest}"
    return f"{shown} ({', '.join(notes)})" if notes else shown


def downscale_factors(run: LoadedRun) -> tuple[int, int]:
    """Downscale factor of the images now and in training."""
    trained = 1 if run.config.source is None else run.config.source.downscale
    return trained if run.source is None else run.source.downscale, trained
