"""Captures of one object: cameras around a bounding sphere, object masks as alpha, published splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views, image_files, transforms_file, visual_hull
from lumifield.data.pose_normalization import frame_to_float32
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras

SPLITS = ("train", "val", "test")
# Rays begin here where the camera is within the sphere, or surroundings are seen.
NEAR, FAR_UNBOUNDED = 0.05, 100.0
# The sphere that poses alone suggest, over the distance of the nearest camera (the loader of NLR's data).
REACH = 0.7
# How far a matrix may be from one of rotation and scale.
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


def capture_splits(source: Source, taken: ObjectCapture, published: Rows) -> tuple[str, ...]:
    """Splits with at least one image."""
    named = select_rows(source, taken, published)
    return tuple(split for split in SPLITS if named.get(split))


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


def capture_cameras(
    source: Source, split: str, taken: ObjectCapture, published: Rows
) -> tuple[Scene, image_files.ImageFiles]:
    """Cameras and image files of one split; scene coordinates are those of the unit sphere.

    Without a given sphere it bounds the visual hull of the training masks, or follows from the poses. Raises
    `DataError` if rays or masks do not meet the sphere.
    """
    named = select_rows(source, taken, published)
    frame = _frame(source, taken, named["train"])
    rows = named[split]
    files = image_files.read_headers([taken.images[row] for row in rows])
    if source.object_masks:
        files = files.with_object_masks([taken.silhouettes[row] for row in rows])
    placed = _placed(taken, rows, files, frame)
    visual_hull.check_object_masks(placed, files, taken.path)
    distance = placed.positions.norm(dim=-1)
    scene = Scene(
        cameras=placed.resized(1 / source.downscale),
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
    turn = matrix[:3, :3] / scale if scale > 0 else np.zeros((3, 3))
    if np.abs(turn.T @ turn - np.eye(3)).max() > TOLERANCE:
        raise DataError(path, name, "no rotation and scale", "a similarity", "write the file again")
    return Frame(torch.from_numpy(turn), torch.from_numpy(matrix[:3, 3].copy()), scale)


def _listed(path: Path, names: list[str]) -> Rows:
    content = transforms_file.load_json(path)
    named = content if isinstance(content, dict) else {}
    found: Rows = {}
    for split in SPLITS:
        listed = named.get(split, [])
        if not isinstance(listed, list) or (split == "train" and not listed):
            raise DataError(path, split, "no list of names", "names of images without their ending", "list them")
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
        return visual_hull.sphere_of_poses(taken.c2w, REACH)
    files = image_files.read_headers([taken.images[row] for row in train]).with_object_masks(masks)
    identity = Frame(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 1.0)
    world = _placed(taken, train, files, identity)
    return visual_hull.sphere_of_hull(world, files, taken.path)


def _placed(taken: ObjectCapture, rows: list[int], files: image_files.ImageFiles, frame: Frame) -> Cameras:
    lenses = taken.lenses[rows].float()
    return Cameras(
        c2w=frame.poses_to_scene(taken.c2w[rows]).float(),
        focal=lenses[:, :2],
        center=lenses[:, 2:],
        size=torch.tensor(files.sizes),
        distortion=torch.zeros(len(rows), 4),
    )
