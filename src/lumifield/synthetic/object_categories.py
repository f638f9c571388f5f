"""Random objects of one category in learnit's ShapeNet format, for meta-learning."""

from __future__ import annotations

import json
from dataclasses import replace
from math import asin, pi
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lumifield.synthetic import ObjectCategory, Progress
from lumifield.synthetic.camera_placement import CAMERA_DISTANCE, SyntheticView, view_from_elevation
from lumifield.synthetic.cars import make_car
from lumifield.synthetic.chairs import make_chair
from lumifield.synthetic.lamps import make_lamp
from lumifield.synthetic.path_tracer import render_image
from lumifield.synthetic.png_files import save_png
from lumifield.synthetic.scene_description import Item, SyntheticScene, pack_scene

# The unit sphere, which contains every object, fills the image from edge to edge.
FOV = 2 * asin(1 / CAMERA_DISTANCE)
# Sines of the lowest and the highest elevation of the cameras.
ELEVATION_SINES = (-0.35, 0.95)


def write_object_category(settings: ObjectCategory, folder: Path, progress: Progress) -> None:
    """Writes one folder per object, and `splits.json` with the objects in the order train, val, test."""
    ends = np.cumsum([settings.num_train, settings.num_val, settings.num_test]).tolist()
    names = [f"{index:04d}" for index in range(ends[-1])]
    for index, name in enumerate(names):
        _write_category_object(settings, index, folder / name)
        progress((index + 1) * settings.num_views, ends[-1] * settings.num_views)
    splits = {"train": names[: ends[0]], "val": names[ends[0] : ends[1]], "test": names[ends[1] :]}
    (folder / "splits.json").write_text(json.dumps(splits, indent=1))


def make_category_object(settings: ObjectCategory, index: int) -> SyntheticScene:
    """Object `index`, centered on the origin; it does not depend on the number of objects."""
    rng = np.random.default_rng([settings.seed, index])
    match settings.category:
        case "cars":
            items = make_car(rng)
        case "chairs":
            items = make_chair(rng)
        case "lamps":
            items = make_lamp(rng)
    bounds = np.stack([item.world_bounds() for item in items])
    center = (bounds[:, 0].min(0) + bounds[:, 1].max(0)) / 2
    return SyntheticScene(tuple(_translate_item(item, -center) for item in items))


def random_object_views(settings: ObjectCategory, index: int) -> list[SyntheticView]:
    """Random cameras, uniform over the part of the sphere between the lowest and the highest elevation."""
    rng = np.random.default_rng([settings.seed, index, settings.num_views])
    elevation_sines = rng.uniform(*ELEVATION_SINES, settings.num_views)
    azimuths = rng.uniform(0, 2 * pi, settings.num_views)
    positions = zip(elevation_sines, azimuths, strict=True)
    return [view_from_elevation(sine, azimuth, settings.image_width, FOV) for sine, azimuth in positions]


def _write_category_object(settings: ObjectCategory, index: int, folder: Path) -> None:
    packed, frames = pack_scene(make_category_object(settings, index)), []
    for number, view in enumerate(random_object_views(settings, index)):
        seed = (settings.seed * 1_000_003 + index) * settings.num_views + number
        save_png(folder / f"{number:03d}.png", render_image(packed, view, settings.samples_per_pixel, seed))
        frames.append({"file_path": f"./{number:03d}", "transform_matrix": view.opengl_matrix().tolist()})
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": FOV, "frames": frames}, indent=1))


def _translate_item(item: Item, offset: Float[np.ndarray, "3"]) -> Item:
    x, y, z = (np.array(item.center) + offset).tolist()
    return replace(item, center=(x, y, z))
