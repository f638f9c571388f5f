"""Structure from motion: images with poses and lenses, and the points that each of them sees, become a scene."""

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

# The bounds of an image are these percentiles of the distances of the points that it sees (NeRF-W).
BOUND_PERCENTILES = (0.1, 99.9)
NEAR_MARGIN = 0.9
# An image that sees fewer points than these has the widest bounds of all others.
ENOUGH = 10
# The cube of half side 1 holds this percentage of all points.
CORE_PERCENTILE = 90.0


@dataclass(frozen=True)
class PinholeImage:
    """Focal lengths, center, size [pixels] and distortion of the camera that an image is read with.

    Where the image is resampled for that, `straight` says how.
    """

    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    undistortion: Undistortion | None = None

    @staticmethod
    def resampled(undistortion: Undistortion) -> PinholeImage:
        """The pinhole camera that an image is resampled for."""
        return PinholeImage(undistortion.focal, undistortion.center, undistortion.size, undistortion=undistortion)


@runtime_checkable
class Calibration(Protocol):
    """What is known about the camera that took an image."""

    def optics(self, path: Path, size: tuple[int, int]) -> PinholeImage:
        """For the image file `path` of `size`; raises `DataError` where it cannot be from this camera."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """A world of images, of points, and of the rows of points that each image sees.

    `path` is the file to name in errors; `names` are unique.
    """

    path: Path
    names: tuple[str, ...]
    images: tuple[Path, ...]
    c2w: Float[Tensor, "n 3 4"]
    calibrations: tuple[Calibration, ...]
    points: Float[np.ndarray, "p 3"]
    seen: tuple[Int[np.ndarray, " _"], ...]

    def trusted(self) -> Reconstruction:
        """The same without points that fewer than two images see, which no geometry holds in place.

        Raises `DataError` where no point remains.
        """
        views = np.zeros(len(self.points), np.int64)
        for rows in self.seen:
            views[np.unique(rows)] += 1
        if not (views >= 2).any():
            raise DataError(
                self.path,
                "longest track of a point",
                f"of length {views.max(initial=0)}",
                "points that two or more images see",
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
    """The space of a capture about something: the cube holds the cameras, which look at its middle, and far is endless.

    Near follows from the nearest points that images see, as percentiles.
    """
    frame = inward_frame(taken.c2w)
    if len(taken.points) == 0:
        return _pointless(taken, frame)
    near, far = _percentiles(taken.trusted())
    return SceneExtent(frame, inward_near(taken.c2w, near), torch.full_like(far, FAR_UNBOUNDED * frame.scale))


def core_extent(taken: Reconstruction) -> SceneExtent:
    """The space of images from anywhere: the cube holds 90 % of the points, and bounds are percentiles (NeRF-W).

    Its origin is the median of the points. Without points the space follows from the poses alone.
    """
    if len(taken.points) == 0:
        return _pointless(taken, inward_frame(taken.c2w))
    taken = taken.trusted()
    near, far = _percentiles(taken)
    return SceneExtent(core_frame(taken.c2w, torch.from_numpy(taken.points)), NEAR_MARGIN * near, far)


def scene_from_reconstruction(
    source: Source, taken: Reconstruction, rows: list[int], space: SceneExtent
) -> tuple[Scene, image_files.ImageFiles]:
    """The images of these rows without their pixels, and the files that hold them; beyond the cube of half side 1
    space is contracted. The space follows from all images.
    """
    files = image_files.read_headers([taken.images[row] for row in rows])
    shown = zip(rows, files.paths, files.sizes, strict=True)
    optics = [taken.calibrations[row].optics(path, size) for row, path, size in shown]
    frame = space.frame
    found = Scene(
        cameras=Cameras(
            c2w=frame.poses_to_scene(taken.c2w[rows]).float(),
            focal=torch.tensor([one.focal for one in optics]),
            center=torch.tensor([one.center for one in optics]),
            size=torch.tensor([one.size for one in optics]),
            distortion=torch.tensor([one.distortion for one in optics]),
        ).resized(1 / source.downscale),
        names=tuple(taken.names[row] for row in rows),
        near=(space.near[rows] / frame.scale).float(),
        far=(space.far[rows] / frame.scale).float(),
        box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        frame=frame_to_float32(frame),
        background=image_files.resolve_background(files, source.background),
        unbounded=True,
    )
    return found, files.with_undistortion([one.undistortion for one in optics])


def _pointless(taken: Reconstruction, frame: Frame) -> SceneExtent:
    one = torch.full((len(taken.names),), frame.scale, dtype=torch.float64)
    return SceneExtent(frame, NEAR * one, FAR_UNBOUNDED * one)


def core_frame(c2w: Float[Tensor, "n 3 4"], points: Float[Tensor, "p 3"]) -> Frame:
    """Origin in the median of the points, +z the cameras' common up; 90 % of the points in the cube of half side 1."""
    up = estimate_up(c2w)
    x = orthogonal_vector(up)
    rotation = torch.stack([x, torch.linalg.cross(up, x), up], -1)
    turned = (points @ rotation).numpy()
    middle = np.median(turned, 0)
    reach = float(np.percentile(np.abs(turned - middle).max(-1), CORE_PERCENTILE))
    return Frame(rotation, rotation @ torch.from_numpy(middle), reach if reach > 0 else 1.0)


def _percentiles(taken: Reconstruction) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The nearest and farthest point that each image sees, as percentiles of their distances [world units]."""
    near, far = np.full((2, len(taken.names)), np.nan)
    for row, (seen, position) in enumerate(zip(taken.seen, taken.c2w[:, :, 3].numpy(), strict=True)):
        if len(seen) >= ENOUGH:
            distance = np.linalg.norm(taken.points[seen] - position, axis=-1)
            near[row], far[row] = np.percentile(distance, BOUND_PERCENTILES)
    if np.isnan(near).all():
        most = max(map(len, taken.seen))
        expected = f"{ENOUGH} or more in some image"
        raise DataError(taken.path, "number of points that an image sees", str(most), expected, "add images")
    near, far = np.where(np.isnan(near), np.nanmin(near), near), np.where(np.isnan(far), np.nanmax(far), far)
    return torch.from_numpy(near), torch.from_numpy(far)
