"""Families of objects with random shapes and colors, in learnit's ShapeNet layout, for learning a start."""

from __future__ import annotations

import json
from dataclasses import replace
from math import asin, pi
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lumifield.synthetic import Family, Progress
from lumifield.synthetic.cars import car
from lumifield.synthetic.chairs import chair
from lumifield.synthetic.lamps import lamp
from lumifield.synthetic.stage import Item, Stage, pack
from lumifield.synthetic.tracer import render_image
from lumifield.synthetic.views import DISTANCE, View, from_height
from lumifield.synthetic.writers import opengl, save

# The unit sphere, which holds every object, fills the image from edge to edge.
ANGLE = 2 * asin(1 / DISTANCE)
# Sines of the lowest and the highest elevation of the cameras.
HEIGHTS = (-0.35, 0.95)


def write_family(settings: Family, folder: Path, progress: Progress) -> None:
    """A folder an object, and `splits.json`: the first objects are for learning, then val, then test."""
    ends = np.cumsum([settings.train, settings.val, settings.test]).tolist()
    names = [f"{index:04d}" for index in range(ends[-1])]
    for index, name in enumerate(names):
        _write_object(settings, index, folder / name)
        progress((index + 1) * settings.views, ends[-1] * settings.views)
    splits = {"train": names[: ends[0]], "val": names[ends[0] : ends[1]], "test": names[ends[1] :]}
    (folder / "splits.json").write_text(json.dumps(splits, indent=1))


def member(settings: Family, index: int) -> Stage:
    """The object of an index, its middle in the origin; it does not depend on how many others there are."""
    rng = np.random.default_rng([settings.seed, index])
    match settings.kind:
        case "cars":
            items = car(rng)
        case "chairs":
            items = chair(rng)
        case "lamps":
            items = lamp(rng)
    bounds = np.stack([item.world_bounds() for item in items])
    middle = (bounds[:, 0].min(0) + bounds[:, 1].max(0)) / 2
    return Stage(tuple(_moved(item, -middle) for item in items))


def views(settings: Family, index: int) -> list[View]:
    """Cameras on the sphere about the origin, random and evenly spread between the lowest and the highest."""
    rng = np.random.default_rng([settings.seed, index, settings.views])
    heights, azimuths = rng.uniform(*HEIGHTS, settings.views), rng.uniform(0, 2 * pi, settings.views)
    return [from_height(*place, settings.size, ANGLE) for place in zip(heights, azimuths, strict=True)]


def _write_object(settings: Family, index: int, folder: Path) -> None:
    scene, frames = pack(member(settings, index)), []
    for number, view in enumerate(views(settings, index)):
        key = (settings.seed * 1_000_003 + index) * settings.views + number
        save(folder / f"{number:03d}.png", render_image(scene, view, settings.samples, key))
        frames.append({"file_path": f"./{number:03d}", "transform_matrix": opengl(view).tolist()})
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": ANGLE, "frames": frames}, indent=1))


def _moved(item: Item, by: Float[np.ndarray, "3"]) -> Item:
    x, y, z = (np.array(item.center) + by).tolist()
    return replace(item, center=(x, y, z))
