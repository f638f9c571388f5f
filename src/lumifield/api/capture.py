"""Posed images of one split of a capture, with cameras in world coordinates."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import Frame, Scene
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import look_at
from lumifield.geometry.rays import camera_rays


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera in world coordinates: OpenCV axes (x right, y down, z forward), pixel centers at half-integers.

    `c2w` is camera-to-world; `focal` and `center` are in pixels; `size` is width and height; `distortion` is k1, k2,
    p1, p2 of OpenCV's model. `bounds` are near and far of the rays [scene units]; None takes those of the nearest
    training views.
    """

    c2w: Float[np.ndarray, "3 4"]
    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    name: str = ""
    bounds: tuple[float, float] | None = None

    @staticmethod
    def look_at(
        position: Sequence[float],
        target: Sequence[float],
        *,
        fov: float,
        size: tuple[int, int],
        up: Sequence[float] = (0.0, 0.0, 1.0),
    ) -> Camera:
        """A pinhole camera at `position` looking at `target`; `fov` is the vertical field of view [degrees]."""
        where = torch.tensor([list(position)], dtype=torch.float64)
        forward = torch.tensor([list(target)], dtype=torch.float64) - where
        c2w = look_at(where, forward, torch.tensor(list(up), dtype=torch.float64))[0].numpy()
        focal = size[1] / 2 / math.tan(math.radians(fov) / 2)
        return Camera(c2w, (focal, focal), (size[0] / 2, size[1] / 2), size)

    @property
    def intrinsics(self) -> Float[np.ndarray, "3 3"]:
        """Intrinsic matrix K."""
        (fx, fy), (cx, cy) = self.focal, self.center
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    @property
    def position(self) -> Float[np.ndarray, "3"]:
        """Camera center in world coordinates."""
        return self.c2w[:, 3]

    def rays(self) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]]:
        """Origins and unit directions of the rays through all pixel centers, in world coordinates."""
        width, height = self.size
        cameras = scene_cameras([self], Frame.identity())
        column, row = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
        pixels = torch.stack([column, row], -1).reshape(-1, 2)
        ends = torch.tensor([1.0])
        rays = camera_rays(cameras, torch.zeros(len(pixels), dtype=torch.int64), pixels, 0 * ends, ends)
        shape = (height, width, 3)
        return rays.origins.reshape(shape).numpy(), rays.directions.reshape(shape).numpy()

    def resized(self, width: int, height: int) -> Camera:
        """The same view with another image size."""
        scale = width / self.size[0], height / self.size[1]
        return replace(
            self,
            focal=(self.focal[0] * scale[0], self.focal[1] * scale[1]),
            center=(self.center[0] * scale[0], self.center[1] * scale[1]),
            size=(width, height),
        )


class LoadedScene:
    """One split of a capture: cameras in world coordinates, and images as numpy arrays on request."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.cameras = world_cameras(scene)

    def __len__(self) -> int:
        return len(self.cameras)

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the images."""
        return self.scene.names

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """One image as read from disk, RGB or RGBA."""
        assert self.scene.images is not None
        return self.scene.images.image(index, self.scene.size(index)).cpu().numpy()

    def ground_truth(self, index: int) -> Float[np.ndarray, "h w 3"]:
        """One image over its background, RGB in [0, 1], as views are compared with."""
        return self.scene.ground_truth(index).cpu().numpy()


def load_scene(
    path: str | os.PathLike[str] | Source,
    split: str = "train",
    *,
    downscale: int | None = None,
    format: str | None = None,
) -> LoadedScene:
    """Reads the images and cameras of one split of a capture; the format is detected.

    `downscale` divides width and height. Further options are fields of `Source`. Raises `DataError` for unusable data.
    """
    return LoadedScene(data.read_scene(resolve_source(path, downscale=downscale, format=format), split))


def resolve_source(path: str | os.PathLike[str] | Source, **options: object) -> Source:
    """A `Source` from a path or a `Source`, with the options that are not None."""
    source = path if isinstance(path, Source) else Source(Path(path))
    return replace(source, **{name: value for name, value in options.items() if value is not None})


def world_cameras(scene: Scene) -> tuple[Camera, ...]:
    """Cameras of a scene in the world coordinates of its data."""
    rotation, translation, scale = double_frame(scene.frame)
    cameras, found = scene.cameras, []
    for row, c2w in enumerate(cameras.c2w.double().cpu().numpy()):
        world = np.concatenate([rotation @ c2w[:, :3], (scale * rotation @ c2w[:, 3] + translation)[:, None]], 1)
        found.append(
            Camera(
                c2w=world,
                focal=tuple(cameras.focal[row].tolist()),
                center=tuple(cameras.center[row].tolist()),
                size=tuple(cameras.size[row].tolist()),
                distortion=tuple(cameras.distortion[row].tolist()),
                name=scene.names[row],
                bounds=(float(scene.near[row]), float(scene.far[row])),
            )
        )
    return tuple(found)


def scene_cameras(cameras: Sequence[Camera], frame: Frame) -> Cameras:
    """World cameras in the coordinates of a scene; the inverse of `world_cameras`."""
    rotation, translation, scale = double_frame(frame)
    c2w = np.stack([np.asarray(camera.c2w, np.float64) for camera in cameras])
    inverse = np.linalg.inv(rotation)  # exact to double precision, unlike the transpose of a float32 rotation
    position = (c2w[..., 3] - translation) @ inverse.T / scale
    poses = np.concatenate([inverse @ c2w[..., :3], position[..., None]], -1)

    def column(name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([getattr(camera, name) for camera in cameras], dtype=dtype)

    return Cameras(
        c2w=torch.from_numpy(poses).float(),
        focal=column("focal", torch.float32),
        center=column("center", torch.float32),
        size=column("size", torch.int64),
        distortion=column("distortion", torch.float32),
    )


def double_frame(frame: Frame) -> tuple[np.ndarray, np.ndarray, float]:
    """Rotation, translation and scale of a frame in double precision, so that poses survive a round trip."""
    return frame.rotation.double().cpu().numpy(), frame.translation.double().cpu().numpy(), float(frame.scale)
