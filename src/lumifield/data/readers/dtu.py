"""DTU as IDR and NeuS have it: `image`, `mask`, and projection matrices in `cameras_sphere.npz`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import rq
from torch import Tensor

from lumifield.data import Source, image_files, object_capture
from lumifield.data.capture import CaptureFiles
from lumifield.data.scene import Frame
from lumifield.errors import DataError

LAYOUT = "cameras_sphere.npz (DTU)"
OPTIONS = ("cameras", "object_masks")

MATRIX = re.compile(r"(world|scale)_mat_\d+")
FILES = ("cameras_sphere.npz", "cameras.npz")
# The protocol of MetaNLR++: seven views to learn from and three to judge by, of the 49 that all scans have.
TRAIN, TEST, VIEWS = (1, 9, 17, 25, 33, 41, 47), (12, 32, 40), 49
# How far a lens may be from having none but right angles, and spheres from each other.
TOLERANCE = 1e-3


def matches(folder: Path) -> bool:
    """Whether there are images and projection matrices."""
    return (folder / "image").is_dir() and any(folder.glob("cameras*.npz"))


def open_files(source: Source) -> CaptureFiles:
    """Splits of `splits.json`, else the published ones of 49 views, else those of a hold-out."""
    taken = load_dtu(source)
    return object_capture.open_object(source, taken, dtu_published_split(len(taken.images)))


def dtu_published_split(count: int) -> object_capture.Rows:
    """The rows of each split; val has those that are neither for training nor for the test. Later ones do not count."""
    if count < VIEWS:
        return {}
    rest = [row for row in range(VIEWS) if row not in TRAIN + TEST]
    return {"train": list(TRAIN), "val": rest, "test": list(TEST)}


def load_dtu(source: Source) -> object_capture.ObjectCapture:
    """The images, masks and cameras of a folder; raises `DataError` where they do not fit together."""
    images = _listed(source.data / "image", "images")
    masks = _listed(source.data / "mask", "masks") if (source.data / "mask").is_dir() else [None] * len(images)
    if len(masks) != len(images):
        expected = f"{len(images)}, one for each image"
        raise DataError(source.data / "mask", "number of masks", str(len(masks)), expected, "restore or remove all")
    path = _file(source)
    matrices = _matrices(path)
    lenses, poses = [], []
    for row, image in enumerate(images):
        lens, pose = _decomposed(path, f"world_mat_{row}", _matrix(path, matrices, f"world_mat_{row}", image))
        lenses.append(lens)
        poses.append(pose)
    sphere = _sphere(path, matrices, images)
    return object_capture.ObjectCapture(path, images, masks, torch.stack(lenses), torch.stack(poses), sphere)


def _listed(folder: Path, what: str) -> list[Path]:
    found = image_files.list_images(folder) if folder.is_dir() else []
    if not found:
        raise DataError(folder, "folder", "missing or empty", f"the {what}", "restore the images")
    return found


def _file(source: Source) -> Path:
    """The file that holds the cameras."""
    names = FILES if source.cameras is None else (source.cameras,)
    for name in names:
        if (source.data / name).is_file():
            return source.data / name
    raise DataError(source.data / names[0], "file", "missing", "the cameras of the images", "restore it")


def _matrices(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if MATRIX.fullmatch(name)}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise DataError(path, "content", f"no arrays ({error})", "a .npz file", "write the file again") from None


def _matrix(path: Path, matrices: dict[str, np.ndarray], name: str, image: Path) -> Float[np.ndarray, "4 4"]:
    if name not in matrices:
        fix = "restore it or remove the image"
        raise DataError(path, name, "missing", f"the matrix of {image.name}", fix)
    matrix = matrices[name]
    usable = matrix.shape == (4, 4) and np.issubdtype(matrix.dtype, np.number) and np.isfinite(matrix).all()
    if not usable:
        raise DataError(path, name, f"of shape {matrix.shape}", "4x4 finite numbers", "write the file again")
    return matrix.astype(np.float64)


def _decomposed(
    path: Path, name: str, matrix: Float[np.ndarray, "4 4"]
) -> tuple[Float[Tensor, "4"], Float[Tensor, "3 4"]]:
    """`fx fy cx cy` and the pose of a projection `K [R | t]` to pixels with their centers at whole numbers."""
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise DataError(path, name, "singular", "a projection to pixels", "write the file again")
    # A projection holds but for its scale, and sign: that which makes the turn right-handed.
    projection = matrix[:3] * np.sign(np.linalg.det(matrix[:3, :3]))
    lens, turn = rq(projection[:, :3])
    signs = np.diag(np.sign(np.diag(lens)))
    lens, turn = lens @ signs, signs @ turn
    lens = lens / lens[2, 2]
    if abs(lens[0, 1]) > TOLERANCE * lens[0, 0]:
        found, expected = f"a skew of {lens[0, 1]:g} pixels", "none"
        raise DataError(path, f"lens of {name}", found, expected, "resample the images")
    position = -np.linalg.solve(projection[:, :3], projection[:, 3])
    values = [lens[0, 0], lens[1, 1], lens[0, 2] + 0.5, lens[1, 2] + 0.5]
    return torch.tensor(values, dtype=torch.float64), torch.from_numpy(np.concatenate([turn.T, position[:, None]], 1))


def _sphere(path: Path, matrices: dict[str, np.ndarray], images: list[Path]) -> Frame | None:
    """The frame of the sphere that holds the object; None where no image has its matrix."""
    if not any(name.startswith("scale_mat_") for name in matrices):
        return None
    found = [_matrix(path, matrices, f"scale_mat_{row}", image) for row, image in enumerate(images)]
    first = found[0]
    for row, matrix in enumerate(found):
        if not np.allclose(matrix, first, rtol=TOLERANCE):
            fix = "give all images the same matrix"
            raise DataError(path, f"scale_mat_{row}", "another than scale_mat_0", "the sphere of the object", fix)
    return object_capture.similarity_frame(path, "scale_mat_0", first)
