"""Cambridge Landmarks: video frames, `reconstruction.nvm` of VisualSFM, and a list of frames per split."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from lumifield.data import Source, held_out_views, image_files, nvm_model, sparse_reconstruction, transforms_file
from lumifield.data.reader import Reader
from lumifield.data.scene import Scene
from lumifield.data.sparse_reconstruction import PinholeImage, Reconstruction
from lumifield.data.undistort import Radial
from lumifield.errors import DataError

SPLITS = ("train", "test", "synthesis")
# Header lines of the published lists.
HEADER = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NvmCamera:
    """Camera of VisualSFM: one focal length [pixels], principal point at the image center, radial distortion."""

    focal: float
    radial: float

    def optics(self, path: Path, size: tuple[int, int]) -> PinholeImage:
        """A pinhole camera, with resampling for distorted images."""
        center = (size[0] / 2, size[1] / 2)
        if self.radial == 0:
            return PinholeImage((self.focal, self.focal), center, size)
        lens = Radial(self.focal, center, self.radial)
        if not lens.is_invertible(size):
            expected = "an invertible distortion"
            raise DataError(path, "radial distortion", f"{self.radial:g}", expected, "reconstruct the scene again")
        return PinholeImage.resampled(lens.with_undistortion(size))


def cambridge_splits(source: Source) -> tuple[str, ...]:
    """Splits with a list."""
    found = tuple(split for split in SPLITS if _list(source, split).is_file())
    if not found:
        raise DataError(source.data, "dataset_train.txt", "missing", "the list of training frames", "restore it")
    held_out_views.reject_hold_out(source, _list(source, found[0]))
    return found


def cambridge_cameras(source: Source, split: str) -> tuple[Scene, image_files.ImageFiles]:
    """Cameras and image files of one split, in the order of its list.

    Poses, focal lengths and distortion are from the model. Listed frames that are not in the model are skipped, and
    their number is logged.
    """
    path = _list(source, split)
    listed = read_image_names(path)
    taken = load_cambridge(source.data)
    row_of = {_plain(name): row for row, name in enumerate(taken.names)}
    rows = [row_of[_plain(name)] for name in listed if _plain(name) in row_of]
    if not rows:
        first = f"{listed[0]} …" if listed else "no frame"
        raise DataError(path, "list", first, "frames of reconstruction.nvm", "give both files of the same scene")
    if len(rows) < len(listed):
        log.warning("%s: %d of %d frames have no pose and are skipped.", path, len(listed) - len(rows), len(listed))
    return sparse_reconstruction.scene_from_reconstruction(
        source, taken, rows, sparse_reconstruction.core_extent(taken)
    )


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
    plain = [_plain(shot.name) for shot in model.shots]
    return Reconstruction(
        path=model.path,
        names=tuple(shot.name for shot in model.shots),
        images=tuple(transforms_file.find_image(folder, name) or folder / f"{name}.png" for name in plain),
        c2w=torch.from_numpy(np.stack([shot.c2w for shot in model.shots])),
        calibrations=tuple(NvmCamera(shot.focal, shot.radial) for shot in model.shots),
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


READER = Reader(splits=cambridge_splits, cameras=cambridge_cameras)
