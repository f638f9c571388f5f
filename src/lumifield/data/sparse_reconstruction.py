"""Scenes from structure from motion: posed images, calibrations, and the 3D points that each image observes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lumifield.data import Source, image_files
from lumifield.data.pose_normalization import frame_to_float32, inward_frame, inward_near
from lumifield.data.readers.transforms import FAR_UNBOUNDED, NEAR
from lumifield.data.scene import Frame, Scene
from lumifield.data.undistort import Undistortion
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import estimate_up, orthogonal_vector

# Bounds of an image: percentiles of the distances of its points (NeRF-W).
BOUND_PERCENTILES = (0.1, 99.9)
NEAR_MARGIN = 0.9
# Images with fewer points get the widest bounds of all others.
MIN_POINTS = 10
# Percentage of all points inside [-1, 1]^3.
CORE_PERCENTILE = 90.0


@dataclass(frozen=True)
class PinholeImage:
    """Focal lengths, principal point, size [pixels] and distortion of an image as it is read.

    `undistortion` is the resampling on decoding, if any.
    """

    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    undistortion: Undistortion | None = None

    @staticmethod
    def resampled(undistortion: Undistortion) -> PinholeImage:
        """The camera of a resampled image."""
        return PinholeImage(undistortion.focal, undistortion.center, undistortion.size, undistortion=undistortion)


@runtime_checkable
class Calibration(Protocol):
    """Intrinsics of an image in a camera model of a reconstruction."""

    def intrinsics(self, path: Path, size: tuple[int, int]) -> PinholeImage:
        """Intrinsics for the image file `path` of `size`; raises `DataError` if it does not fit this camera."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """Posed images, points, and the rows of the points that each image observes (`seen`).

    `path` is the file named in errors; `names` are unique.
    """

    path: Path
    names: tuple[str, ...]
    images: tuple[Path, ...]
    c2w: Float[Tensor, "n 3 4"]
    calibrations: tuple[Calibration, ...]
    points: Float[np.ndarray, "p 3"]
    seen: tuple[Int[np.ndarray, " _"], ...]

    def without_short_tracks(self) -> Reconstruction:
        """The reconstruction without points observed by fewer than two images, whose depth is undetermined.

        Raises `DataError` if no point remains.
        """
        views = np.zeros(len(self.points), np.int64)
        for rows in self.seen:
            views[np.unique(rows)] += 1
        if not (views >= 2).any():
            raise DataError(
                self.path,
                "longest track of a point",
                f"of length {views.max(initial=0)}",
                "points observed by two or more images",
                "triangulate the points again",
            )
        place = np.where(views >= 2, np.cumsum(views >= 2) - 1, -1)
        seen = tuple(place[rows][place[rows] >= 0] for rows in self.seen)
        return Reconstruction(
            self.path, self.names, self.images, self.c2w, self.calibrations, self.points[views >= 2], seen
        )


@dataclass(frozen=True)
class SceneExtent:
    """A scene frame, and near and far of each image [world units]."""

    frame: Frame
    near: Float[Tensor, " n"]
    far: Float[Tensor, " n"]


def inward_extent(taken: Reconstruction) -> SceneExtent:
    """Extent of an inward-facing capture: [-1, 1]^3 contains the cameras; the far bound is practically infinite.

    The near bound follows from percentiles of the point distances.
    """
    frame = inward_frame(taken.c2w)
    if len(taken.points) == 0:
        return _extent_without_points(taken, frame)
    near, far = _percentiles(taken.without_short_tracks())
    return SceneExtent(frame, inward_near(taken.c2w, near), torch.full_like(far, FAR_UNBOUNDED * frame.scale))


def core_extent(taken: Reconstruction) -> SceneExtent:
    """Extent of an unstructured collection: [-1, 1]^3 contains 90 % of the points, bounds are percentiles (NeRF-W).

    The origin is the median of the points. Without points the extent follows from the poses alone.
    """
    if len(taken.points) == 0:
        return _extent_without_points(taken, inward_frame(taken.c2w))
    taken = taken.without_short_tracks()
    near, far = _percentiles(taken)
    return SceneExtent(core_frame(taken.c2w, torch.from_numpy(taken.points)), NEAR_MARGIN * near, far)


def scene_from_reconstruction(
    source: Source, taken: Reconstruction, rows: list[int], extent: SceneExtent
) -> tuple[Scene, image_files.ImageFiles]:
    """Cameras and image files of `rows`; the scene is unbounded, with [-1, 1]^3 as region of interest."""
    files = image_files.read_headers([taken.images[row] for row in rows])
    images = zip(rows, files.paths, files.sizes, strict=True)
    intrinsics = [taken.calibrations[row].intrinsics(path, size) for row, path, size in images]
    frame = extent.frame
    found = Scene(
        cameras=Cameras(
            c2w=frame.poses_to_scene(taken.c2w[rows]).float(),
            focal=torch.tensor([one.focal for one in intrinsics]),
            center=torch.tensor([one.center for one in intrinsics]),
            size=torch.tensor([one.size for one in intrinsics]),
            distortion=torch.tensor([one.distortion for one in intrinsics]),
        ).resized(1 / source.downscale),
        names=tuple(taken.names[row] for row in rows),
        near=(extent.near[rows] / frame.scale).float(),
        far=(extent.far[rows] / frame.scale).float(),
        box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        frame=frame_to_float32(frame),
        background=image_files.resolve_background(files, source.background),
        unbounded=True,
    )
    return found, files.with_undistortion([one.undistortion for one in intrinsics])


def _extent_without_points(taken: Reconstruction, frame: Frame) -> SceneExtent:
    one = torch.full((len(taken.names),), frame.scale, dtype=torch.float64)
    return SceneExtent(frame, NEAR * one, FAR_UNBOUNDED * one)


def core_frame(c2w: Float[Tensor, "n 3 4"], points: Float[Tensor, "p 3"]) -> Frame:
    """Origin at the median of the points, +z up, 90 % of the points inside [-1, 1]^3."""
    up = estimate_up(c2w)
    x = orthogonal_vector(up)
    rotation = torch.stack([x, torch.linalg.cross(up, x), up], -1)
    rotated = (points @ rotation).numpy()
    median = np.median(rotated, 0)
    reach = float(np.percentile(np.abs(rotated - median).max(-1), CORE_PERCENTILE))
    return Frame(rotation, rotation @ torch.from_numpy(median), reach if reach > 0 else 1.0)


def _percentiles(taken: Reconstruction) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Near and far percentile of the point distances of each image [world units]."""
    near, far = np.full((2, len(taken.names)), np.nan)
    for row, (seen, position) in enumerate(zip(taken.seen, taken.c2w[:, :, 3].numpy(), strict=True)):
        if len(seen) >= MIN_POINTS:
            distance = np.linalg.norm(taken.points[seen] - position, axis=-1)
            near[row], far[row] = np.percentile(distance, BOUND_PERCENTILES)
    if np.isnan(near).all():
        max_points = max(map(len, taken.seen))
        expected = f"{MIN_POINTS} or more in some image"
        raise DataError(taken.path, "number of points per image", str(max_points), expected, "add images")
    near, far = np.where(np.isnan(near), np.nanmin(near), near), np.where(np.isnan(far), np.nanmax(far), far)
    return torch.from_numpy(near), torch.from_numpy(far)
