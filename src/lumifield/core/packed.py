"""Packed samples: rays of unequal length one after the other, marched through occupied space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lumifield import kernels
from lumifield.core.occupancy import Density, Occupancy
from lumifield.core.randomness import Draws
from lumifield.core.rays import Rays
from lumifield.core.space import Space


@dataclass(frozen=True)
class Packed:
    """Intervals [t0, t1] of rays; ray r owns the rows `offsets[r]:offsets[r + 1]`."""

    t0: Float[Tensor, "s"]
    t1: Float[Tensor, "s"]
    ray: Int[Tensor, "s"]
    offsets: Int[Tensor, "r_plus_1"]

    def __len__(self) -> int:
        return self.t0.shape[0]

    @property
    def middle(self) -> Float[Tensor, "s"]:
        """The t in the middle of each interval."""
        return 0.5 * (self.t0 + self.t1)

    def points(self, rays: Rays) -> Float[Tensor, "s 3"]:
        """Scene points in the middle of each interval."""
        return torch.addcmul(rays.origins[self.ray], rays.directions[self.ray], self.middle[:, None])

    def widths(self, rays: Rays) -> Float[Tensor, "s"]:
        """Lengths of the intervals [units of the rays' space]."""
        return (self.t1 - self.t0) * rays.directions.norm(dim=-1)[self.ray]

    def keep(self, kept: Bool[Tensor, "s"]) -> Packed:
        """Only the intervals marked."""
        before = torch.nn.functional.pad(kept.cumsum(0), (1, 0))
        row = kept.nonzero()[:, 0]
        return Packed(self.t0[row], self.t1[row], self.ray[row], before[self.offsets])


def march(rays: Rays, occupancy: Occupancy, space: Space, step: float, cone: float, draws: Draws | None) -> Packed:
    """The intervals of each ray in occupied cells; their start is jittered where `draws` are given."""
    jitter = torch.full_like(rays.near, 0.5) if draws is None else draws.uniform(len(rays), 1)[:, 0]
    return Packed(
        *kernels.march(
            rays.origins,
            rays.directions,
            rays.near,
            rays.far,
            jitter,
            occupancy.occupied,
            space.box,
            space.contracted,
            step,
            cone,
        )
    )


@torch.no_grad()
def visible(packed: Packed, rays: Rays, density: Density, *, least: float) -> Packed:
    """Only the intervals that contribute more than `least` to their pixel, by the density as it is now."""
    if len(packed) == 0:
        return packed
    thickness = density(packed.points(rays)) * packed.widths(rays)
    return packed.keep(kernels.packed_weights(thickness, packed.offsets) > least)
