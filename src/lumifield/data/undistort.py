"""Lenses that `Cameras` cannot say: images are resampled into those of a pinhole camera when they are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import map_coordinates

# A lens whose radius grows slower than this towards the corners can no longer be undone.
STEEPEST = 0.05


@runtime_checkable
class Lens(Protocol):
    """What bends the light."""

    def pixels(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Where points of the plane at depth 1 appear in the image [pixels]."""
        ...


@dataclass(frozen=True)
class Radial:
    """VisualSFM's lens: the measured point `m`, over the focal length, lies at `(1 + radial |m|^2) m` at depth 1."""

    focal: float
    center: tuple[float, float]
    radial: float

    def pixels(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Where points of the plane at depth 1 appear: the measured radius by Newton's method from the true one."""
        true = np.linalg.norm(points, axis=-1, keepdims=True)
        seen = true
        for _ in range(20):
            slope = 1 + 3 * self.radial * seen**2
            seen = seen - (seen * (1 + self.radial * seen**2) - true) / slope
        return points * (seen / np.maximum(true, 1e-12)) * self.focal + self.center

    def invertible(self, size: tuple[int, int]) -> bool:
        """Whether no two places in an image of `size` show the same direction."""
        reach = (np.hypot(*size) / 2 / self.focal) ** 2
        return bool(1 + 3 * self.radial * reach > STEEPEST)

    def with_undistortion(self, size: tuple[int, int]) -> Undistortion:
        """The largest pinhole image of the same focal length whose every pixel an image of `size` shows."""
        half = np.array(size) / 2 / self.focal
        # Light from the middle of each side comes from the least far out where the lens widens, else from the corners.
        reach = half**2 if self.radial >= 0 else (half**2).sum()
        width, height = np.floor(2 * self.focal * half * (1 + self.radial * reach) + 1e-6).astype(int).tolist()
        focal = (self.focal, self.focal)
        return Undistortion(self, focal, (width / 2, height / 2), (width, height))


@dataclass(frozen=True)
class Undistortion:
    """How an image taken through `lens` becomes that of a pinhole camera, all in pixels."""

    lens: Lens
    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]

    def key(self) -> tuple[object, ...]:
        """What tells it from others: the pinhole image, and where some of its places appear."""
        share = np.stack(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9)), -1).reshape(-1, 2)
        seen = self.lens.pixels((share * self.size - self.center) / self.focal)
        return self.focal, self.center, self.size, seen.tobytes()

    def apply(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "rows columns c"]:
        """The pinhole camera's image, interpolated between the four nearest pixels."""
        width, height = self.size
        x = (np.arange(width) + 0.5 - self.center[0]) / self.focal[0]
        y = (np.arange(height) + 0.5 - self.center[1]) / self.focal[1]
        points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        place = (self.lens.pixels(points).T[::-1] - 0.5).reshape(2, height, width)
        bands = [
            map_coordinates(image[..., c], place, np.float32, order=1, mode="nearest") for c in range(image.shape[-1])
        ]
        return np.rint(np.stack(bands, -1)).astype(np.uint8)
