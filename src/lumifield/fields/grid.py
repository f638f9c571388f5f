"""Multiresolution feature grids (Müller et al. 2022): dense coarse levels, hashed fine ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield import kernels

INITIAL_RANGE = 1e-4


def geometric(coarsest: int, finest: int, levels: int) -> list[int]:
    """Resolutions from coarsest to finest in equal ratios (equations 2 and 3)."""
    if levels == 1:
        return [finest]
    ratio = (max(finest, coarsest) / coarsest) ** (1 / (levels - 1))
    return [round(coarsest * ratio**level) for level in range(levels)]


class FeatureGrid(nn.Module):
    """Trilinear features of several grids at points of the unit cube, one after the other."""

    def __init__(self, resolutions: list[int], features: int, log2_entries: int) -> None:
        super().__init__()
        self.resolutions = resolutions
        self.offsets = [0]
        for resolution in resolutions:
            self.offsets.append(self.offsets[-1] + min((resolution + 1) ** 3, 2**log2_entries))
        self.table = nn.Parameter(torch.empty(self.offsets[-1], features).uniform_(-INITIAL_RANGE, INITIAL_RANGE))

    @property
    def width(self) -> int:
        """Number of features a point."""
        return len(self.resolutions) * self.table.shape[1]

    def forward(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p features"]:
        """Features at points in [0, 1]^3."""
        return kernels.grid_encode(points, self.table, self.resolutions, self.offsets)
