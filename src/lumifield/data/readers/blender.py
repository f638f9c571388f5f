"""Blender scenes: `transforms_{train,val,test}.json` with one angle of view and RGB or RGBA images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lumifield.data import Source, image_files, transforms_file
from lumifield.data.reader import Reader
from lumifield.data.scene import Frame, Scene
from lumifield.geometry.cameras import Cameras

NEAR, FAR, HALF_SIDE = 2.0, 6.0, 1.5
Listing = dict[str, Any]
Kept = list[tuple[Listing, Path]]


def blender_splits(source: Source) -> tuple[str, ...]:
    """The splits that have a file."""
    return transforms_file.split_files(source)


def blender_cameras(source: Source, split: str) -> tuple[Scene, image_files.ImageFiles]:
    """One split without its pixels, and the files that hold them; the scene frame is the world frame."""
    path = source.data / f"transforms_{split}.json"
    content = transforms_file.load_listing(path)
    return scene_of_listing(source, path, content, transforms_file.existing_frames(path, content["frames"]))


def scene_of_listing(source: Source, path: Path, content: Listing, kept: Kept) -> tuple[Scene, image_files.ImageFiles]:
    """Frames of the file `path` with their images, through lenses of its one angle of view."""
    files = image_files.read_headers([image for _, image in kept])
    size = torch.tensor(files.sizes)
    focal = torch.tensor([transforms_file.focal_from_angle(path, content, width) for width, _ in files.sizes])
    n = len(kept)
    found = Scene(
        cameras=Cameras(
            c2w=transforms_file.frame_poses(path, [frame for frame, _ in kept]).float(),
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
        background=image_files.resolve_background(files, source.background),
    )
    return found, files


READER = Reader(splits=blender_splits, cameras=blender_cameras)
