"""Error of one image with respect to another."""

from __future__ import annotations

import math

from jaxtyping import Bool, Float
from torch import Tensor

PSNR_LIMIT = 100.0


def mean_squared_error(
    a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """Mean squared error over all channels of the pixels in the mask; NaN if the mask is empty."""
    error = (a.double() - b.double()) ** 2
    return float(error.mean() if mask is None else error[mask].mean())


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio, -10 log10(mse) [dB] for a peak of 1, at most `PSNR_LIMIT` (equal images)."""
    return PSNR_LIMIT if mse <= 0 else min(-10 * math.log10(mse), PSNR_LIMIT)
