"""JSON files that list images with poses, as written for Blender scenes and by instant-ngp."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views
from lumifield.data.image_files import EXTENSIONS
from lumifield.data.metadata_files import read_metadata
from lumifield.errors import DataError
from lumifield.geometry.poses import opengl_to_opencv, validate_number, validate_pose

SPLITS = ("train", "val", "test")

# Zero entries of an intrinsic matrix and its inverse.
ZERO_ENTRIES = ([0, 1, 2, 2], [1, 0, 0, 1])

log = logging.getLogger(__name__)


def load_listing(path: Path) -> dict[str, Any]:
    """A JSON file with frames; raises `DataError` if it is missing, invalid or empty."""
    content = load_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(path, "frames", "missing or no list", "a list of frames", "write the file again")
    if not frames:
        raise DataError(path, "frames", "empty", "at least one frame", "list the images of this split")
    for index, frame in enumerate(frames):
        if not isinstance(frame.get("file_path"), str):
            raise DataError(path, f"frames[{index}].file_path", "missing", "a file name", "name the image")
    return content


def load_json(path: Path) -> Any:
    """Content of a JSON file; raises `DataError` if it is missing or invalid."""
    try:
        return json.loads(read_metadata(path).decode("utf-8"))
    except FileNotFoundError:
        raise DataError(
            path, "file", "missing", "a JSON list of frames", "restore it or choose another split"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(path, "content", f"no JSON ({error})", "a JSON object", "write the file again") from None


def find_split_file(folder: Path) -> Path | None:
    """The first `transforms_SPLIT.json` of a folder; None if there is none."""
    return next((path for split in SPLITS if (path := folder / f"transforms_{split}.json").is_file()), None)


def split_files(source: Source) -> tuple[str, ...]:
    """Splits with a `transforms_SPLIT.json`; raises `DataError` if there are none, or if a hold-out is requested."""
    found = tuple(split for split in SPLITS if (source.data / f"transforms_{split}.json").is_file())
    if not found:
        raise DataError(source.data, "transforms_train.json", "missing", "the list of training frames", "restore it")
    held_out_views.reject_hold_out(source, source.data / f"transforms_{found[0]}.json")
    return found


def find_image(folder: Path, file_path: str) -> Path | None:
    """Image file of a frame, with or without extension; None if it does not exist."""
    path = folder / file_path
    if path.suffix in EXTENSIONS and path.is_file():
        return path
    candidates = (path.parent / (path.name + extension) for extension in EXTENSIONS)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def existing_frames(path: Path, frames: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Path]]:
    """Frames with an existing image; missing ones are skipped and logged.

    Raises `DataError` if no image exists.
    """
    found = [(frame, find_image(path.parent, frame["file_path"])) for frame in frames]
    there = [(frame, image) for frame, image in found if image is not None]
    absent = len(frames) - len(there)
    if not there:
        first = frames[0]["file_path"]
        raise DataError(
            path,
            "every image",
            f"missing ({absent} listed, first {first})",
            "files next to it",
            "restore the images",
        )
    if absent:
        log.warning("%s: %d of %d listed images do not exist and are skipped.", path, absent, len(frames))
    return there


def frame_poses(path: Path, frames: list[dict[str, Any]]) -> Float[Tensor, "n 3 4"]:
    """Poses in world coordinates with OpenCV axes; raises `DataError` for an invalid one."""
    matrices = [
        validate_pose(frame.get("transform_matrix"), path, f"transform_matrix of {frame['file_path']}")
        for frame in frames
    ]
    return opengl_to_opencv(torch.stack(matrices))


def pinhole_intrinsics(path: Path, field: str, pix2cam: Any) -> list[float]:
    """`fx fy cx cy` of an inverse intrinsic matrix with OpenGL axes; raises `DataError` for other matrices."""
    try:
        matrix = np.asarray(pix2cam, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    fits = matrix.shape == (3, 3) and np.isfinite(matrix).all() and matrix[0, 0] > 0 > matrix[1, 1]
    # Numerically inverted matrices have rounding errors there, far below a thousandth of a pixel.
    if not fits or np.abs(matrix[ZERO_ENTRIES]).max() > 1e-9 or abs(matrix[2, 2] + 1) > 1e-9:
        expected = "[[1/f, 0, -cx/f], [0, -1/f, cy/f], [0, 0, -1]]"
        raise DataError(path, field, "of another form", expected, "undistort the images first")
    fx, fy = 1 / matrix[0, 0], -1 / matrix[1, 1]
    return [float(value) for value in (fx, fy, -matrix[0, 2] * fx, matrix[1, 2] * fy)]


def focal_from_angle(path: Path, values: dict[str, Any], width: int) -> float:
    """Focal length `0.5 W / tan(angle / 2)` [pixels] for the horizontal field of view `camera_angle_x` [radians]."""
    angle = validate_number(values.get("camera_angle_x"), path, "camera_angle_x", positive=True)
    if angle >= math.pi:
        raise DataError(path, "camera_angle_x", f"{angle:g}", "an angle below pi [radians]", "give it in radians")
    return 0.5 * width / math.tan(0.5 * angle)
