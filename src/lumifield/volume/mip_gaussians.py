"""Gaussian approximation of conical frustums and integrated positional encoding (mip-NeRF, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.geometry.rays import Rays

PIXEL_RADIUS = 3**-0.5
"""Radius of the disc with the variance of a square pixel of width 1: 2 / sqrt(12) (mip-NeRF, section 3.1)."""
EPS = 1e-30


@dataclass(frozen=True)
class Gaussians:
    """Axis-aligned Gaussians, one per interval of each ray."""

    mean: Float[Tensor, "*s 3"]
    variance: Float[Tensor, "*s 3"]

    @property
    def stacked(self) -> Float[Tensor, "*s 6"]:
        """Means and variances concatenated, as `IntegratedEncoding` takes them."""
        return torch.cat([self.mean, self.variance], -1)


def conical_frustum_moments(
    t0: Float[Tensor, "*s"], t1: Float[Tensor, "*s"], radius: Float[Tensor, "*#s"]
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """Mean t, variance along and variance across the ray of a conical frustum between `t0` and `t1` (equation 7).

    `radius` is that of the cone at t = 1. This form of equation 7 stays precise for thin intervals.
    """
    middle, half = 0.5 * (t0 + t1), 0.5 * (t1 - t0)
    middle2, half2 = middle**2, half**2
    share = half2 / (3 * middle2 + half2).clamp_min(EPS)
    mean = middle * (1 + 2 * share)
    along = half2 / 3 - 4 / 15 * share**2 * (12 * middle2 - half2)
    across = radius**2 * (middle2 / 4 + (5 / 12 - 4 / 15 * share) * half2)
    return mean, along, across


def cylinder_moments(
    t0: Float[Tensor, "*s"], t1: Float[Tensor, "*s"], radius: Float[Tensor, "*#s"]
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """Mean t, variance along and variance across the ray of a cylinder between `t0` and `t1` (for NDC rays)."""
    return 0.5 * (t0 + t1), (t1 - t0) ** 2 / 12, (radius**2 / 4).expand_as(t0)


def interval_gaussians(rays: Rays, t: Float[Tensor, "r n_plus_1"], *, cylinders: bool) -> Gaussians:
    """Gaussians of the intervals between the edges `t`, with diagonal covariance (equation 16).

    A cone has the radius of its pixel at t = 1; a cylinder has it everywhere.
    """
    shape = cylinder_moments if cylinders else conical_frustum_moments
    mean, along, across = shape(t[:, :-1], t[:, 1:], PIXEL_RADIUS * rays.radius[:, None])
    direction = rays.directions[:, None]
    squared = direction**2
    sideways = 1 - squared / squared.sum(-1, keepdim=True).clamp_min(EPS)
    return Gaussians(
        torch.addcmul(rays.origins[:, None], direction, mean[..., None]),
        along[..., None] * squared + across[..., None] * sideways,
    )


@dataclass(frozen=True)
class IntegratedEncoding:
    """Integrated positional encoding of octaves `first` to `last` - 1 (equation 14): `6 (last - first)` features.

    Expected sines and cosines of 2^k x over each Gaussian; frequencies finer than the Gaussian vanish.
    """

    first: int
    last: int

    @property
    def width(self) -> int:
        """Number of features."""
        return 6 * (self.last - self.first)

    def __call__(self, stacked: Float[Tensor, "*s 6"]) -> Float[Tensor, "*s features"]:
        """Features of `Gaussians.stacked`: all sines by octave, then all cosines."""
        scales = 2.0 ** torch.arange(self.first, self.last, device=stacked.device, dtype=stacked.dtype)[:, None]
        mean, variance = stacked[..., None, :3], stacked[..., None, 3:]
        faded = torch.exp(-0.5 * (scales**2 * variance)).flatten(-2)
        phase = (scales * mean).flatten(-2)
        return torch.cat([faded * phase.sin(), faded * phase.cos()], -1)
