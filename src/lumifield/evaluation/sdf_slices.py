"""Slices through a signed distance field, as an image."""

from __future__ import annotations

from math import pi

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lumifield.methods.base import Method
from lumifield.runtime.image_io import to_uint8

SIDE = 256
"""Pixels a side of each slice."""
BANDS, LINE = 16, 0.01
"""Bands of distance from the middle of the box to its side, and half the width of the line at the surface (share of
that way)."""
WITHIN, WITHOUT = (1.0, 0.6, 0.3), (0.4, 0.65, 1.0)


@torch.no_grad()
def slices(method: Method, box: Float[Tensor, "2 3"]) -> UInt8[Tensor, "h w 3"]:
    """The middle planes across x, y and z of a box side by side, the later axis upwards.

    Bands have equal distances from the surface, which is a black line; what is inside is orange, the rest blue.
    """
    middle, half = box.mean(0), (box[1] - box[0]) / 2
    place = (torch.arange(SIDE, device=box.device) + 0.5) * (2 / SIDE) - 1
    planes = []
    for across in range(3):
        right, up = (axis for axis in range(3) if axis != across)
        points = torch.zeros(SIDE, SIDE, 3, device=box.device)
        points[..., right], points[..., up] = place, -place[:, None]
        depth = method.inside((middle + half * points).view(-1, 3)).view(SIDE, SIDE) / float(half.amin())
        planes.append(colored(depth))
    return to_uint8(torch.cat(planes, 1)).cpu()


def colored(depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w 3"]:
    """Colors of depths below the surface, negative outside."""
    within, without = torch.tensor([WITHIN, WITHOUT], device=depth.device)
    shade = 0.75 + 0.25 * torch.cos(2 * pi * BANDS * depth)
    shade = torch.where(depth.abs() < LINE, 0.0, shade)
    return torch.where((depth > 0)[..., None], within, without) * shade[..., None]
