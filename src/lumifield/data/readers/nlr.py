"""NLR's captures: `rgb`, `mattes`, and `calib_export.yaml` with the cameras; images may differ in size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, image_files, object_capture
from lumifield.data.capture import CaptureFiles
from lumifield.errors import DataError
from lumifield.geometry.poses import validate_pose

LAYOUT = "calib_export.yaml (NLR)"
OPTIONS = ("object_masks",)

FILE = "calib_export.yaml"
# The images to learn from, of the 22 of a capture: those of the best cameras.
TRAIN, VIEWS = range(16, 22), 22

Calibration = dict[str, Any]


def matches(folder: Path) -> bool:
    """Whether there is a calibration."""
    return (folder / FILE).is_file()


def open_files(source: Source) -> CaptureFiles:
    """Splits of `splits.json`, else the published ones of 22 images, else those of a hold-out."""
    taken = load_nlr(source)
    return object_capture.open_object(source, taken, nlr_published_split(len(taken.images)))


def nlr_published_split(count: int) -> object_capture.Rows:
    """The rows of each split."""
    return {"train": list(TRAIN), "test": list(range(TRAIN.start))} if count == VIEWS else {}


def load_nlr(source: Source) -> object_capture.ObjectCapture:
    """The images, mattes and cameras of a folder; raises `DataError` where they do not fit together."""
    folder, path = source.data / "rgb", source.data / FILE
    images = image_files.list_images(folder) if folder.is_dir() else []
    if not images:
        raise DataError(folder, "folder", "missing or empty", "the images", "restore the images")
    names = [image.stem.removesuffix("_rgb") for image in images]
    calibrations = _calibrations(path)
    known = [_named(calibrations, name, path) for name in names]
    lenses = torch.stack([_lens(path, name, one) for name, one in zip(names, known, strict=True)])
    poses = torch.stack([_pose(path, name, one) for name, one in zip(names, known, strict=True)])
    return object_capture.ObjectCapture(
        path, images, _mattes(source.data / "mattes", names), lenses, poses, sphere=None
    )


def _mattes(folder: Path, names: list[str]) -> list[Path | None]:
    if not folder.is_dir():
        return [None] * len(names)
    found = [folder / f"{name}_mask.png" for name in names]
    for path in found:
        if not path.is_file():
            raise DataError(path, "matte", "missing", "one for each image", "restore it or remove all of them")
    return list(found)


def _calibrations(path: Path) -> Calibration:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, "file", "missing", "the cameras of the images", "restore it") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(path, "content", f"no YAML ({reason})", "a camera an image", "write the file again") from None
    if not isinstance(content, dict):
        raise DataError(path, "content", "no table", "a camera an image", "write the file again")
    return content


def _named(calibrations: Calibration, name: str, path: Path) -> Calibration:
    """The camera of an image, which is listed with `_rgb` or without."""
    found = calibrations.get(name, calibrations.get(f"{name}_rgb"))
    if not isinstance(found, dict):
        raise DataError(path, f"camera {name}", "missing", "intrinsics and extrinsics", "add it or remove the image")
    return found


def _lens(path: Path, name: str, camera: Calibration) -> Float[Tensor, "4"]:
    """`fx fy cx cy` of a camera matrix to pixels whose centers are whole numbers."""
    stated = camera.get("intrinsics")
    try:
        matrix = np.asarray(stated["camera_matrix"] if isinstance(stated, dict) else None, dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        matrix = np.zeros(0)
    form = matrix.shape == (3, 3) and np.isfinite(matrix).all() and (matrix[[0, 1, 2, 2], [1, 0, 0, 1]] == 0).all()
    if not form or matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or matrix[2, 2] != 1:
        expected = "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"
        raise DataError(path, f"camera_matrix of {name}", "of another form", expected, "undistort the images first")
    return torch.tensor([matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5], dtype=torch.float64)


def _pose(path: Path, name: str, camera: Calibration) -> Float[Tensor, "3 4"]:
    """The pose of a camera whose matrix from world to camera is stated."""
    inverse = validate_pose(camera.get("extrinsics"), path, f"extrinsics of {name}")
    turn = inverse[:, :3].T
    return torch.cat([turn, -turn @ inverse[:, 3:]], 1)
