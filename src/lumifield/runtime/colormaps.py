"""Color maps of scalar images."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Anchors = tuple[tuple[float, float, float], ...]
# Equidistant colors that a map interpolates: cold to warm, and dark to bright with increasing luminance.
SPECTRUM: Anchors = (
    (0.19, 0.07, 0.23),
    (0.25, 0.33, 0.78),
    (0.24, 0.61, 0.99),
    (0.10, 0.84, 0.78),
    (0.38, 0.97, 0.41),
    (0.75, 0.95, 0.22),
    (0.97, 0.73, 0.22),
    (0.93, 0.37, 0.09),
    (0.48, 0.02, 0.01),
)
HEAT: Anchors = ((0.0, 0.0, 0.0), (0.32, 0.07, 0.43), (0.75, 0.19, 0.31), (0.97, 0.55, 0.12), (1.0, 0.98, 0.78))


def apply_colormap(
    values: Float[Tensor, "*s"], low: float, high: float, anchors: Anchors = SPECTRUM
) -> Float[Tensor, "*s 3"]:
    """Colors of values: `low` and below have the first anchor color, `high` and above the last, NaN the first."""
    table = torch.tensor(anchors, device=values.device, dtype=values.dtype)
    span = high - low if high > low else 1.0
    place = ((values - low) / span).nan_to_num(0.0).clamp(0, 1) * (len(anchors) - 1)
    left = place.floor().long().clamp(max=len(anchors) - 2)
    return torch.lerp(table[left], table[left + 1], (place - left)[..., None])


def sinebow(turns: Float[Tensor, "*s"]) -> Float[Tensor, "*s 3"]:
    """Cyclic colors with period 1: sin^2(pi (a - turns)) for a = 3/6, 5/6 and 7/6; NaN counts as 0."""
    phase = torch.tensor([3 / 6, 5 / 6, 7 / 6], device=turns.device, dtype=turns.dtype)
    return (math.pi * (phase - turns.nan_to_num(0.0, 0.0, 0.0)[..., None])).sin() ** 2


def quantile_range(values: Float[Tensor, " n"], low: float = 0.02, high: float = 0.98) -> tuple[float, float]:
    """Quantiles to use as the range of a color map; (0, 1) if there are no finite values."""
    finite = values[values.isfinite()].cpu().double().numpy()
    if finite.size == 0:
        return 0.0, 1.0
    first, last = np.quantile(finite, [low, high])
    return float(first), float(last)
