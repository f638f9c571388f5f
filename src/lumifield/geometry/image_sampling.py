"""Sampling images at projected scene points."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional as F

FRONT = 1e-6
"""Minimum depth of a point in front of a camera [scene units]."""


def sample_bilinear(image: Float[Tensor, "c h w"], xy: Float[Tensor, "p 2"]) -> Float[Tensor, "p c"]:
    """Bilinear interpolation with pixel centers at half-integers and border replication.

    Gradients reach the image and the positions.
    """
    height, width = image.shape[1:]
    limit = torch.tensor([width - 1.0, height - 1.0], device=xy.device, dtype=xy.dtype)
    position = torch.minimum((xy - 0.5).nan_to_num(0).clamp_min(0), limit)
    low = position.detach().floor()
    x, y = (position - low).to(image.dtype)[:, None].unbind(-1)
    column, row = low.long().unbind(-1)
    right, below = (column + 1).clamp(max=width - 1), (row + 1).clamp(max=height - 1)
    # index_select on rows has a fast gradient, which is differentiable again.
    table = image.flatten(1).T
    top = torch.lerp(table.index_select(0, row * width + column), table.index_select(0, row * width + right), x)
    bottom = torch.lerp(table.index_select(0, below * width + column), table.index_select(0, below * width + right), x)
    return torch.lerp(top, bottom, y)


def sample_bicubic(image: Float[Tensor, "c h w"], xy: Float[Tensor, "p 2"]) -> Float[Tensor, "p c"]:
    """Cubic convolution (Keys 1981, a = -1/2) with border replication; exact for polynomials up to degree 2.

    Uses 4 x 4 pixels, preserves edges better than `sample_bilinear`, and may slightly overshoot the range of the
    values. Gradients reach the image and the positions.
    """
    height, width = image.shape[1:]
    limit = torch.tensor([width - 1.0, height - 1.0], device=xy.device, dtype=xy.dtype)
    position = torch.minimum((xy - 0.5).nan_to_num(0).clamp_min(0), limit)
    low = position.detach().floor()
    across, down = _cubic((position - low).to(image.dtype)).unbind(1)
    columns, rows = (low.long()[..., None] + torch.arange(-1, 3, device=xy.device)).unbind(1)
    pixels = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    near = image.flatten(1).index_select(1, pixels.flatten()).view(len(image), len(xy), 16)
    return (near * (down[:, :, None] * across[:, None]).flatten(1)).sum(-1).T


def _cubic(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n 4"]:
    """Weights of the pixels at -1, 0, 1 and 2 for positions t in [0, 1]."""
    s = 1 - t
    weights = [-t * s**2, 2 - 5 * t**2 + 3 * t**3, 2 - 5 * s**2 + 3 * s**3, -s * t**2]
    return torch.stack(weights, -1) / 2


def is_in_image(xy: Float[Tensor, "p 2"], depth: Float[Tensor, " p"], size: tuple[int, int]) -> Bool[Tensor, " p"]:
    """Whether points are in front of the camera and project into its image of `size` (width, height)."""
    limit = torch.tensor(size, device=xy.device)
    return (depth > FRONT) & ((xy >= 0) & (xy < limit)).all(-1)


def sample_nearest(
    values: Shaped[Tensor, " n"], first: int, xy: Float[Tensor, "p 2"], size: tuple[int, int]
) -> Shaped[Tensor, " p"]:
    """Value of the nearest pixel of an image whose rows begin at `first` of a flat buffer, with border replication."""
    width, height = size
    column = xy[:, 0].nan_to_num(0).clamp(0, width - 1).long()
    row = xy[:, 1].nan_to_num(0).clamp(0, height - 1).long()
    return values[first + row * width + column]


def bounding_window(xy: Float[Tensor, "p 2"], size: tuple[int, int], margin: int, multiple: int) -> tuple[slice, slice]:
    """Rows and columns of an image that contain the positions with a margin, aligned to multiples."""
    spans = []
    for axis in (1, 0):
        positions = xy[:, axis].clamp(0, size[axis] - 1)
        first = max(int(positions.min()) - margin, 0) // multiple * multiple
        last = -(-(int(positions.max()) + 1 + margin) // multiple) * multiple
        spans.append(slice(first, min(last, size[axis])))
    return spans[0], spans[1]


def cosine_similarity(
    points: Float[Tensor, "p 3"], center: Float[Tensor, "3"], directions: Float[Tensor, "p 3"]
) -> Float[Tensor, " p"]:
    """Cosine of the angle between each unit direction and the line from a camera center to the point."""
    return (F.normalize(points - center, dim=-1) * directions).sum(-1)
