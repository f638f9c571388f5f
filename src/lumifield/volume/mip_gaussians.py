"""Cones: a pixel sees along its ray not points but volumes, each taken as a Gaussian (mip-NeRF, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.geometry.rays import Rays

PIXEL_RADIUS = 3**-0.5
"""Radius of the disc that varies like a square pixel of side 1: 2 / sqrt(12) (mip-NeRF, section 3.1)."""
LEAST = 1e-30


@dataclass(frozen=True)
class Gaussians:
    """Means and variances along the axes of space, one Gaussian for each interval of each ray."""

    mean: Float[Tensor, "*s 3"]
    variance: Float[Tensor, "*s 3"]

    @property
    def joined(self) -> Float[Tensor, "*s 6"]:
        """Means and variances beside each other, as `Integrated` takes them."""
        return torch.cat([self.mean, self.variance], -1)


def cone(
    t0: Float[Tensor, "*s"], t1: Float[Tensor, "*s"], radius: Float[Tensor, "*#s"]
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """Mean t, its variance, and the variance across, of a cone between `t0` and `t1` (equation 7).

    `radius` is the cone's at t = 1. The form of the paper's equation 7 keeps its precision for thin intervals.
    """
    middle, half = 0.5 * (t0 + t1), 0.5 * (t1 - t0)
    middle2, half2 = middle**2, half**2
    share = half2 / (3 * middle2 + half2).clamp_min(LEAST)
    mean = middle * (1 + 2 * share)
    along = half2 / 3 - 4 / 15 * share**2 * (12 * middle2 - half2)
    across = radius**2 * (middle2 / 4 + (5 / 12 - 4 / 15 * share) * half2)
    return mean, along, across


def cylinder(
    t0: Float[Tensor, "*s"], t1: Float[Tensor, "*s"], radius: Float[Tensor, "*#s"]
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """Mean t, its variance, and the variance across, of a cylinder between `t0` and `t1` (for NDC rays)."""
    return 0.5 * (t0 + t1), (t1 - t0) ** 2 / 12, (radius**2 / 4).expand_as(t0)


def gaussians(rays: Rays, t: Float[Tensor, "r n_plus_1"], *, cylinders: bool) -> Gaussians:
    """The Gaussians of the intervals between the edges `t`, without the mixed terms of their covariance (equation 16).

    A pixel's cone has its radius where t is 1; as a cylinder it has that radius everywhere.
    """
    shape = cylinder if cylinders else cone
    mean, along, across = shape(t[:, :-1], t[:, 1:], PIXEL_RADIUS * rays.radius[:, None])
    direction = rays.directions[:, None]
    squared = direction**2
    sideways = 1 - squared / squared.sum(-1, keepdim=True).clamp_min(LEAST)
    return Gaussians(
        torch.addcmul(rays.origins[:, None], direction, mean[..., None]),
        along[..., None] * squared + across[..., None] * sideways,
    )


@dataclass(frozen=True)
class Integrated:
    """The integrated positional encoding of octaves `first` to `last` - 1 (equation 14): `6 (last - first)` features.

    The expected sines and cosines of 2^k x over each Gaussian: what is finer than the Gaussian fades.
    """

    first: int
    last: int

    @property
    def width(self) -> int:
        """The number of features."""
        return 6 * (self.last - self.first)

    def __call__(self, joined: Float[Tensor, "*s 6"]) -> Float[Tensor, "*s features"]:
        """Features of Gaussians given as `Gaussians.joined`: all sines, octave by octave, then all cosines."""
        scales = 2.0 ** torch.arange(self.first, self.last, device=joined.device, dtype=joined.dtype)[:, None]
        mean, variance = joined[..., None, :3], joined[..., None, 3:]
        faded = torch.exp(-0.5 * (scales**2 * variance)).flatten(-2)
        phase = (scales * mean).flatten(-2)
        return torch.cat([faded * phase.sin(), faded * phase.cos()], -1)
