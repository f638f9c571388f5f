"""Captures of one object: cameras around a bounding sphere, object masks as alpha, published splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views, image_files, transforms_file, visual_hull
from lumifield.data.capture import CaptureFiles
from lumifield.data.pose_normalization import frame_to_float32
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras

SPLITS = ("train", "val", "test")
# Near bound if the camera is inside the sphere, or the surroundings are visible; far bound of the surroundings.
NEAR, FAR_UNBOUNDED = 0.05, 100.0
# Radius of the sphere computed from poses alone, relative to the distance of the nearest camera (NLR data loader).
RADIUS_FRACTION = 0.7
# Tolerance for a matrix to be a similarity.
TOLERANCE = 1e-3

Rows = dict[str, list[int]]


@dataclass(frozen=True)
class ObjectCapture:
    """All images of an object at full size, and the camera file.

    `lenses` are `fx fy cx cy`; poses are in world coordinates. `sphere` is the frame whose unit sphere bounds the
    object (None: not given).
    """

    path: Path
    images: Sequence[Path]
    silhouettes: Sequence[Path | None]
    lenses: Float[Tensor, "n 4"]
    c2w: Float[Tensor, "n 3 4"]
    sphere: Frame | None


def open_object(source: Source, taken: ObjectCapture, published: Rows) -> CaptureFiles:
    """Splits with at least one image; scene coordinates are those of the unit sphere.

    Without a given sphere it bounds the visual hull of the training masks, or follows from the poses.
    """
    rows = select_rows(source, taken, published)
    frame = cache(lambda: _frame(source, taken, rows["train"]))
    splits = tuple(split for split in SPLITS if rows.get(split))
    return CaptureFiles(splits, lambda split: _scene(source, taken, rows[split], frame()))


def select_rows(source: Source, taken: ObjectCapture, published: Rows) -> Rows:
    """Image indices per split: from `splits.json` in the folder, else the published ones, else every 8th is test.

    `splits.json` lists image names without extension. Raises `DataError` for a name without image.
    """
    path = source.data / "splits.json"
    if path.is_file():
        held_out_views.reject_hold_out(source, path)
        return _listed(path, [image.stem for image in taken.images])
    if source.hold_out == "auto" and published:
        return published
    positions = taken.c2w[:, :, 3]
    return {split: held_out_views.split_rows(source, split, positions) for split in held_out_views.split_names(source)}


def _scene(source: Source, taken: ObjectCapture, rows: list[int], frame: Frame) -> tuple[Scene, image_files.ImageFiles]:
    """Cameras and image files; raises `DataError` if rays or masks do not meet the sphere."""
    files = image_files.read_headers([taken.images[row] for row in rows])
    if source.object_masks:
        files = files.with_object_masks([taken.silhouettes[row] for row in rows])
    cameras = _cameras_in_frame(taken, rows, files, frame)
    visual_hull.check_object_masks(cameras, files, taken.path)
    distance = cameras.positions.norm(dim=-1)
    scene = Scene(
        cameras=cameras.resized(1 / source.downscale),
        names=tuple(path.name for path in files.paths),
        near=(distance - 1).clamp(min=NEAR) if files.alpha else torch.full_like(distance, NEAR),
        far=distance + 1 if files.alpha else torch.full_like(distance, FAR_UNBOUNDED),
        box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        frame=frame_to_float32(frame),
        background=image_files.resolve_background(files, source.background),
        unbounded=not files.alpha,
        has_object_mask=files.alpha,
    )
    return scene, files


def similarity_frame(path: Path, name: str, matrix: Float[np.ndarray, "4 4"]) -> Frame:
    """Frame of a matrix from the unit sphere to the world; raises `DataError` unless it is a similarity."""
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    rotation = matrix[:3, :3] / scale if scale > 0 else np.zeros((3, 3))
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > TOLERANCE:
        raise DataError(path, name, "no rotation and scale", "a similarity", "write the file again")
    return Frame(torch.from_numpy(rotation), torch.from_numpy(matrix[:3, 3].copy()), scale)


def _listed(path: Path, names: list[str]) -> Rows:
    content = transforms_file.load_json(path)
    named = content if isinstance(content, dict) else {}
    found: Rows = {}
    for split in SPLITS:
        listed = named.get(split, [])
        if not isinstance(listed, list) or (split == "train" and not listed):
            raise DataError(path, split, "no list of names", "image names without extension", "list them")
        for name in listed:
            if name not in names:
                raise DataError(path, f"image {name} of {split}", "missing", "an image", "restore it or unlist it")
        found[split] = [names.index(name) for name in listed]
    return found


def _frame(source: Source, taken: ObjectCapture, train: list[int]) -> Frame:
    if taken.sphere is not None:
        return taken.sphere
    masks = [taken.silhouettes[row] for row in train]
    if not source.object_masks or None in masks:
        return visual_hull.sphere_of_poses(taken.c2w, RADIUS_FRACTION)
    files = image_files.read_headers([taken.images[row] for row in train]).with_object_masks(masks)
    identity = Frame(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 1.0)
    world = _cameras_in_frame(taken, train, files, identity)
    return visual_hull.sphere_of_hull(world, files, taken.path)


def _cameras_in_frame(taken: ObjectCapture, rows: list[int], files: image_files.ImageFiles, frame: Frame) -> Cameras:
    lenses = taken.lenses[rows].float()
    return Cameras(
        c2w=frame.poses_to_scene(taken.c2w[rows]).float(),
        focal=lenses[:, :2],
        center=lenses[:, 2:],
        size=torch.tensor(files.sizes),
        distortion=torch.zeros(len(rows), 4),
    )
