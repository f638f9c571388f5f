"""Cambridge Landmarks: video frames, `reconstruction.nvm` of VisualSFM, and a list of frames per split."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from lumifield.data import Source, held_out_views, image_files, nvm_model, sparse_reconstruction, transforms_file
from lumifield.data.capture import CaptureFiles
from lumifield.data.scene import Scene
from lumifield.data.sparse_reconstruction import PinholeImage, Reconstruction
from lumifield.data.undistort import Radial
from lumifield.errors import DataError

LAYOUT = "dataset_train.txt (Cambridge)"

SPLITS = ("train", "test", "synthesis")
# Header lines of the published lists.
HEADER = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NvmCamera:
    """Camera of VisualSFM: one focal length [pixels], principal point at the image center, radial distortion."""

    focal: float
    radial: float

    def intrinsics(self, path: Path, size: tuple[int, int]) -> PinholeImage:
        """A pinhole camera, with resampling for distorted images."""
        center = (size[0] / 2, size[1] / 2)
        if self.radial == 0:
            return PinholeImage((self.focal, self.focal), center, size)
        lens = Radial(self.focal, center, self.radial)
        if not lens.is_invertible(size):
            expected = "an invertible distortion"
            raise DataError(path, "radial distortion", f"{self.radial:g}", expected, "reconstruct the scene again")
        return PinholeImage.resampled(lens.with_undistortion(size))


def matches(folder: Path) -> bool:
    """Whether a split has a list."""
    return any((folder / f"dataset_{split}.txt").is_file() for split in SPLITS)


def open_files(source: Source) -> CaptureFiles:
    """The model, with the splits that have a list, in its order.

    Poses, focal lengths and distortion are from the model. Listed frames that are not in the model are skipped, and
    their number is logged.
    """
    splits = tuple(split for split in SPLITS if _list(source, split).is_file())
    if not splits:
        raise DataError(source.data, "dataset_train.txt", "missing", "the list of training frames", "restore it")
    held_out_views.reject_hold_out(source, _list(source, splits[0]))
    taken = load_cambridge(source.data)
    row_of = {_plain(name): row for row, name in enumerate(taken.names)}
    extent = cache(lambda: sparse_reconstruction.core_extent(taken))

    rows_of = cache(lambda split: _listed_rows(_list(source, split), row_of))

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        return sparse_reconstruction.scene_from_reconstruction(source, taken, rows_of(split), extent())

    return CaptureFiles(splits, locate)


def _listed_rows(path: Path, row_of: dict[str, int]) -> list[int]:
    """Rows of the listed frames in the model; raises `DataError` if there are none."""
    listed = read_image_names(path)
    rows = [row_of[_plain(name)] for name in listed if _plain(name) in row_of]
    if not rows:
        first = f"{listed[0]} …" if listed else "no frame"
        raise DataError(path, "list", first, "frames of reconstruction.nvm", "give both files of the same scene")
    if len(rows) < len(listed):
        log.warning("%s: %d of %d frames have no pose and are skipped.", path, len(listed) - len(rows), len(listed))
    return rows


def read_image_names(path: Path) -> list[str]:
    """Frames of a list; raises `DataError` for an invalid line."""
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.rsplit(maxsplit=7)
        if len(words) == 8 and all(map(_is_number, words[1:])):
            found.append(words[0])
        elif number > HEADER and line.strip():
            expected = "a file name, X Y Z and W P Q R"
            raise DataError(path, f"line {number}", "of another form", expected, "correct or remove it")
    return found


def load_cambridge(folder: Path) -> Reconstruction:
    """The model of a scene and its frames, found with any image extension."""
    model = nvm_model.load_nvm(folder / "reconstruction.nvm")
    plain = [_plain(image.name) for image in model.images]
    return Reconstruction(
        path=model.path,
        names=tuple(image.name for image in model.images),
        images=tuple(transforms_file.find_image(folder, name) or folder / f"{name}.png" for name in plain),
        c2w=torch.from_numpy(np.stack([image.c2w for image in model.images])),
        calibrations=tuple(NvmCamera(image.focal, image.radial) for image in model.images),
        points=model.points,
        seen=model.seen,
    )


def _list(source: Source, split: str) -> Path:
    return source.data / f"dataset_{split}.txt"


def _plain(name: str) -> str:
    """The name without extension, which differs between the model (.jpg) and the files (.png)."""
    return str(PurePosixPath(name.replace("\\", "/")).with_suffix(""))


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False
