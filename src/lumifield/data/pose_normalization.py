"""Scene frames computed from the camera poses of a capture."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data.scene import Frame
from lumifield.geometry.poses import average_pose, estimate_up, focus_point, orthogonal_vector

# Near bound of inward-facing cameras relative to the distance of the nearest point.
NEAR_FRACTION = 0.5
NEIGHBORS = 9


def inward_frame(c2w: Float[Tensor, "n 3 4"]) -> Frame:
    """Origin at the point nearest to all optical axes, +z up, the farthest camera at distance 1."""
    center = focus_point(c2w)
    up = estimate_up(c2w)
    x = orthogonal_vector(up)
    rotation = torch.stack([x, torch.linalg.cross(up, x), up], -1)
    farthest = float((c2w[:, :, 3] - center).norm(dim=-1).max())
    return Frame(rotation, center, farthest if farthest > 0 else 1.0)


def inward_near(c2w: Float[Tensor, "n 3 4"], nearest: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Near bound of each image from the distance of the nearest point that it observes.

    Half the median over the camera and its eight nearest neighbors: wrongly triangulated points bring the near bound of
    single images much closer, and floaters would remain in the space that only these images see.
    """
    distances = torch.cdist(c2w[:, :, 3], c2w[:, :, 3])
    near = nearest[distances.topk(min(NEIGHBORS, len(nearest)), largest=False).indices]
    return NEAR_FRACTION * near.median(dim=-1).values


def forward_frame(c2w: Float[Tensor, "n 3 4"], unit: float) -> Frame:
    """Origin and axes of the average camera; a scene unit is `unit` world units."""
    average = average_pose(c2w)
    return Frame(average[:, :3], average[:, 3], unit)


def frame_to_float32(frame: Frame) -> Frame:
    """The frame in float32."""
    return Frame(frame.rotation.float(), frame.translation.float(), frame.scale)
