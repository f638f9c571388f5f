"""Scene frames that follow from the poses of a capture, whatever units and axes its world has."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data.scene import Frame
from lumifield.geometry.poses import average_pose, estimate_up, focus_point, orthogonal_vector

# Rays of cameras about something begin at this share of the distance of the nearest thing.
NEAR_SHARE = 0.5
NEIGHBORS = 9


def inward_frame(c2w: Float[Tensor, "n 3 4"]) -> Frame:
    """Origin where the cameras look, +z their common up, the farthest camera at distance 1."""
    center = focus_point(c2w)
    up = estimate_up(c2w)
    x = orthogonal_vector(up)
    rotation = torch.stack([x, torch.linalg.cross(up, x), up], -1)
    farthest = float((c2w[:, :, 3] - center).norm(dim=-1).max())
    return Frame(rotation, center, farthest if farthest > 0 else 1.0)


def inward_near(c2w: Float[Tensor, "n 3 4"], nearest: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Where the rays of each image begin, from the distance of the nearest thing that each is said to show.

    It is half the median of its own and the eight nearest cameras' distance: a wrongly triangulated point makes a few
    images begin much nearer than their neighbors, and fog would hide in what only they see.
    """
    apart = torch.cdist(c2w[:, :, 3], c2w[:, :, 3])
    near = nearest[apart.topk(min(NEIGHBORS, len(nearest)), largest=False).indices]
    return NEAR_SHARE * near.median(dim=-1).values


def forward_frame(c2w: Float[Tensor, "n 3 4"], unit: float) -> Frame:
    """The average camera is the origin and looks along +z; `unit` world units become one scene unit."""
    average = average_pose(c2w)
    return Frame(average[:, :3], average[:, 3], unit)


def frame_to_float32(frame: Frame) -> Frame:
    """The frame in single precision."""
    return Frame(frame.rotation.float(), frame.translation.float(), frame.scale)
