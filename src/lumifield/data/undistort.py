"""Distortion models that `Cameras` does not represent: images are resampled to a pinhole camera when decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import map_coordinates

# Minimum derivative of the distorted radius at the image corners for the distortion to be invertible.
MIN_DERIVATIVE = 0.05


@runtime_checkable
class Lens(Protocol):
    """A projection with distortion."""

    def pixels(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Projects points of the plane at depth 1 [pixels]."""
        ...


@dataclass(frozen=True)
class Radial:
    """Radial distortion of VisualSFM: a measured point `m` (over the focal length) shows `(1 + radial |m|^2) m`."""

    focal: float
    center: tuple[float, float]
    radial: float

    def pixels(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Projects points of the plane at depth 1, with Newton's method for the measured radius."""
        radius = np.linalg.norm(points, axis=-1, keepdims=True)
        measured = radius
        for _ in range(20):
            derivative = 1 + 3 * self.radial * measured**2
            measured = measured - (measured * (1 + self.radial * measured**2) - radius) / derivative
        return points * (measured / np.maximum(radius, 1e-12)) * self.focal + self.center

    def is_invertible(self, size: tuple[int, int]) -> bool:
        """Whether the distortion is injective over an image of `size`."""
        reach = (np.hypot(*size) / 2 / self.focal) ** 2
        return bool(1 + 3 * self.radial * reach > MIN_DERIVATIVE)

    def with_undistortion(self, size: tuple[int, int]) -> Undistortion:
        """The largest pinhole image of the same focal length that an image of `size` covers completely."""
        half = np.array(size) / 2 / self.focal
        # The limiting rays are those of the midpoints of the sides if the distortion widens, else those of the corners.
        reach = half**2 if self.radial >= 0 else (half**2).sum()
        width, height = np.floor(2 * self.focal * half * (1 + self.radial * reach) + 1e-6).astype(int).tolist()
        focal = (self.focal, self.focal)
        return Undistortion(self, focal, (width / 2, height / 2), (width, height))


@dataclass(frozen=True)
class Undistortion:
    """Resampling of an image taken through `lens` to a pinhole camera; all lengths in pixels."""

    lens: Lens
    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]

    def key(self) -> tuple[object, ...]:
        """Values that identify it: the pinhole camera and the projection of a grid of points."""
        share = np.stack(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9)), -1).reshape(-1, 2)
        seen = self.lens.pixels((share * self.size - self.center) / self.focal)
        return self.focal, self.center, self.size, seen.tobytes()

    def apply(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "rows columns c"]:
        """The image of the pinhole camera, bilinearly interpolated."""
        width, height = self.size
        x = (np.arange(width) + 0.5 - self.center[0]) / self.focal[0]
        y = (np.arange(height) + 0.5 - self.center[1]) / self.focal[1]
        points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        place = (self.lens.pixels(points).T[::-1] - 0.5).reshape(2, height, width)
        bands = [
            map_coordinates(image[..., c], place, np.float32, order=1, mode="nearest") for c in range(image.shape[-1])
        ]
        return np.rint(np.stack(bands, -1)).astype(np.uint8)
