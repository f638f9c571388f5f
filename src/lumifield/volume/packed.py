"""Packed samples: rays of unequal length one after the other, marched through occupied space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lumifield import kernels
from lumifield.geometry.contraction import Space
from lumifield.geometry.rays import Rays
from lumifield.runtime.rng import Rng
from lumifield.volume.compositing import EMPTY
from lumifield.volume.occupancy import Occupancy

PLACES = (0, 16, 64, 256, 1 << 30)


@dataclass(frozen=True)
class Packed:
    """Intervals [t0, t1] of rays; ray r owns the rows `offsets[r]:offsets[r + 1]`."""

    t0: Float[Tensor, " s"]
    t1: Float[Tensor, " s"]
    ray: Int[Tensor, " s"]
    offsets: Int[Tensor, " r_plus_1"]

    def __len__(self) -> int:
        return self.t0.shape[0]

    @property
    def middle(self) -> Float[Tensor, " s"]:
        """The t in the middle of each interval."""
        return 0.5 * (self.t0 + self.t1)

    def points(self, rays: Rays) -> Float[Tensor, "s 3"]:
        """Scene points in the middle of each interval."""
        return torch.addcmul(rays.origins[self.ray], rays.directions[self.ray], self.middle[:, None])

    def widths(self, rays: Rays) -> Float[Tensor, " s"]:
        """Lengths of the intervals [units of the rays' space]."""
        return (self.t1 - self.t0) * rays.directions.norm(dim=-1)[self.ray]

    def pixel_widths(self, rays: Rays, *, cylinders: bool) -> Float[Tensor, " s"]:
        """Width of the pixel in the middle of each interval [units of the rays' space].

        A pixel sees a cone, which is as wide as `rays.radius` where t is 1; as a cylinder (NDC) it is so everywhere.
        """
        radius = rays.radius[self.ray]
        return radius if cylinders else radius * self.middle

    def median(self, weights: Float[Tensor, " s"], far: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
        """The t that half of each ray's weight lies before, spread evenly within intervals; `far` where it has none.

        Fog that is thinner than what it hides does not move it, as it moves the mean.
        """
        if len(self) == 0:
            return far
        passed = weights.detach().double().cumsum(0)
        first, last = F.pad(passed, (1, 0))[self.offsets].unfold(0, 2, 1).unbind(-1)
        half = 0.5 * (first + last)
        row = torch.searchsorted(passed, half).clamp_max(len(self) - 1)
        share = 1 - (passed[row] - half) / weights[row].double().clamp_min(EMPTY)
        t = torch.lerp(self.t0[row], self.t1[row], share.clamp(0, 1).to(far.dtype))
        return torch.where(last - first > EMPTY, t, far)

    def rows(self, rows: Int[Tensor, " k"]) -> Packed:
        """Only the intervals with these (rising) indices."""
        return Packed(self.t0[rows], self.t1[rows], self.ray[rows], torch.searchsorted(rows, self.offsets))


def march(rays: Rays, occupancy: Occupancy, space: Space, step: float, cone: float, rng: Rng | None) -> Packed:
    """The intervals of each ray in occupied cells; their start is jittered where `rng` are given."""
    jitter = torch.full_like(rays.near, 0.5) if rng is None else rng.uniform(len(rays), 1)[:, 0]
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
def visible(packed: Packed, rays: Rays, density: Callable[[Packed], Float[Tensor, " s"]], *, least: float) -> Packed:
    """Only the intervals that contribute more than `least` to their pixel, by the density as it is now.

    Looks at the first intervals of every ray, then further along the rays that are not yet opaque.
    """
    place = torch.arange(len(packed), device=packed.ray.device) - packed.offsets[:-1][packed.ray]
    kept = torch.zeros_like(place, dtype=torch.bool)
    before = torch.zeros_like(rays.near)
    for first, last in itertools.pairwise(PLACES):
        open_rays = before < -math.log(least)
        rows = ((place >= first) & (place < last) & open_rays[packed.ray]).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        part = packed.rows(rows)
        thickness = density(part) * part.widths(rays)
        weights = kernels.packed_weights(thickness, part.offsets) * torch.exp(-before)[part.ray]
        kept[rows] = weights > least
        before += kernels.segment_sum(thickness[:, None], part.offsets)[:, 0]
    return packed.rows(kept.nonzero()[:, 0])
