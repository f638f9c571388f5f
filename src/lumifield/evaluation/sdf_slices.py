"""Slices through a signed distance field as an image."""

from __future__ import annotations

from math import pi

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lumifield.methods.base import Method
from lumifield.runtime.image_io import to_uint8

SIDE = 256
"""Width of each slice [pixels]."""
BANDS, LINE = 16, 0.01
"""Bands from the center of the box to its side; half width of the line at the surface, relative to that distance."""
INSIDE, OUTSIDE = (1.0, 0.6, 0.3), (0.4, 0.65, 1.0)


def render_slices(method: Method, box: Float[Tensor, "2 3"]) -> UInt8[Tensor, "h w 3"]:
    """Central slices orthogonal to x, y and z of a box side by side, the later axis upwards.

    Bands are isolines of distance, the surface is a black line; inside is orange, outside blue.
    """
    middle, half = box.mean(0), (box[1] - box[0]) / 2
    place = (torch.arange(SIDE, device=box.device) + 0.5) * (2 / SIDE) - 1
    planes = []
    for across in range(3):
        right, up = (axis for axis in range(3) if axis != across)
        points = torch.zeros(SIDE, SIDE, 3, device=box.device)
        points[..., right], points[..., up] = place, -place[:, None]
        distance = method.signed_distance((middle + half * points).view(-1, 3)).view(SIDE, SIDE)
        planes.append(color_by_depth(-distance / float(half.amin())))
    return to_uint8(torch.cat(planes, 1)).cpu()


def color_by_depth(depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w 3"]:
    """Colors by depth below the surface, negative outside."""
    inside, outside = torch.tensor([INSIDE, OUTSIDE], device=depth.device)
    shade = 0.75 + 0.25 * torch.cos(2 * pi * BANDS * depth)
    shade = torch.where(depth.abs() < LINE, 0.0, shade)
    return torch.where((depth > 0)[..., None], inside, outside) * shade[..., None]
