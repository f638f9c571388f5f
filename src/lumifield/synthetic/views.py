"""Where the cameras of a synthetic capture stand: pinhole views with OpenCV axes, in a world with z up."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi, sqrt, tan

import numpy as np
from jaxtyping import Float

from lumifield.synthetic.shapes import Point

# Distance and horizontal angle of the Blender scenes of NeRF: an object in the cube of half side 1.2 is seen whole.
DISTANCE, ANGLE = 4.0, 0.6911112070083618
GOLDEN = pi * (3 - sqrt(5))
# The forward-facing grid: its middle, what the middle looks at, its extent, and the horizontal angle of its cameras.
MIDDLE, TARGET, EXTENT, WIDE = (0.0, -3.3, 0.42), (0.0, 0.3, 0.0), (0.7, 0.45), 0.85


@dataclass(frozen=True)
class View:
    """A pinhole camera with OpenCV axes, looking through its middle; `focal`, `width`, `height` in pixels."""

    c2w: Float[np.ndarray, "3 4"]
    focal: float
    width: int
    height: int

    def rays(self) -> Float[np.ndarray, "h w 3"]:
        """Unit directions through the pixels' centers."""
        x = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal
        y = (np.arange(self.height) + 0.5 - self.height / 2) / self.focal
        local = np.stack([*np.meshgrid(x, y), np.ones((self.height, self.width))], -1)
        return local / np.linalg.norm(local, axis=-1, keepdims=True) @ self.c2w[:, :3].T


def looking(
    position: Point | Float[np.ndarray, "3"], target: Point | Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 4"]:
    """The camera at `position` with `target` in the middle of its image and its right side level."""
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    right = np.cross(forward, (0, 0, 1))
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward, np.array(position, float)], 1)


def sphere(count: int, turn: float, size: int) -> list[View]:
    """`count` square views from all sides towards the origin, evenly over heights from just below the horizon to near
    the zenith; `turn` [rad] turns them all."""
    heights = -0.1 + 1.06 * (np.arange(count) + 0.5) / max(count, 1)
    return [from_height(height, turn + i * GOLDEN, size) for i, height in enumerate(heights)]


def orbit(count: int, turn: float, size: int) -> list[View]:
    """`count` square views from one round about the origin that rises and sinks twice between 12 and 47 degrees."""
    rounds = 2 * pi * np.arange(count) / max(count, 1)
    return [from_height(0.47 + 0.26 * np.sin(2 * angle), turn + angle, size) for angle in rounds]


def from_height(height: float, azimuth: float, size: int, angle: float = ANGLE) -> View:
    """The square view over `angle` [rad] from the sphere's point at `height` (sine of the elevation) and `azimuth`
    [rad]."""
    level = sqrt(1 - height * height)
    position = (DISTANCE * level * np.cos(azimuth), DISTANCE * level * np.sin(azimuth), DISTANCE * height)
    return View(looking(position, (0.0, 0.0, 0.0)), size / 2 / tan(angle / 2), size, size)


def grid(count: int, width: int) -> list[View]:
    """`count` parallel views of 4:3 from a level grid in the plane square to their direction, row by row."""
    c2w = looking(MIDDLE, TARGET)
    columns = ceil(sqrt(4 * count / 3))
    rows = ceil(count / columns) if count else 0
    views = []
    for i in range(count):
        x, y = (i % columns + 0.5) / columns - 0.5, (i // columns + 0.5) / rows - 0.5
        position = c2w[:, 3] + EXTENT[0] * x * c2w[:, 0] + EXTENT[1] * y * c2w[:, 1]
        moved = np.concatenate([c2w[:, :3], position[:, None]], 1)
        views.append(View(moved, width / 2 / tan(WIDE / 2), width, width * 3 // 4))
    return views
