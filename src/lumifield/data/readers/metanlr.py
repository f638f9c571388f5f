"""MetaNLR++'s own layout: `NAME_rgb.png`, `NAME_mask.png` and `NAME_rgb_meta.npy` side by side, as it made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, image_files, object_capture, safe_pickle
from lumifield.data.capture import CaptureFiles
from lumifield.data.readers import dtu, nlr
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.geometry.poses import opengl_to_opencv, validate_pose

LAYOUT = "NAME_rgb_meta.npy (MetaNLR++)"
OPTIONS = ("object_masks",)

META, MASK, SPHERE = "_meta.npy", "_mask.png", "model_matrix.npy"


def matches(folder: Path) -> bool:
    """Whether an image has a camera file."""
    return any(folder.glob("*_rgb_meta.npy"))


def open_files(source: Source) -> CaptureFiles:
    """Splits of `splits.json`, else the published ones of 22 or 49 images, else those of a hold-out."""
    taken = load_metanlr(source)
    return object_capture.open_object(source, taken, metanlr_published_split(len(taken.images)))


def metanlr_published_split(count: int) -> object_capture.Rows:
    """The rows of each split: NLR's for 22 images, DTU's for 49 and more."""
    return nlr.nlr_published_split(count) or dtu.dtu_published_split(count)


def load_metanlr(source: Source) -> object_capture.ObjectCapture:
    """The images that have a meta file, with silhouettes and cameras; raises `DataError` for files that say none.

    The world is the one that `model_matrix.npy` leads to; without the file the sphere is computed.
    """
    images = [
        path
        for path in image_files.list_images(source.data)
        if path.stem.endswith("_rgb") and (path.parent / (path.stem + META)).is_file()
    ]
    if not images:
        raise DataError(source.data, "images", "missing", "NAME_rgb.png with NAME_rgb_meta.npy", "restore them")
    masks = [path.with_name(path.stem.removesuffix("_rgb") + MASK) for path in images]
    lenses, poses = zip(*(_camera(path) for path in images), strict=True)
    return object_capture.ObjectCapture(
        images[0].with_name(images[0].stem + META),
        images,
        [mask if mask.is_file() else None for mask in masks],
        torch.stack(lenses),
        torch.stack(poses),
        _sphere(source.data / SPHERE),
    )


def _camera(image: Path) -> tuple[Float[Tensor, "4"], Float[Tensor, "3 4"]]:
    """`fx fy cx cy` and the pose, from OpenGL's matrices of view and projection."""
    path = image.with_name(image.stem + META)
    content = safe_pickle.read_dictionary(path)
    view, projection = (_matrix(path, content, name) for name in ("view", "projection"))
    width, height = _matrix(path, content, "resolution", (2,)).tolist()
    if min(width, height) < 1 or projection[0, 0] <= 0 or projection[1, 1] <= 0 or projection[3, 2] != -1:
        raise DataError(path, "projection", "none of a pinhole", "OpenGL's frustum", "write the file again")
    focal = [projection[0, 0] * width / 2, projection[1, 1] * height / 2]
    center = [(1 - projection[0, 2]) * width / 2, (1 + projection[1, 2]) * height / 2]
    inverse = validate_pose(view, path, "view")
    turn = inverse[:, :3].T
    pose = opengl_to_opencv(torch.cat([turn, -turn @ inverse[:, 3:]], 1))
    scale = torch.tensor(_size(image)) / torch.tensor([width, height])
    return torch.tensor([*focal, *center], dtype=torch.float64) * scale.repeat(2), pose


def _size(image: Path) -> tuple[int, int]:
    return image_files.read_headers([image]).sizes[0]


def _sphere(path: Path) -> Frame | None:
    """The frame of the unit sphere that the objects' coordinates are those of; None where no file says."""
    if not path.is_file():
        return None
    return object_capture.similarity_frame(
        path, "model_matrix", _matrix(path, safe_pickle.read_dictionary(path), "model_matrix")
    )


def _matrix(
    path: Path, content: dict[str, Any], name: str, shape: tuple[int, ...] = (4, 4)
) -> Float[np.ndarray, "..."]:
    try:
        matrix = np.asarray(content.get(name), dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != shape or not np.isfinite(matrix).all():
        expected = f"{'x'.join(map(str, shape))} finite numbers"
        raise DataError(path, name, "missing or of another form", expected, "write the file again")
    return matrix
