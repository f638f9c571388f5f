"""Surface normals from the density around points or from the depth of neighboring pixels."""

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
"""Axes and diagonals of a cube: the sum of e (e . g) over them is parallel to g."""
THIN = 1e-4
"""Optical depth of a step below which densities are not distinguished."""


def density_normals(
    density: Callable[[Float[Tensor, "p 3"]], Float[Tensor, " p"]],
    points: Float[Tensor, "p 3"],
    step: Float[Tensor, " p"],
) -> Float[Tensor, "p 3"]:
    """Unit vectors along which log density decreases fastest; zero where it is constant.

    The gradient is `sum [log density(point + step e) - log density(point - step e)] e` over the axes and diagonals e of
    a cube. The logarithm weights the faint outer part of a surface as much as its opaque interior, where density is
    arbitrary.
    """
    gradient = torch.zeros_like(points)
    for direction in torch.tensor(DIRECTIONS, dtype=points.dtype, device=points.device):
        ahead, behind = (
            torch.log(density(torch.addcmul(points, sign * step[:, None], direction)) * step + THIN) for sign in (1, -1)
        )
        gradient += (behind - ahead)[:, None] * direction
    return normalize_or_zero(gradient)


def normals_from_points(
    points: Float[Tensor, "h w 3"], center: Float[Tensor, "3"], reach: int
) -> Float[Tensor, "h w 3"]:
    """Unit normals, facing the camera, of the surface through the 3D points of an image.

    They are orthogonal to the differences of the neighbors `reach` pixels away in rows and columns.
    """
    down, across = (normalize_or_zero(central_differences(points, axis, reach)) for axis in (0, 1))
    normal = normalize_or_zero(torch.linalg.cross(down, across))
    is_back_facing = (normal * (center - points)).sum(-1, keepdim=True) < 0
    return torch.where(is_back_facing, -normal, normal)


def central_differences(points: Float[Tensor, "h w 3"], axis: int, reach: int) -> Float[Tensor, "h w 3"]:
    """Difference of the neighbors `reach` pixels after and before each pixel; borders are replicated."""
    index = torch.arange(points.shape[axis], device=points.device)
    after, before = (index + reach).clamp(max=len(index) - 1), (index - reach).clamp(min=0)
    return points.index_select(axis, after) - points.index_select(axis, before)


def normalize_or_zero(vectors: Float[Tensor, "*v 3"]) -> Float[Tensor, "*v 3"]:
    """Unit vectors; vectors of zero or non-finite length become 0."""
    finite = vectors.nan_to_num(0.0, 0.0, 0.0)
    # The square of a length would overflow or vanish long before the length does.
    largest = finite.abs().amax(-1, keepdim=True)
    return torch.nn.functional.normalize(finite / torch.where(largest > 0, largest, 1.0), dim=-1)
