"""Blender scenes: `transforms_{train,val,test}.json` with one angle of view and RGB or RGBA images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lumifield.data import Source, frames, image_files
from lumifield.data.reader import Reader
from lumifield.data.scene import Frame, Scene
from lumifield.geometry.cameras import Cameras

NEAR, FAR, HALF_SIDE = 2.0, 6.0, 1.5
Listing = dict[str, Any]
Kept = list[tuple[Listing, Path]]


def blender_splits(source: Source) -> tuple[str, ...]:
    """The splits that have a file."""
    return frames.split_files(source)


def blender_cameras(source: Source, split: str) -> tuple[Scene, image_files.Files]:
    """One split without its pixels, and the files that hold them; the scene frame is the world frame."""
    path = source.data / f"transforms_{split}.json"
    content = frames.load(path)
    return scene_of_listing(source, path, content, frames.present(path, content["frames"]))


def scene_of_listing(source: Source, path: Path, content: Listing, kept: Kept) -> tuple[Scene, image_files.Files]:
    """Frames of the file `path` with their images, through lenses of its one angle of view."""
    files = image_files.survey([image for _, image in kept])
    size = torch.tensor(files.sizes)
    focal = torch.tensor([frames.focal_from_angle(path, content, width) for width, _ in files.sizes])
    n = len(kept)
    found = Scene(
        cameras=Cameras(
            c2w=frames.poses(path, [frame for frame, _ in kept]).float(),
            focal=focal[:, None].repeat(1, 2),
            center=size / 2,
            size=size,
            distortion=torch.zeros(n, 4),
        ).resized(1 / source.downscale),
        names=tuple(frame["file_path"].removeprefix("./") for frame, _ in kept),
        near=torch.full((n,), NEAR),
        far=torch.full((n,), FAR),
        box=torch.tensor([[-HALF_SIDE] * 3, [HALF_SIDE] * 3]),
        frame=Frame.identity(),
        background=image_files.background(files, source.background),
    )
    return found, files


READER = Reader(splits=blender_splits, cameras=blender_cameras)
