"""Poses: what the placement of a set of cameras says about the scene before them.

All poses are camera-to-world matrices 3x4 with OpenCV axes (x right, y down, z forward).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.errors import DataError

ORTHONORMAL_TOLERANCE = 1e-2


def checked_pose(matrix: Any, path: Path | str, field: str) -> Float[Tensor, "3 4"]:
    """A 3x4 or 4x4 matrix in double precision; raises `DataError` unless it is a finite rotation and translation."""

    def wrong(found: str, expected: str) -> DataError:
        return DataError(path, field, found, expected, "correct or remove this camera")

    try:
        pose = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise wrong("no table of numbers", "a 3x4 or 4x4 matrix") from None
    if pose.shape not in ((3, 4), (4, 4)):
        raise wrong(f"of shape {pose.shape}", "a 3x4 or 4x4 matrix")
    if not np.isfinite(pose).all():
        raise wrong("not finite (NaN or infinity)", "finite numbers")
    rotation = pose[:3, :3]
    off = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if off > ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0:
        raise wrong("no rotation (columns not orthonormal and right-handed)", "a rotation and a translation")
    return torch.from_numpy(pose[:3].copy())


def checked_number(value: Any, path: Path | str, field: str, *, positive: bool = False) -> float:
    """A finite number; raises `DataError` for anything else, and for zero or less where `positive`."""
    expected = "a number above zero" if positive else "a finite number"
    usable = isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    if not usable or (positive and value <= 0):
        raise DataError(path, field, repr(value), expected, "correct the file")
    return float(value)


def unit(vector: Float[Tensor, "*v 3"]) -> Float[Tensor, "*v 3"]:
    """The vector at length 1."""
    return vector / vector.norm(dim=-1, keepdim=True)


def any_normal(direction: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """A unit vector at right angles to a direction: the x axis, or else y, with the direction taken out."""
    unit_direction = unit(direction)
    axis = torch.eye(3, dtype=direction.dtype)[1 if bool(unit_direction[0].abs() > 0.9) else 0]
    return unit(axis - (axis @ unit_direction) * unit_direction)


def looking(
    positions: Float[Tensor, "n 3"], forward: Float[Tensor, "n 3"], up: Float[Tensor, "3"]
) -> Float[Tensor, "n 3 4"]:
    """Poses at `positions` that look along `forward`, with `up` upwards in the image."""
    z = unit(forward)
    right = torch.linalg.cross(z, up.expand_as(z))
    along_up = right.norm(dim=-1, keepdim=True) < 1e-6 * up.norm()
    right = torch.where(along_up, any_normal(up).expand_as(z), right)
    x = unit(right)
    return torch.stack([x, torch.linalg.cross(z, x), z, positions], -1)


def mean_up(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """The mean of the cameras' upward axes, of unit length; where they cancel, the first camera's."""
    up = -c2w[:, :, 1].mean(0)
    return unit(up) if bool(up.norm() > 1e-3) else -c2w[0, :, 1]


def level_up(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """The direction that is most nearly at right angles to all cameras' rightward axes, on the side of their mean up.

    It is upright however unevenly the cameras surround the scene. Where those axes do not spread in a plane (all look
    to one side, or the cameras were turned about their optical axes) it is the mean up.
    """
    up = mean_up(c2w)
    right = c2w[:, :, 0]
    spread, axes = torch.linalg.eigh(right.T @ right / len(right))
    if not (spread[1] > 0.2 and spread[0] < 0.1 * spread[1]):
        return up
    return axes[:, 0] * torch.where(axes[:, 0] @ up < 0, -1.0, 1.0)


def average_pose(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3 4"]:
    """The camera at the mean position that looks along the mean direction with the mean up."""
    forward = c2w[:, :, 2].mean(0)
    forward = forward if bool(forward.norm() > 1e-3) else c2w[0, :, 2]
    return looking(c2w[:, :, 3].mean(0)[None], forward[None], mean_up(c2w))[0]


def focus_point(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """The point nearest to all optical axes: least squares, and of all such points the nearest to the mean camera."""
    positions, axes = c2w[:, :, 3].double(), c2w[:, :, 2].double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    middle = positions.mean(0)
    offsets = (across @ (positions - middle)[..., None])[..., 0].mean(0)
    return (middle + torch.linalg.pinv(across.mean(0), rtol=1e-9) @ offsets).to(c2w.dtype)


def moved(c2w: Float[Tensor, "3 4"], twist: Float[Tensor, "6"]) -> Float[Tensor, "3 4"]:
    """The pose turned by a rotation vector, `twist[:3]`, and shifted by `twist[3:]`, both in the camera's own axes."""
    x, y, z = twist[:3]
    zero = torch.zeros_like(x)
    across = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    # In single precision the exponential is good to no more than 1e-5.
    turned = c2w[:, :3] @ torch.linalg.matrix_exp(across.double()).to(c2w.dtype)
    return torch.cat([turned, c2w[:, 3:] + c2w[:, :3] @ twist[3:, None]], -1)


def apart(a: Float[Tensor, "*n 3 4"], b: Float[Tensor, "*n 3 4"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Distance between the positions of poses, and the angle between their orientations [degrees]."""
    chord = (a[..., :3] - b[..., :3]).double().flatten(-2).norm(dim=-1) / math.sqrt(8)
    angle = 2 * torch.rad2deg(torch.asin(chord.clamp(max=1)))
    return (a[..., 3] - b[..., 3]).norm(dim=-1), angle.to(a.dtype)


def from_opengl(c2w: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """Poses with OpenCV axes from poses with OpenGL's (x right, y up, z backwards)."""
    return c2w * torch.tensor([1, -1, -1, 1], dtype=c2w.dtype)
