"""Looking up scene points in images that see them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional as F

FRONT = 1e-6
"""Depth [scene units] from which on a point lies before a camera."""


def bilinear(image: Float[Tensor, "c h w"], xy: Float[Tensor, "p 2"]) -> Float[Tensor, "p c"]:
    """An image between its pixel centers, which lie at one half; its border goes on beyond it.

    Gradients reach the image and the places.
    """
    height, width = image.shape[1:]
    limit = torch.tensor([width - 1.0, height - 1.0], device=xy.device, dtype=xy.dtype)
    place = torch.minimum((xy - 0.5).nan_to_num(0).clamp_min(0), limit)
    low = place.detach().floor()
    x, y = (place - low).to(image.dtype)[:, None].unbind(-1)
    column, row = low.long().unbind(-1)
    right, below = (column + 1).clamp(max=width - 1), (row + 1).clamp(max=height - 1)
    # Rows of a table: their gradient is quick, and has a gradient again.
    table = image.flatten(1).T
    top = torch.lerp(table.index_select(0, row * width + column), table.index_select(0, row * width + right), x)
    bottom = torch.lerp(table.index_select(0, below * width + column), table.index_select(0, below * width + right), x)
    return torch.lerp(top, bottom, y)


def bicubic(image: Float[Tensor, "c h w"], xy: Float[Tensor, "p 2"]) -> Float[Tensor, "p c"]:
    """An image between its pixel centers by cubic convolution (Keys 1981, a = -1/2), which keeps edges sharper.

    It is exact for polynomials to degree 2. Four pixels count each way, and values may leave their range a little; the
    border goes on beyond the image. Gradients reach the image and the places.
    """
    height, width = image.shape[1:]
    limit = torch.tensor([width - 1.0, height - 1.0], device=xy.device, dtype=xy.dtype)
    place = torch.minimum((xy - 0.5).nan_to_num(0).clamp_min(0), limit)
    low = place.detach().floor()
    across, down = _cubic((place - low).to(image.dtype)).unbind(1)
    columns, rows = (low.long()[..., None] + torch.arange(-1, 3, device=xy.device)).unbind(1)
    pixels = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    near = image.flatten(1).index_select(1, pixels.flatten()).view(len(image), len(xy), 16)
    return (near * (down[:, :, None] * across[:, None]).flatten(1)).sum(-1).T


def _cubic(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n 4"]:
    """The weights of the pixels at -1, 0, 1 and 2 for places at t in [0, 1]."""
    s = 1 - t
    weights = [-t * s**2, 2 - 5 * t**2 + 3 * t**3, 2 - 5 * s**2 + 3 * s**3, -s * t**2]
    return torch.stack(weights, -1) / 2


def in_image(xy: Float[Tensor, "p 2"], depth: Float[Tensor, " p"], size: tuple[int, int]) -> Bool[Tensor, " p"]:
    """Whether points lie before the camera and project onto its image of `size` (width, height)."""
    limit = torch.tensor(size, device=xy.device)
    return (depth > FRONT) & ((xy >= 0) & (xy < limit)).all(-1)


def nearest(
    values: Shaped[Tensor, " n"], first: int, xy: Float[Tensor, "p 2"], size: tuple[int, int]
) -> Shaped[Tensor, " p"]:
    """The value of the pixel that each place lies in, of an image whose rows begin at `first` of a flat buffer.

    Places beyond the image have the value of its border.
    """
    width, height = size
    column = xy[:, 0].nan_to_num(0).clamp(0, width - 1).long()
    row = xy[:, 1].nan_to_num(0).clamp(0, height - 1).long()
    return values[first + row * width + column]


def window(xy: Float[Tensor, "p 2"], size: tuple[int, int], margin: int, multiple: int) -> tuple[slice, slice]:
    """Rows and columns of an image that hold the places with a margin, with limits that are multiples."""
    spans = []
    for axis in (1, 0):
        places = xy[:, axis].clamp(0, size[axis] - 1)
        first = max(int(places.min()) - margin, 0) // multiple * multiple
        last = -(-(int(places.max()) + 1 + margin) // multiple) * multiple
        spans.append(slice(first, min(last, size[axis])))
    return spans[0], spans[1]


def cosines(
    points: Float[Tensor, "p 3"], eye: Float[Tensor, "3"], directions: Float[Tensor, "p 3"]
) -> Float[Tensor, " p"]:
    """The cosine of the angle between each unit direction and the line from an eye to the point."""
    return (F.normalize(points - eye, dim=-1) * directions).sum(-1)
