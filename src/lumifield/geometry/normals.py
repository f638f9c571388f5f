"""Normals: which way a surface faces, from the density about its points or from the depth of their neighbors."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

THIRD = 3**-0.5
DIRECTIONS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] + [
    [THIRD, y, z] for y, z in product((THIRD, -THIRD), repeat=2)
]
"""The axes and the diagonals of a cube: the sum of e (e . g) over them has the direction of g."""
THIN = 1e-4
"""Optical thickness of a step below which densities are no longer told apart."""


def outward(
    density: Callable[[Float[Tensor, "p 3"]], Float[Tensor, " p"]],
    points: Float[Tensor, "p 3"],
    step: Float[Tensor, " p"],
) -> Float[Tensor, "p 3"]:
    """Unit vectors along which the logarithm of a density falls fastest; zero where it is the same all round.

    The slope is `sum [log density(point + step e) - log density(point - step e)] e` over the axes and diagonals e of a
    cube. Logarithms make the faint end of a surface count as much as its opaque end, where densities are arbitrary.
    """
    slope = torch.zeros_like(points)
    for direction in torch.tensor(DIRECTIONS, dtype=points.dtype, device=points.device):
        ahead, behind = (
            torch.log(density(torch.addcmul(points, sign * step[:, None], direction)) * step + THIN) for sign in (1, -1)
        )
        slope += (behind - ahead)[:, None] * direction
    return unit_or_zero(slope)


def of_neighbors(points: Float[Tensor, "h w 3"], eye: Float[Tensor, "3"], reach: int) -> Float[Tensor, "h w 3"]:
    """Unit normals, towards the eye, of the surface through the points of an image's pixels.

    They are at right angles to the lines between the neighbors at `reach` pixels on both sides, in rows and columns.
    """
    down, across = (unit_or_zero(between_neighbors(points, axis, reach)) for axis in (0, 1))
    normal = unit_or_zero(torch.linalg.cross(down, across))
    away = (normal * (eye - points)).sum(-1, keepdim=True) < 0
    return torch.where(away, -normal, normal)


def between_neighbors(points: Float[Tensor, "h w 3"], axis: int, reach: int) -> Float[Tensor, "h w 3"]:
    """From the neighbor before each pixel to the one after it; beyond the border stands the last pixel."""
    place = torch.arange(points.shape[axis], device=points.device)
    after, before = (place + reach).clamp(max=len(place) - 1), (place - reach).clamp(min=0)
    return points.index_select(axis, after) - points.index_select(axis, before)


def unit_or_zero(vectors: Float[Tensor, "*v 3"]) -> Float[Tensor, "*v 3"]:
    """Vectors at length 1; those without a direction (zero, not finite) are 0."""
    finite = vectors.nan_to_num(0.0, 0.0, 0.0)
    # The square of a length would overflow or vanish long before the length does.
    largest = finite.abs().amax(-1, keepdim=True)
    return torch.nn.functional.normalize(finite / torch.where(largest > 0, largest, 1.0), dim=-1)
