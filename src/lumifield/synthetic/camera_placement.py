"""Camera placement for synthetic scenes: pinhole views with OpenCV axes in a world with z up."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi, sqrt, tan

import numpy as np
from jaxtyping import Float

from lumifield.synthetic.shapes import Vec3

# Distance [world units] and horizontal field of view [rad] of the Blender scenes of NeRF: the cube [-1.2, 1.2]^3 fits.
CAMERA_DISTANCE, HORIZONTAL_FOV = 4.0, 0.6911112070083618
GOLDEN_ANGLE = pi * (3 - sqrt(5))
# The forward-facing grid: its center, the target of the central camera, its extent, and the field of view [rad].
GRID_CENTER, GRID_TARGET, GRID_EXTENT, GRID_FOV = (0.0, -3.3, 0.42), (0.0, 0.3, 0.0), (0.7, 0.45), 0.85
# Signs that convert the columns of a camera matrix between OpenCV axes and OpenGL axes (right, up, back).
OPENGL = np.array([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SyntheticView:
    """A pinhole camera with OpenCV axes and centered principal point; `focal`, `width`, `height` in pixels."""

    c2w: Float[np.ndarray, "3 4"]
    focal: float
    width: int
    height: int

    def opengl_matrix(self) -> Float[np.ndarray, "4 4"]:
        """Camera-to-world matrix with OpenGL axes (right, up, back)."""
        return np.concatenate([self.c2w * OPENGL, [[0.0, 0.0, 0.0, 1.0]]])

    def ray_directions(self) -> Float[np.ndarray, "h w 3"]:
        """World unit directions through the pixel centers."""
        x = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal
        y = (np.arange(self.height) + 0.5 - self.height / 2) / self.focal
        local = np.stack([*np.meshgrid(x, y), np.ones((self.height, self.width))], -1)
        return local / np.linalg.norm(local, axis=-1, keepdims=True) @ self.c2w[:, :3].T


def look_at_c2w(
    position: Vec3 | Float[np.ndarray, "3"], target: Vec3 | Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 4"]:
    """The camera-to-world matrix at `position` with `target` at the image center and a horizontal x axis."""
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    right = np.cross(forward, (0, 0, 1))
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward, np.array(position, float)], 1)


def sphere_views(num_views: int, start_azimuth: float, width: int) -> list[SyntheticView]:
    """Square views of the origin, spread over the sphere from just below the horizon to near the zenith.

    The sines of their elevations are evenly spaced; azimuths advance by the golden angle from `start_azimuth` [rad].
    """
    elevation_sines = -0.1 + 1.06 * (np.arange(num_views) + 0.5) / max(num_views, 1)
    return [
        view_from_elevation(elevation_sine, start_azimuth + i * GOLDEN_ANGLE, width)
        for i, elevation_sine in enumerate(elevation_sines)
    ]


def orbit_views(num_views: int, start_azimuth: float, width: int) -> list[SyntheticView]:
    """Square views of the origin from one orbit whose elevation oscillates twice between 12 and 47 degrees."""
    azimuths = 2 * pi * np.arange(num_views) / max(num_views, 1)
    return [
        view_from_elevation(0.47 + 0.26 * np.sin(2 * azimuth), start_azimuth + azimuth, width) for azimuth in azimuths
    ]


def view_from_elevation(
    elevation_sine: float, azimuth: float, width: int, fov: float = HORIZONTAL_FOV
) -> SyntheticView:
    """The square view of the origin with field of view `fov` [rad] from a sine of elevation and an `azimuth` [rad]."""
    cosine = sqrt(1 - elevation_sine * elevation_sine)
    x, y = CAMERA_DISTANCE * cosine * np.cos(azimuth), CAMERA_DISTANCE * cosine * np.sin(azimuth)
    c2w = look_at_c2w((x, y, CAMERA_DISTANCE * elevation_sine), (0.0, 0.0, 0.0))
    return SyntheticView(c2w, width / 2 / tan(fov / 2), width, width)


def forward_facing_views(num_views: int, width: int) -> list[SyntheticView]:
    """Parallel 4:3 views on a grid perpendicular to their viewing direction, row by row."""
    c2w = look_at_c2w(GRID_CENTER, GRID_TARGET)
    columns = ceil(sqrt(4 * num_views / 3))
    rows = ceil(num_views / columns) if num_views else 0
    views = []
    for i in range(num_views):
        x, y = (i % columns + 0.5) / columns - 0.5, (i // columns + 0.5) / rows - 0.5
        position = c2w[:, 3] + GRID_EXTENT[0] * x * c2w[:, 0] + GRID_EXTENT[1] * y * c2w[:, 1]
        shifted_c2w = np.concatenate([c2w[:, :3], position[:, None]], 1)
        views.append(SyntheticView(shifted_c2w, width / 2 / tan(GRID_FOV / 2), width, width * 3 // 4))
    return views
