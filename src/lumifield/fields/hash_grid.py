"""Multiresolution hash grids (Müller et al. 2022): dense coarse levels, hashed fine levels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield import kernels

INITIAL_RANGE = 1e-4
MIN_OPTICAL_DEPTH = 1e-15
WEIGHT_SCALE = 0.1


def geometric_resolutions(coarsest: int, finest: int, levels: int) -> list[int]:
    """Resolutions from coarsest to finest in a geometric series (equations 2 and 3)."""
    if levels == 1:
        return [finest]
    ratio = (max(finest, coarsest) / coarsest) ** (1 / (levels - 1))
    return [round(coarsest * ratio**level) for level in range(levels)]


class FeatureGrid(nn.Module):
    """Concatenated trilinear features of grids of several resolutions over the unit cube.

    With `anti_alias` it takes Gaussians instead of points: a level of resolution n is weighted by
    erf(1 / sqrt(8 s^2 n^2)) for a standard deviation s (Zip-NeRF, equation 4). The weights are features as well.
    """

    def __init__(self, resolutions: list[int], features: int, log2_entries: int, *, anti_alias: bool = False) -> None:
        super().__init__()
        self.anti_alias = anti_alias
        self.resolutions = resolutions
        self.offsets = [0]
        for resolution in resolutions:
            self.offsets.append(self.offsets[-1] + min((resolution + 1) ** 3, 2**log2_entries))
        self.table = nn.Parameter(torch.empty(self.offsets[-1], features).uniform_(-INITIAL_RANGE, INITIAL_RANGE))

    @property
    def width(self) -> int:
        """Number of features per point."""
        return len(self.resolutions) * (self.table.shape[1] + self.anti_alias)

    def forward(
        self, points: Float[Tensor, "p 3"], width: Float[Tensor, " p"] | None = None
    ) -> Float[Tensor, "p features"]:
        """Features at points in [0, 1]^3, or of Gaussians of standard deviation `width` around them."""
        found = kernels.grid_encode(points, self.table, self.resolutions, self.offsets)
        if not self.anti_alias:
            return found
        assert width is not None
        resolutions = torch.tensor(self.resolutions, device=width.device, dtype=width.dtype)
        weights = torch.erf(1 / (8**0.5 * width.clamp_min(MIN_OPTICAL_DEPTH)[:, None] * resolutions))
        weighted = (found.view(-1, len(resolutions), self.table.shape[1]) * weights[..., None]).view(found.shape)
        return torch.cat([weighted, WEIGHT_SCALE * (2 * weights - 1)], -1)
