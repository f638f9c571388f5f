"""Camera poses: validation, averages, up direction, and motion on SE(3).

Poses are 3x4 camera-to-world matrices with OpenCV axes (x right, y down, z forward).
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


def validate_pose(matrix: Any, path: Path | str, field: str) -> Float[Tensor, "3 4"]:
    """A 3x4 or 4x4 matrix in double precision; raises `DataError` unless it is a finite rotation and translation."""

    def wrong(found: str, expected: str) -> DataError:
        return DataError(path, field, found, expected, "correct or remove this camera")

    try:
        pose = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise wrong("something else", "a 3x4 or 4x4 matrix") from None
    if pose.shape not in ((3, 4), (4, 4)):
        raise wrong(f"shape {pose.shape}", "a 3x4 or 4x4 matrix")
    if not np.isfinite(pose).all():
        raise wrong("NaN or infinity", "finite numbers")
    rotation = pose[:3, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0:
        raise wrong("columns that are not orthonormal and right-handed", "a rotation and a translation")
    return torch.from_numpy(pose[:3].copy())


def validate_number(value: Any, path: Path | str, field: str, *, positive: bool = False) -> float:
    """A finite number; raises `DataError` for anything else, and for zero or less if `positive`."""
    expected = "a number above zero" if positive else "a finite number"
    usable = isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    if not usable or (positive and value <= 0):
        raise DataError(path, field, repr(value), expected, "correct the file")
    return float(value)


def normalize(vector: Float[Tensor, "*v 3"]) -> Float[Tensor, "*v 3"]:
    """The vector scaled to unit length."""
    return vector / vector.norm(dim=-1, keepdim=True)


def orthogonal_vector(direction: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """A unit vector orthogonal to a direction: the x axis, or else y, with the parallel component removed."""
    unit_direction = normalize(direction)
    axis = torch.eye(3, dtype=direction.dtype)[1 if bool(unit_direction[0].abs() > 0.9) else 0]
    return normalize(axis - (axis @ unit_direction) * unit_direction)


def look_at(
    positions: Float[Tensor, "n 3"], forward: Float[Tensor, "n 3"], up: Float[Tensor, "3"]
) -> Float[Tensor, "n 3 4"]:
    """Poses at `positions` that look along `forward`, with `up` upwards in the image."""
    z = normalize(forward)
    right = torch.linalg.cross(z, up.expand_as(z))
    along_up = right.norm(dim=-1, keepdim=True) < 1e-6 * up.norm()
    right = torch.where(along_up, orthogonal_vector(up).expand_as(z), right)
    x = normalize(right)
    return torch.stack([x, torch.linalg.cross(z, x), z, positions], -1)


def mean_camera_up(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """Normalized mean of the up axes of the cameras; the first camera's if they cancel."""
    up = -c2w[:, :, 1].mean(0)
    return normalize(up) if bool(up.norm() > 1e-3) else -c2w[0, :, 1]


def estimate_up(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """The direction most orthogonal to the right axes of all cameras, on the side of their mean up.

    It does not depend on how evenly the cameras surround the scene. If the right axes do not span a plane (all cameras
    look the same way, or were rolled) it is the mean up.
    """
    up = mean_camera_up(c2w)
    right = c2w[:, :, 0]
    variance, axes = torch.linalg.eigh(right.T @ right / len(right))
    if not (variance[1] > 0.2 and variance[0] < 0.1 * variance[1]):
        return up
    return axes[:, 0] * torch.where(axes[:, 0] @ up < 0, -1.0, 1.0)


def average_pose(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3 4"]:
    """The pose at the mean position with the mean forward and mean up direction."""
    forward = c2w[:, :, 2].mean(0)
    forward = forward if bool(forward.norm() > 1e-3) else c2w[0, :, 2]
    return look_at(c2w[:, :, 3].mean(0)[None], forward[None], mean_camera_up(c2w))[0]


def focus_point(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """Least-squares intersection of the optical axes; if it is not unique, the solution nearest to the mean camera."""
    positions, axes = c2w[:, :, 3].double(), c2w[:, :, 2].double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    mean = positions.mean(0)
    offsets = (across @ (positions - mean)[..., None])[..., 0].mean(0)
    return (mean + torch.linalg.pinv(across.mean(0), rtol=1e-9) @ offsets).to(c2w.dtype)


def se3_retract(c2w: Float[Tensor, "3 4"], twist: Float[Tensor, "6"]) -> Float[Tensor, "3 4"]:
    """The pose rotated by the rotation vector `twist[:3]` and translated by `twist[3:]`, both in camera axes."""
    x, y, z = twist[:3]
    zero = torch.zeros_like(x)
    across = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    # In single precision the matrix exponential is accurate only to 1e-5.
    rotation = c2w[:, :3] @ torch.linalg.matrix_exp(across.double()).to(c2w.dtype)
    return torch.cat([rotation, c2w[:, 3:] + c2w[:, :3] @ twist[3:, None]], -1)


def pose_error(
    a: Float[Tensor, "*n 3 4"], b: Float[Tensor, "*n 3 4"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Distance between positions and angle between orientations [degrees]."""
    chord = (a[..., :3] - b[..., :3]).double().flatten(-2).norm(dim=-1) / math.sqrt(8)
    angle = 2 * torch.rad2deg(torch.asin(chord.clamp(max=1)))
    return (a[..., 3] - b[..., 3]).norm(dim=-1), angle.to(a.dtype)


def opengl_to_opencv(c2w: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """Poses with OpenCV axes from poses with OpenGL axes (x right, y up, z backwards)."""
    return c2w * torch.tensor([1, -1, -1, 1], dtype=c2w.dtype)
