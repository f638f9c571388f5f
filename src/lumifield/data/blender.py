"""Blender scenes: `transforms_{train,val,test}.json` with one angle of view and RGB or RGBA pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.core.cameras import Cameras
from lumifield.core.errors import DataError
from lumifield.core.poses import checked_number
from lumifield.core.scene import Frame, Scene
from lumifield.data import Source, frames, pictures

NEAR, FAR, HALF_SIDE = 2.0, 6.0, 1.5


def splits(source: Source) -> tuple[str, ...]:
    """The splits that have a file."""
    return frames.split_files(source)


def cameras(source: Source, split: str) -> tuple[Scene, pictures.Files]:
    """One split without its pixels, and the files that hold them; the scene frame is the world frame."""
    path = source.data / f"transforms_{split}.json"
    content = frames.load(path)
    kept = frames.present(path, content["frames"])
    files = pictures.survey([picture for _, picture in kept])
    c2w = frames.poses(path, [frame for frame, _ in kept]).float()
    n = len(kept)
    scene = Scene(
        cameras=_perspective(c2w, _angle(content, path), files, source.downscale),
        names=tuple(Path(frame["file_path"]).as_posix() for frame, _ in kept),
        near=torch.full((n,), NEAR),
        far=torch.full((n,), FAR),
        box=torch.tensor([[-HALF_SIDE] * 3, [HALF_SIDE] * 3]),
        frame=Frame.identity(),
        background=pictures.background(files, source.background),
    )
    return scene, files


def _angle(content: dict[str, Any], path: Path) -> float:
    """The horizontal angle of view [radians]."""
    angle = checked_number(content.get("camera_angle_x"), path, "camera_angle_x", positive=True)
    if angle >= math.pi:
        raise DataError(path, "camera_angle_x", f"{angle:g}", "an angle below pi [radians]", "give it in radians")
    return angle


def _perspective(c2w: Float[Tensor, "n 3 4"], angle: float, files: pictures.Files, downscale: int) -> Cameras:
    """Cameras with focal length `0.5 W / tan(angle / 2)` of the true picture size, then of the shrunk one."""
    whole = torch.tensor(files.sizes, dtype=torch.int64)
    focal = 0.5 * whole[:, :1].double() / math.tan(0.5 * angle)
    return Cameras(
        c2w=c2w,
        focal=focal.expand(-1, 2).float(),
        centre=whole.float() / 2,
        size=whole,
        distortion=torch.zeros(len(whole), 4),
    ).resized(1 / downscale)
