"""Images that tourists take of the room: by day or in the evening, each with its own colors, often with somebody
in a striped shirt before the lens. Test images are taken by day and undisturbed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import map_coordinates

from lumifield.synthetic import Tourists, still_life
from lumifield.synthetic.camera_placement import SyntheticView, look_at_c2w
from lumifield.synthetic.path_tracer import render_ground_truth, render_image
from lumifield.synthetic.perturbations import STRIPES, ColorCast, Occluder
from lumifield.synthetic.scene_description import Lighting, PackedScene, SyntheticScene, pack_scene

# Where tourists stand and what they look at, and the focal length of the color camera of 7-Scenes per pixel of width.
STAND, LOOK = ((-1.1, -3.7, 0.1), (1.1, -2.7, 1.1)), ((-0.4, -0.2, -0.3), (0.4, 0.4, 0.2))
FOCAL = 525 / 640
ZOOM = (0.9, 1.4)
# VisualSFM's distortion of the cameras in Cambridge layout.
RADIAL = 0.06
EXPOSURE, TINT, SHIFT = (0.6, 1.15), (0.85, 1.15), (-0.05, 0.05)
IN_THE_EVENING, BEHIND_SOMEBODY = 0.3, 0.6
SOMEBODY = (0.12, 0.35)
EVENING = Lighting(
    towards=(0.8, -0.5, 0.25),
    sun=(1.6, 0.75, 0.3),
    zenith=(0.1, 0.12, 0.22),
    horizon=(0.3, 0.18, 0.14),
    ground=(0.08, 0.06, 0.06),
)
# Points picked in each image.
LANDMARKS = 48


@dataclass(frozen=True)
class TouristPhoto:
    """An image to take: its camera, the radial distortion on the side of the measurement, and what disturbs it."""

    index: int
    view: SyntheticView
    split: str
    radial: float
    evening: bool
    disturbances: tuple[ColorCast | Occluder, ...]


def plan_photos(settings: Tourists) -> list[TouristPhoto]:
    """The train images, then the test images."""
    return [_photograph(settings, index) for index in range(settings.train + settings.test)]


def _photograph(settings: Tourists, index: int) -> TouristPhoto:
    rng = np.random.default_rng([settings.seed, index])
    position, target = rng.uniform(*STAND), rng.uniform(*LOOK)
    zoom = rng.uniform(*ZOOM) if settings.format == "phototourism" else 1.0
    c2w = look_at_c2w(tuple(position.tolist()), tuple(target.tolist()))
    view = SyntheticView(c2w, FOCAL * settings.size * zoom, settings.size, settings.size * 3 // 4)
    radial = RADIAL if settings.format == "cambridge" else 0.0
    if index >= settings.train:
        return TouristPhoto(index, view, "test", radial, False, ())
    scale, shift = rng.uniform(*EXPOSURE) * rng.uniform(*TINT, 3), rng.uniform(*SHIFT, 3)
    disturbances: list[ColorCast | Occluder] = [ColorCast(tuple(scale.tolist()), tuple(shift.tolist()))]
    if rng.uniform() < BEHIND_SOMEBODY:
        side = max(int(rng.uniform(*SOMEBODY) * view.width), 1)
        left, top = int(rng.integers(view.width - side)), int(rng.integers(max(view.height - side, 1)))
        colors = tuple(map(tuple, rng.integers(0, 256, (STRIPES, 3)).tolist()))
        disturbances.append(Occluder(left, top, side, colors))
    return TouristPhoto(index, view, "train", radial, bool(rng.uniform() < IN_THE_EVENING), tuple(disturbances))


def pack_day_and_evening() -> tuple[PackedScene, PackedScene]:
    """The room by day and in the evening."""
    room = still_life.make_room_scene()
    return pack_scene(room), pack_scene(SyntheticScene(room.items, EVENING))


def render_photo(
    day: PackedScene, evening: PackedScene, photograph: TouristPhoto, settings: Tourists
) -> UInt8[np.ndarray, "h w 3"]:
    """The image as it comes out of the camera."""
    stage = evening if photograph.evening else day
    pixels = render_through_lens(stage, photograph, settings)
    for disturbance in photograph.disturbances:
        pixels = disturbance.over(pixels)
    return pixels


def render_through_lens(stage: PackedScene, photograph: TouristPhoto, settings: Tourists) -> UInt8[np.ndarray, "h w 3"]:
    """What the lens shows: a wider pinhole image, resampled where each pixel's direction lies in it."""
    view, key = photograph.view, settings.seed * 1_000_003 + photograph.index
    if photograph.radial == 0:
        return render_image(stage, view, settings.samples, key)[..., :3]
    reach = 1 + photograph.radial * (view.width**2 + view.height**2) / (2 * view.focal) ** 2
    wide = replace(view, width=ceil(reach * view.width) + 2, height=ceil(reach * view.height) + 2)
    pixels = render_image(stage, wide, settings.samples, key)[..., :3]
    x = (np.arange(view.width) + 0.5 - view.width / 2) / view.focal
    y = (np.arange(view.height) + 0.5 - view.height / 2) / view.focal
    measured = np.stack(np.meshgrid(x, y))
    true = measured * (1 + photograph.radial * (measured**2).sum(0))
    place = true[::-1] * view.focal + np.array([wide.height, wide.width])[:, None, None] / 2 - 0.5
    bands = [map_coordinates(pixels[..., c], place, np.float32, order=1, mode="nearest") for c in range(3)]
    return np.rint(np.stack(bands, -1)).astype(np.uint8)


@dataclass(frozen=True)
class SceneLandmarks:
    """Points on surfaces; for each image the rows of those that it sees, and where at depth 1 they appear."""

    points: Float[np.ndarray, "p 3"]
    seen: tuple[np.ndarray, ...]
    places: tuple[np.ndarray, ...]


def sample_landmarks(stage: PackedScene, taken: list[TouristPhoto], settings: Tourists) -> SceneLandmarks:
    """Random points of each image that another one sees, too."""
    rng = np.random.default_rng([settings.seed, len(taken)])
    depths = [render_ground_truth(stage, photograph.view).depth for photograph in taken]
    points = np.concatenate([_picked(one.view, d, rng) for one, d in zip(taken, depths, strict=True)])
    visible = np.stack([_sees(one.view, d, points) for one, d in zip(taken, depths, strict=True)])
    shared = visible.sum(0) >= 2
    points, visible = points[shared], visible[:, shared]
    seen = tuple(np.flatnonzero(row) for row in visible)
    places = []
    for photograph, rows in zip(taken, seen, strict=True):
        local = (points[rows] - photograph.view.c2w[:, 3]) @ photograph.view.c2w[:, :3]
        places.append(measured(local[:, :2] / local[:, 2:], photograph.radial))
    return SceneLandmarks(points, seen, tuple(places))


def measured(points: Float[np.ndarray, "n 2"], radial: float) -> Float[np.ndarray, "n 2"]:
    """Where points of the plane at depth 1 are measured: `m` with `(1 + radial |m|^2) m` being the point."""
    found = points
    for _ in range(50):
        found = points / (1 + radial * (found**2).sum(-1, keepdims=True))
    return found


def _picked(view: SyntheticView, depth: Float[np.ndarray, "h w"], rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    rows, columns = rng.integers(0, view.height, LANDMARKS), rng.integers(0, view.width, LANDMARKS)
    far = depth[rows, columns].astype(np.float64)
    met = np.isfinite(far)
    return view.c2w[:, 3] + far[met, None] * view.rays()[rows, columns][met]


def _sees(view: SyntheticView, depth: Float[np.ndarray, "h w"], points: Float[np.ndarray, "p 3"]) -> np.ndarray:
    """Whether points are in the image and nothing stands before them."""
    offset = points - view.c2w[:, 3]
    local = offset @ view.c2w[:, :3]
    ahead = local[:, 2] > 1e-6
    image = view.focal * local[:, :2] / np.where(ahead, local[:, 2], 1)[:, None] + (
        view.width / 2,
        view.height / 2,
    )
    inside = ahead & (image >= 0).all(1) & (image < (view.width, view.height)).all(1)
    column, row = np.where(inside[:, None], image, 0).astype(int).T
    distance = np.linalg.norm(offset, axis=1)
    return inside & (np.abs(depth[row, column] - distance) < 0.02 * distance)
