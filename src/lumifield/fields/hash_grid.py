"""Multiresolution hash grids (Müller et al. 2022): dense coarse levels, hashed fine levels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield import kernels

INITIAL_RANGE = 1e-4
MIN_OPTICAL_DEPTH = 1e-15
SHARE_SCALE = 0.1


def geometric_resolutions(coarsest: int, finest: int, levels: int) -> list[int]:
    """Resolutions from coarsest to finest in a geometric series (equations 2 and 3)."""
    if levels == 1:
        return [finest]
    ratio = (max(finest, coarsest) / coarsest) ** (1 / (levels - 1))
    return [round(coarsest * ratio**level) for level in range(levels)]


class FeatureGrid(nn.Module):
    """Trilinear features of several grids at points of the unit cube, one after the other.

    Where it is `smeared` it is asked for Gaussians instead of points. A level of n cells a side counts by
    erf(1 / sqrt(8 s^2 n^2)) for a standard deviation s (Zip-NeRF, equation 4); how much each counts are features, too.
    """

    def __init__(self, resolutions: list[int], features: int, log2_entries: int, *, smeared: bool = False) -> None:
        super().__init__()
        self.smeared = smeared
        self.resolutions = resolutions
        self.offsets = [0]
        for resolution in resolutions:
            self.offsets.append(self.offsets[-1] + min((resolution + 1) ** 3, 2**log2_entries))
        self.table = nn.Parameter(torch.empty(self.offsets[-1], features).uniform_(-INITIAL_RANGE, INITIAL_RANGE))

    @property
    def width(self) -> int:
        """Number of features per point."""
        return len(self.resolutions) * (self.table.shape[1] + self.smeared)

    def forward(
        self, points: Float[Tensor, "p 3"], width: Float[Tensor, " p"] | None = None
    ) -> Float[Tensor, "p features"]:
        """Features at points in [0, 1]^3, or of Gaussians of standard deviation `width` about them."""
        found = kernels.grid_encode(points, self.table, self.resolutions, self.offsets)
        if not self.smeared:
            return found
        assert width is not None
        cells = torch.tensor(self.resolutions, device=width.device, dtype=width.dtype)
        shares = torch.erf(1 / (8**0.5 * width.clamp_min(MIN_OPTICAL_DEPTH)[:, None] * cells))
        faded = (found.view(-1, len(cells), self.table.shape[1]) * shares[..., None]).view(found.shape)
        return torch.cat([faded, SHARE_SCALE * (2 * shares - 1)], -1)
