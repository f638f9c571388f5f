"""Distances on a regular grid over the unit ball, for fast approximate queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, sqrt
from typing import no_type_check

import torch
from jaxtyping import Bool, Float
from numba import prange
from torch import Tensor
from torch.nn import functional as F

from lumifield.runtime.jit import inner, loop

Distance = Callable[[Float[Tensor, "p 3"]], Float[Tensor, " p"]]


@dataclass(frozen=True)
class DistanceGrid:
    """Trilinear interpolation of distances on a grid from -1 to 1 on each axis, x last."""

    values: Float[Tensor, "d d d"]

    def __call__(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Distances at points; grid values outside the cube are zero."""
        return F.grid_sample(self.values[None, None], points.view(1, 1, 1, -1, 3), align_corners=True).view(-1)

    def __add__(self, length: float) -> DistanceGrid:
        """Distances to a surface offset inwards by this length."""
        return DistanceGrid(self.values + length)

    @property
    def cell(self) -> float:
        """Cell size."""
        return 2 / (len(self.values) - 1)

    def sphere_trace(
        self,
        rays: tuple[Float[Tensor, "r 3"], Float[Tensor, "r 3"], Float[Tensor, " r"], Float[Tensor, " r"]],
        steps: int,
        threshold: float,
    ) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Bool[Tensor, " r"]]:
        """`sphere_tracing.sphere_trace_forward` for rays (origins, directions, near, far), in one compiled loop."""
        near = rays[2]
        outside, front, is_hit = near.clone(), near.clone(), torch.zeros_like(near, dtype=torch.bool)
        given = (tensor.detach().contiguous().numpy() for tensor in (self.values, *rays))
        sphere_trace_forward(*given, steps, threshold, outside.numpy(), front.numpy(), is_hit.numpy())
        return outside, front, is_hit


@torch.no_grad()
def sample_on_grid(distance: Distance, side: int, device: torch.device) -> Float[Tensor, "{side} {side} {side}"]:
    """Distances on a grid over the cube of the unit ball, x the last axis; 1 away from the ball."""
    line = torch.linspace(-1, 1, side, device=device)
    points = torch.stack(torch.meshgrid(line, line, line, indexing="ij")[::-1], -1).view(-1, 3)
    rows = (points.norm(dim=-1) <= 1 + 4 / side).nonzero()[:, 0]
    found = torch.ones_like(points[:, 0]).index_put((rows,), distance(points[rows]))
    return found.view(side, side, side)


@torch.no_grad()
def refine_grid(distance: Distance, values: Float[Tensor, "d d d"], times: int) -> Float[Tensor, "e e e"]:
    """Refinement of `sample_on_grid` to cells `times` smaller, clipped at the ball.

    Distances are evaluated within a coarse cell of the surface and interpolated elsewhere.
    """
    cells = len(values) - 1
    side = cells * times + 1
    fine = F.interpolate(values[None, None], size=(side, side, side), mode="trilinear", align_corners=True).view(-1)
    line = torch.linspace(-1, 1, side, device=values.device)
    rows = (fine.abs() < 2 * sqrt(3) / cells).nonzero()[:, 0]
    places = torch.unravel_index(rows, (side, side, side))
    fine[rows] = distance(torch.stack([line[place] for place in places[::-1]], -1))
    square = line**2
    outside = (square[:, None, None] + square[:, None] + square).sqrt() - 1
    return torch.maximum(fine.view(side, side, side), outside)


@inner
@no_type_check
def interpolate(values, x, y, z):
    """Trilinear interpolation on a grid from -1 to 1; outside points are zero."""
    side = values.shape[0]
    u, v, w = 0.5 * (x + 1) * (side - 1), 0.5 * (y + 1) * (side - 1), 0.5 * (z + 1) * (side - 1)
    i, j, k = floor(u), floor(v), floor(w)
    total = 0.0
    for corner in range(8):
        a, b, c = i + (corner & 1), j + (corner >> 1 & 1), k + (corner >> 2)
        if 0 <= a < side and 0 <= b < side and 0 <= c < side:
            total += values[c, b, a] * (1 - abs(u - a)) * (1 - abs(v - b)) * (1 - abs(w - c))
    return total


@loop
@no_type_check
def sphere_trace_forward(values, origins, directions, near, far, steps, threshold, outside, front, is_hit):
    """Sphere tracing of each ray through a grid; see `sphere_tracing.sphere_trace_forward`."""
    for ray in prange(near.shape[0]):
        t = near[ray]
        for _ in range(steps):
            if not t <= far[ray]:  # beyond far, or NaN
                break
            x = origins[ray, 0] + t * directions[ray, 0]
            y = origins[ray, 1] + t * directions[ray, 1]
            z = origins[ray, 2] + t * directions[ray, 2]
            gap = interpolate(values, x, y, z)
            if gap <= threshold:
                is_hit[ray] = True
                break
            outside[ray] = t
            t += gap
        front[ray] = t
