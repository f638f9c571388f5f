"""Packed samples: variable numbers of samples per ray in flat arrays, marched through occupied cells."""

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
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays
from lumifield.runtime.rng import Rng
from lumifield.volume.compositing import MIN_OPACITY, Rendered
from lumifield.volume.occupancy import OccupancyGrid

SAMPLE_BLOCKS = (0, 16, 64, 256, 1 << 30)


@dataclass(frozen=True)
class PackedSamples:
    """Intervals [t0, t1] of rays; ray r owns rows `offsets[r]:offsets[r + 1]`."""

    t0: Float[Tensor, " s"]
    t1: Float[Tensor, " s"]
    ray: Int[Tensor, " s"]
    offsets: Int[Tensor, " r_plus_1"]

    def __len__(self) -> int:
        return self.t0.shape[0]

    @property
    def midpoints(self) -> Float[Tensor, " s"]:
        """t at the middle of each interval."""
        return 0.5 * (self.t0 + self.t1)

    def points(self, rays: Rays) -> Float[Tensor, "s 3"]:
        """Scene points at the middle of each interval."""
        return torch.addcmul(rays.origins[self.ray], rays.directions[self.ray], self.midpoints[:, None])

    def lengths(self, rays: Rays) -> Float[Tensor, " s"]:
        """Lengths of the intervals [scene units, or NDC]."""
        return (self.t1 - self.t0) * rays.directions.norm(dim=-1)[self.ray]

    def pixel_widths(self, rays: Rays, *, cylinders: bool) -> Float[Tensor, " s"]:
        """Width of the pixel at the middle of each interval [scene units, or NDC].

        A pixel is a cone with width `rays.radius` at t = 1; as a cylinder (NDC) it has that width everywhere.
        """
        radius = rays.radius[self.ray]
        return radius if cylinders else radius * self.midpoints

    def weights(self, density: Float[Tensor, " s"], rays: Rays) -> Float[Tensor, " s"]:
        """Rendering weights of the intervals (NeRF, equation 3)."""
        return kernels.packed_weights(density * self.lengths(rays), self.offsets)

    def composite(
        self,
        weights: Float[Tensor, " s"],
        rgb: Float[Tensor, "s 3"],
        far: Float[Tensor, " r"],
        background: Float[Tensor, "*#r 3"],
    ) -> Rendered:
        """Color, median depth and opacity of each ray."""
        values = torch.cat([rgb, torch.ones_like(rgb[:, :1])], -1)
        sums = kernels.segment_sum(weights[:, None] * values, self.offsets)
        opacity = sums[:, 3]
        colors = sums[:, :3] + (1 - opacity[:, None]) * background
        return Rendered(colors, self.median(weights, far), opacity, samples=len(self))

    def median(self, weights: Float[Tensor, " s"], far: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
        """Median t of the weights of each ray, uniform within intervals; `far` where the weights are zero.

        Unlike the mean it is not moved by low-density fog in front of a surface.
        """
        if len(self) == 0:
            return far
        cumulative = weights.detach().double().cumsum(0)
        first, last = F.pad(cumulative, (1, 0))[self.offsets].unfold(0, 2, 1).unbind(-1)
        half = 0.5 * (first + last)
        row = torch.searchsorted(cumulative, half).clamp_max(len(self) - 1)
        share = 1 - (cumulative[row] - half) / weights[row].double().clamp_min(MIN_OPACITY)
        t = torch.lerp(self.t0[row], self.t1[row], share.clamp(0, 1).to(far.dtype))
        return torch.where(last - first > MIN_OPACITY, t, far)

    def select(self, rows: Int[Tensor, " k"]) -> PackedSamples:
        """Only the intervals with these increasing indices."""
        return PackedSamples(self.t0[rows], self.t1[rows], self.ray[rows], torch.searchsorted(rows, self.offsets))


def march_rays(
    rays: Rays, occupancy: OccupancyGrid, space: SceneBox, step: float, cone: float, rng: Rng | None
) -> PackedSamples:
    """Intervals of each ray in occupied cells; their start is jittered if `rng` is given."""
    jitter = torch.full_like(rays.near, 0.5) if rng is None else rng.uniform(len(rays), 1)[:, 0]
    return PackedSamples(
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
def keep_visible(
    packed: PackedSamples, rays: Rays, density: Callable[[PackedSamples], Float[Tensor, " s"]], *, min_weight: float
) -> PackedSamples:
    """Only the intervals whose weight exceeds `min_weight` under the current density.

    Evaluates the first intervals of every ray, then further ones of the rays that are not yet opaque.
    """
    position = torch.arange(len(packed), device=packed.ray.device) - packed.offsets[:-1][packed.ray]
    visible = torch.zeros_like(position, dtype=torch.bool)
    before = torch.zeros_like(rays.near)
    for first, last in itertools.pairwise(SAMPLE_BLOCKS):
        open_rays = before < -math.log(min_weight)
        # Synchronizes with the device: the number of samples to evaluate sizes the next arrays.
        rows = ((position >= first) & (position < last) & open_rays[packed.ray]).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        part = packed.select(rows)
        optical_depth = density(part) * part.lengths(rays)
        weights = kernels.packed_weights(optical_depth, part.offsets) * torch.exp(-before)[part.ray]
        visible[rows] = weights > min_weight
        before += kernels.segment_sum(optical_depth[:, None], part.offsets)[:, 0]
    return packed.select(visible.nonzero()[:, 0])  # synchronizes, as above
