"""Blender scenes: `transforms_{train,val,test}.json` with one field of view and RGB or RGBA images."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from lumifield.data import Source, image_files, transforms_file
from lumifield.data.capture import CaptureFiles
from lumifield.data.metadata_files import read_metadata
from lumifield.data.scene import Frame, Scene
from lumifield.geometry.cameras import Cameras

LAYOUT = "transforms_train.json (Blender)"

NEAR, FAR, HALF_EXTENT = 2.0, 6.0, 1.5
Listing = dict[str, Any]
Kept = list[tuple[Listing, Path]]


def matches(folder: Path) -> bool:
    """Whether there is a file per split without `fl_x`, which instant-ngp and nerfstudio write."""
    path = transforms_file.find_split_file(folder)
    return path is not None and b'"fl_x"' not in read_metadata(path)


def open_files(source: Source) -> CaptureFiles:
    """Splits with a file; each file is parsed when its split is read."""

    @cache
    def listing(split: str) -> tuple[Path, Listing]:
        path = source.data / f"transforms_{split}.json"
        return path, transforms_file.load_listing(path)

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        path, content = listing(split)
        return scene_of_listing(source, path, content, transforms_file.existing_frames(path, content["frames"]))

    return CaptureFiles(transforms_file.split_files(source), locate)


def scene_of_listing(source: Source, path: Path, content: Listing, kept: Kept) -> tuple[Scene, image_files.ImageFiles]:
    """Frames of the file `path` with their images and its field of view; the scene frame is the world frame."""
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
        box=torch.tensor([[-HALF_EXTENT] * 3, [HALF_EXTENT] * 3]),
        frame=Frame.identity(),
        background=image_files.resolve_background(files, source.background),
    )
    return found, files
