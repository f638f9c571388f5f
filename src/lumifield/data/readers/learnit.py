"""learnit's landmarks: `images`, and arrays of poses, inverse intrinsics and depths with a row for each of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views, image_files, transforms_file
from lumifield.data.npy_files import load_array, validate_bounds
from lumifield.data.pose_normalization import frame_to_float32
from lumifield.data.reader import Reader
from lumifield.data.readers import phototourism
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import opengl_to_opencv, validate_pose

SPLITS = ("train", "val", "test")
# One world unit is so many scene units, and the stated depths are widened by these factors.
UNIT, NEAR, FAR = 0.05, 0.9, 1.2
# Scene units in half a side of the region of interest, as networks can see it: structure from motion knows no size.
MIN_REACH, MAX_REACH = 0.1, 10.0
# The first images are the test, the next ones val.
TEST, VAL = 20, 5
# The cube that is the region of interest holds this percentage of the places at middle depth in all images.
CORE_PERCENTILE = 90.0
# A principal point is at most this share of the image away from its middle.
SHIFT = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Capture:
    """All images, their cameras at full size, and between which depths [world units] each sees anything."""

    paths: list[Path]
    c2w: Float[Tensor, "n 3 4"]
    lenses: Float[Tensor, "n 4"]
    bounds: Float[Tensor, "n 2"]


def learnit_splits(source: Source) -> tuple[str, ...]:
    """Those of a .tsv file; without one learnit's own by position, or as `hold_out` asks."""
    if phototourism.find_split_listing(source.data) is not None:
        return phototourism.phototourism_splits(source)
    return SPLITS if source.hold_out == "auto" else held_out_views.split_names(source)


def learnit_cameras(source: Source, split: str) -> tuple[Scene, image_files.ImageFiles]:
    """One split without its pixels, and the files that hold them; scene axes are those of the world.

    The bounds follow from the stated depths whether rays take them as depths, as learnit's do, or as distances.
    """
    taken = load_learnit(source.data)
    box = _core(taken)
    unit = _unit(box)
    frame = Frame(torch.eye(3), torch.zeros(3), 1 / unit)
    rows = _rows(source, split, taken)
    files = image_files.read_headers([taken.paths[row] for row in rows])
    _warn_of_shifts(taken, rows, files)
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


def load_learnit(folder: Path) -> Capture:
    """The arrays of a folder; raises `DataError` for one that is missing, broken or of another length."""
    paths = image_files.list_images(folder / "images") if (folder / "images").is_dir() else []
    if not paths:
        raise DataError(folder / "images", "folder", "missing or empty", "the images", "restore the images")
    n = len(paths)
    poses = _array(folder / "c2w_mats.npy", n, ((3, 4), (4, 4)))
    inverses = _array(folder / "kinv_mats.npy", n, ((3, 3),))
    bounds = _array(folder / "bds.npy", n, ((2,),))
    named = [(row, path.name) for row, path in enumerate(paths)]
    return Capture(
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


def _rows(source: Source, split: str, taken: Capture) -> list[int]:
    listing = phototourism.find_split_listing(source.data)
    if listing is not None:
        named = phototourism.read_split_listing(listing)
        there = {path.name for path in taken.paths}
        for name in named:
            if name not in there:
                fix = "restore it or empty its split"
                raise DataError(listing, f"image {name}", "missing", "an image in images", fix)
        return [row for row, path in enumerate(taken.paths) if named.get(path.name) == split]
    if source.hold_out != "auto":
        return held_out_views.split_rows(source, split, taken.c2w[:, :, 3])
    n = len(taken.paths)
    if n <= TEST + VAL:
        expected = f"more than {TEST + VAL}, as the first {TEST} are the test and the next {VAL} val"
        raise DataError(source.data, "number of images", str(n), expected, "use hold_out every-8th or add a .tsv list")
    return list({"test": range(TEST), "val": range(TEST, TEST + VAL), "train": range(TEST + VAL, n)}[split])


def _warn_of_shifts(taken: Capture, rows: list[int], files: image_files.ImageFiles) -> None:
    """Says so where rows and images, which only their order connects, seem not to belong together."""
    size = torch.tensor(files.sizes)
    off = ((taken.lenses[rows, 2:] - size / 2).abs() > SHIFT * size).any(-1)
    if bool(off.any()):
        first = files.paths[int(off.nonzero()[0, 0])].name
        text = "%s: %d of %d principal points lie far from the middle of the image (first: %s); are all images there?"
        log.warning(text, taken.paths[0].parent, int(off.sum()), len(rows), first)


def _unit(box: Float[Tensor, "2 3"]) -> float:
    """learnit's scale of the world, or the one at which the region of interest reaches 1 to each side of its middle."""
    reach = float(box[1, 0] - box[0, 0]) / 2
    return UNIT if reach == 0 or MIN_REACH <= reach * UNIT <= MAX_REACH else 1 / reach


def _core(taken: Capture) -> Float[Tensor, "2 3"]:
    """The cube [world units] about what the images show at the geometric mean of their bounds."""
    n = len(taken.paths)
    # The middles of the images, and places half-way to their edges.
    share = torch.tensor([[0, 0], [-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
    across = share * (taken.lenses[:, 2:] / taken.lenses[:, :2])[:, None]
    local = torch.cat([across, torch.ones(n, len(share), 1)], -1) * taken.bounds.prod(-1).sqrt()[:, None, None]
    places = (taken.c2w[:, None, :, :3] @ local.double()[..., None])[..., 0] + taken.c2w[:, None, :, 3]
    flat = places.reshape(-1, 3)
    middle = flat.median(0).values
    reach = torch.quantile((flat - middle).abs().amax(-1), CORE_PERCENTILE / 100)
    return torch.stack([middle - reach, middle + reach]).float()


READER = Reader(splits=learnit_splits, cameras=learnit_cameras)
