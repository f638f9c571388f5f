"""Tourist photos of the room: by day or in the evening, with their own colors, many occluded by a person in a striped
shirt. Test images are taken by day and are clean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import map_coordinates

from lumifield.synthetic import Tourists, still_life
from lumifield.synthetic.camera_placement import SyntheticView, look_at_c2w
from lumifield.synthetic.path_tracer import render_ground_truth, render_image
from lumifield.synthetic.perturbations import NUM_STRIPES, ColorCast, Occluder
from lumifield.synthetic.scene_description import Lighting, PackedScene, SyntheticScene, pack_scene

# Boxes of the camera positions and of the points that they are aimed at, as (lower corner, upper corner).
POSITION_BOX, TARGET_BOX = ((-1.1, -3.7, 0.1), (1.1, -2.7, 1.1)), ((-0.4, -0.2, -0.3), (0.4, 0.4, 0.2))
# Focal length of the color camera of 7-Scenes per pixel of image width.
RELATIVE_FOCAL = 525 / 640
ZOOM_RANGE = (0.9, 1.4)
# VisualSFM's radial distortion coefficient in the Cambridge format.
RADIAL_DISTORTION = 0.06
EXPOSURE_RANGE, TINT_RANGE, SHIFT_RANGE = (0.6, 1.15), (0.85, 1.15), (-0.05, 0.05)
EVENING_PROBABILITY, OCCLUDER_PROBABILITY = 0.3, 0.6
# Side of the occluder as a fraction of the image width.
OCCLUDER_SIDE_RANGE = (0.12, 0.35)
EVENING_LIGHTING = Lighting(
    sun_direction=(0.8, -0.5, 0.25),
    sun_irradiance=(1.6, 0.75, 0.3),
    zenith=(0.1, 0.12, 0.22),
    horizon=(0.3, 0.18, 0.14),
    ground=(0.08, 0.06, 0.06),
)
LANDMARKS_PER_IMAGE = 48
# Relative depth difference up to which a landmark counts as visible.
DEPTH_TOLERANCE = 0.02


@dataclass(frozen=True)
class TouristPhoto:
    """A photo to render: camera, distortion coefficient on the side of the measurement, lighting and perturbations."""

    index: int
    view: SyntheticView
    split: str
    radial_distortion: float
    is_evening: bool
    perturbations: tuple[ColorCast | Occluder, ...]


def plan_photos(settings: Tourists) -> list[TouristPhoto]:
    """The training images, then the test images."""
    return [_plan_photo(settings, index) for index in range(settings.num_train + settings.num_test)]


def _plan_photo(settings: Tourists, index: int) -> TouristPhoto:
    rng = np.random.default_rng([settings.seed, index])
    position, target = rng.uniform(*POSITION_BOX), rng.uniform(*TARGET_BOX)
    zoom = rng.uniform(*ZOOM_RANGE) if settings.format == "phototourism" else 1.0
    c2w = look_at_c2w(tuple(position.tolist()), tuple(target.tolist()))
    width = settings.image_width
    view = SyntheticView(c2w, RELATIVE_FOCAL * width * zoom, width, width * 3 // 4)
    radial = RADIAL_DISTORTION if settings.format == "cambridge" else 0.0
    if index >= settings.num_train:
        return TouristPhoto(index, view, "test", radial, False, ())
    scale, shift = rng.uniform(*EXPOSURE_RANGE) * rng.uniform(*TINT_RANGE, 3), rng.uniform(*SHIFT_RANGE, 3)
    perturbations: list[ColorCast | Occluder] = [ColorCast(tuple(scale.tolist()), tuple(shift.tolist()))]
    if rng.uniform() < OCCLUDER_PROBABILITY:
        side = max(int(rng.uniform(*OCCLUDER_SIDE_RANGE) * view.width), 1)
        left, top = int(rng.integers(view.width - side)), int(rng.integers(max(view.height - side, 1)))
        colors = tuple(map(tuple, rng.integers(0, 256, (NUM_STRIPES, 3)).tolist()))
        perturbations.append(Occluder(left, top, side, colors))
    is_evening = bool(rng.uniform() < EVENING_PROBABILITY)
    return TouristPhoto(index, view, "train", radial, is_evening, tuple(perturbations))


def pack_day_and_evening() -> tuple[PackedScene, PackedScene]:
    """The packed room by day and in the evening."""
    room = still_life.make_room_scene()
    return pack_scene(room), pack_scene(SyntheticScene(room.items, EVENING_LIGHTING))


def render_photo(
    day: PackedScene, evening: PackedScene, photo: TouristPhoto, settings: Tourists
) -> UInt8[np.ndarray, "h w 3"]:
    """Renders a photo with its lighting, distortion and perturbations."""
    pixels = render_clean_photo(evening if photo.is_evening else day, photo, settings)
    for perturbation in photo.perturbations:
        pixels = perturbation.apply(pixels)
    return pixels


def render_clean_photo(packed: PackedScene, photo: TouristPhoto, settings: Tourists) -> UInt8[np.ndarray, "h w 3"]:
    """Renders a photo without perturbations; a distorted one is resampled from a wider pinhole image."""
    view, seed = photo.view, settings.seed * 1_000_003 + photo.index
    if photo.radial_distortion == 0:
        return render_image(packed, view, settings.samples_per_pixel, seed)[..., :3]
    enlargement = 1 + photo.radial_distortion * (view.width**2 + view.height**2) / (2 * view.focal) ** 2
    wide = replace(view, width=ceil(enlargement * view.width) + 2, height=ceil(enlargement * view.height) + 2)
    pixels = render_image(packed, wide, settings.samples_per_pixel, seed)[..., :3]
    x = (np.arange(view.width) + 0.5 - view.width / 2) / view.focal
    y = (np.arange(view.height) + 0.5 - view.height / 2) / view.focal
    distorted = np.stack(np.meshgrid(x, y))
    undistorted = distorted * (1 + photo.radial_distortion * (distorted**2).sum(0))
    positions = undistorted[::-1] * view.focal + np.array([wide.height, wide.width])[:, None, None] / 2 - 0.5
    channels = [map_coordinates(pixels[..., c], positions, np.float32, order=1, mode="nearest") for c in range(3)]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


@dataclass(frozen=True)
class SceneLandmarks:
    """Surface points; for each image the rows of those visible in it, and their distorted projections at depth 1."""

    points: Float[np.ndarray, "p 3"]
    visible_rows: tuple[Int[np.ndarray, " _"], ...]
    projections: tuple[Float[np.ndarray, "_ 2"], ...]


def sample_landmarks(packed: PackedScene, photos: list[TouristPhoto], settings: Tourists) -> SceneLandmarks:
    """Samples points in each image and keeps those that at least two images see."""
    rng = np.random.default_rng([settings.seed, len(photos)])
    depths = [render_ground_truth(packed, photo.view).depth for photo in photos]
    pairs = list(zip(photos, depths, strict=True))
    points = np.concatenate([_sample_surface_points(photo.view, depth, rng) for photo, depth in pairs])
    is_visible = np.stack([_is_visible(photo.view, depth, points) for photo, depth in pairs])
    is_shared = is_visible.sum(0) >= 2
    points, is_visible = points[is_shared], is_visible[:, is_shared]
    visible_rows = tuple(np.flatnonzero(row) for row in is_visible)
    projections = []
    for photo, rows in zip(photos, visible_rows, strict=True):
        local = (points[rows] - photo.view.c2w[:, 3]) @ photo.view.c2w[:, :3]
        projections.append(distort_points(local[:, :2] / local[:, 2:], photo.radial_distortion))
    return SceneLandmarks(points, visible_rows, tuple(projections))


def distort_points(points: Float[np.ndarray, "n 2"], radial: float) -> Float[np.ndarray, "n 2"]:
    """Solves `(1 + radial |d|^2) d = p` for the distorted position d of each point p at depth 1, by iteration."""
    distorted = points
    for _ in range(50):
        distorted = points / (1 + radial * (distorted**2).sum(-1, keepdims=True))
    return distorted


def _sample_surface_points(
    view: SyntheticView, depth: Float[np.ndarray, "h w"], rng: np.random.Generator
) -> Float[np.ndarray, "n 3"]:
    """Unprojects random pixels; those of the background are left out."""
    rows, columns = rng.integers(0, view.height, LANDMARKS_PER_IMAGE), rng.integers(0, view.width, LANDMARKS_PER_IMAGE)
    distance = depth[rows, columns].astype(np.float64)
    is_hit = np.isfinite(distance)
    return view.c2w[:, 3] + distance[is_hit, None] * view.ray_directions()[rows, columns][is_hit]


def _is_visible(
    view: SyntheticView, depth: Float[np.ndarray, "h w"], points: Float[np.ndarray, "p 3"]
) -> Bool[np.ndarray, " p"]:
    """Whether points are inside the image and not occluded."""
    offset = points - view.c2w[:, 3]
    local = offset @ view.c2w[:, :3]
    in_front = local[:, 2] > 1e-6
    center = (view.width / 2, view.height / 2)
    pixels = view.focal * local[:, :2] / np.where(in_front, local[:, 2], 1)[:, None] + center
    inside = in_front & (pixels >= 0).all(1) & (pixels < (view.width, view.height)).all(1)
    column, row = np.where(inside[:, None], pixels, 0).astype(int).T
    distance = np.linalg.norm(offset, axis=1)
    return inside & (np.abs(depth[row, column] - distance) < DEPTH_TOLERANCE * distance)
