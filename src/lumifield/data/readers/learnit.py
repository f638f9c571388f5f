"""Landmarks of learnit: `images`, and arrays with pose, inverse intrinsics and depth range of each image."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views, image_files, split_listing, transforms_file
from lumifield.data.capture import CaptureFiles
from lumifield.data.npy_files import load_array, validate_bounds
from lumifield.data.pose_normalization import frame_to_float32
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import opengl_to_opencv, validate_pose

LAYOUT = "c2w_mats.npy (learnit)"

SPLITS = ("train", "val", "test")
# Scene units per world unit, and factors of the stated near and far depth.
UNIT, NEAR, FAR = 0.05, 0.9, 1.2
# Half extent of the region of interest for which this scale is kept [scene units]; structure from motion has no scale.
MIN_REACH, MAX_REACH = 0.1, 10.0
# Number of test images at the beginning, and of val images after them.
TEST, VAL = 20, 5
# Percentage of the points at middle depth of all images inside the region of interest.
CORE_PERCENTILE = 90.0
# Maximum plausible offset of a principal point relative to the image size.
MAX_CENTER_OFFSET = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LearnitArrays:
    """All images, their full-size cameras, and near and far depth of each [world units]."""

    paths: list[Path]
    c2w: Float[Tensor, "n 3 4"]
    lenses: Float[Tensor, "n 4"]
    bounds: Float[Tensor, "n 2"]


def matches(folder: Path) -> bool:
    """Whether there is an array of poses."""
    return (folder / "c2w_mats.npy").is_file()


def open_files(source: Source) -> CaptureFiles:
    """Splits of a .tsv file, else those of learnit by position, or of a hold-out; scene axes are the world axes.

    The bounds are the stated depths, whether rays use them as z-depth, as learnit does, or as distance.
    """
    taken = load_learnit(source.data)
    path = split_listing.find_split_listing(source.data)
    named = None if path is None else split_listing.read_split_listing(path)
    if path is not None:
        held_out_views.reject_hold_out(source, path)
    box = _core(taken)

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        rows = _rows(source, split, taken) if path is None or named is None else _listed(path, named, split, taken)
        return _scene(source, taken, rows, box)

    if named is not None:
        return CaptureFiles(tuple(split for split in SPLITS if split in named.values()), locate)
    return CaptureFiles(SPLITS if source.hold_out == "auto" else held_out_views.split_names(source), locate)


def _scene(
    source: Source, taken: LearnitArrays, rows: list[int], box: Float[Tensor, "2 3"]
) -> tuple[Scene, image_files.ImageFiles]:
    unit = _unit(box)
    frame = Frame(torch.eye(3), torch.zeros(3), 1 / unit)
    files = image_files.read_headers([taken.paths[row] for row in rows])
    _warn_of_center_offsets(taken, rows, files)
    c2w, lenses, bounds = taken.c2w[rows], taken.lenses[rows].float(), taken.bounds[rows].float() * unit
    scene = Scene(
        cameras=Cameras(
            c2w=frame.poses_to_scene(c2w.float()),
            focal=lenses[:, :2],
            center=lenses[:, 2:],
            size=torch.tensor(files.sizes),
            distortion=torch.zeros(len(rows), 4),
        ).resized(1 / source.downscale),
        names=tuple(path.name for path in files.paths),
        near=bounds[:, 0],
        far=bounds[:, 1],
        box=box * unit,
        frame=frame_to_float32(frame),
        background=image_files.resolve_background(files, source.background),
        unbounded=True,
    )
    return scene, files


def load_learnit(folder: Path) -> LearnitArrays:
    """Reads the arrays of a folder; raises `DataError` for a missing, damaged or inconsistent one."""
    paths = image_files.list_images(folder / "images") if (folder / "images").is_dir() else []
    if not paths:
        raise DataError(folder / "images", "folder", "missing or empty", "the images", "restore the images")
    n = len(paths)
    poses = _array(folder / "c2w_mats.npy", n, ((3, 4), (4, 4)))
    inverses = _array(folder / "kinv_mats.npy", n, ((3, 3),))
    bounds = _array(folder / "bds.npy", n, ((2,),))
    named = [(row, path.name) for row, path in enumerate(paths)]
    return LearnitArrays(
        paths,
        opengl_to_opencv(
            torch.stack([validate_pose(poses[r], folder / "c2w_mats.npy", f"pose of {name}") for r, name in named])
        ),
        torch.tensor(
            [
                transforms_file.pinhole_intrinsics(folder / "kinv_mats.npy", f"matrix of {name}", inverses[r])
                for r, name in named
            ]
        ),
        validate_bounds(bounds * (NEAR, FAR), folder / "bds.npy"),
    )


def _array(path: Path, count: int, shapes: tuple[tuple[int, ...], ...]) -> Float[np.ndarray, "n ..."]:
    array = load_array(path, "an array of learnit's images")
    if array.ndim == 0 or array.shape[1:] not in shapes or not np.issubdtype(array.dtype, np.number):
        expected = " or ".join("x".join(map(str, ("N", *shape))) for shape in shapes)
        raise DataError(path, "array", f"of shape {array.shape}", f"{expected} numbers", "write the file again")
    if len(array) != count:
        fix = "restore the images that were posed and remove all others"
        raise DataError(path, "number of rows", str(len(array)), f"{count}, one for each image in images", fix)
    return array.astype(np.float64)


def _listed(path: Path, named: dict[str, str], split: str, taken: LearnitArrays) -> list[int]:
    """Rows of the images that a .tsv file assigns to a split; raises `DataError` for a missing image."""
    existing = {image.name for image in taken.paths}
    for name in named:
        if name not in existing:
            fix = "restore it or empty its split"
            raise DataError(path, f"image {name}", "missing", "an image in images", fix)
    return [row for row, image in enumerate(taken.paths) if named.get(image.name) == split]


def _rows(source: Source, split: str, taken: LearnitArrays) -> list[int]:
    """Rows of a split by position, or of a hold-out."""
    if source.hold_out != "auto":
        return held_out_views.split_rows(source, split, taken.c2w[:, :, 3])
    n = len(taken.paths)
    if n <= TEST + VAL:
        expected = f"more than {TEST + VAL}: the first {TEST} are test, the next {VAL} val"
        raise DataError(source.data, "number of images", str(n), expected, "use hold_out every-8th or add a .tsv list")
    return list({"test": range(TEST), "val": range(TEST, TEST + VAL), "train": range(TEST + VAL, n)}[split])


def _warn_of_center_offsets(taken: LearnitArrays, rows: list[int], files: image_files.ImageFiles) -> None:
    """Warns if principal points suggest that rows and images, which correspond by order, do not match."""
    size = torch.tensor(files.sizes)
    off = ((taken.lenses[rows, 2:] - size / 2).abs() > MAX_CENTER_OFFSET * size).any(-1)
    if bool(off.any()):
        first = files.paths[int(off.nonzero()[0, 0])].name
        text = "%s: %d of %d principal points lie far from the middle of the image (first: %s); are all images there?"
        log.warning(text, taken.paths[0].parent, int(off.sum()), len(rows), first)


def _unit(box: Float[Tensor, "2 3"]) -> float:
    """Scene units per world unit: that of learnit, or the one that scales the region of interest to [-1, 1]^3."""
    reach = float(box[1, 0] - box[0, 0]) / 2
    return UNIT if reach == 0 or MIN_REACH <= reach * UNIT <= MAX_REACH else 1 / reach


def _core(taken: LearnitArrays) -> Float[Tensor, "2 3"]:
    """Cube around the points at the geometric mean of the bounds of all images [world units]."""
    n = len(taken.paths)
    # Image centers, and points half-way to the edges.
    share = torch.tensor([[0, 0], [-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
    across = share * (taken.lenses[:, 2:] / taken.lenses[:, :2])[:, None]
    local = torch.cat([across, torch.ones(n, len(share), 1)], -1) * taken.bounds.prod(-1).sqrt()[:, None, None]
    places = (taken.c2w[:, None, :, :3] @ local.double()[..., None])[..., 0] + taken.c2w[:, None, :, 3]
    flat = places.reshape(-1, 3)
    middle = flat.median(0).values
    reach = torch.quantile((flat - middle).abs().amax(-1), CORE_PERCENTILE / 100)
    return torch.stack([middle - reach, middle + reach]).float()
