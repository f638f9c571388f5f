"""Random cars: sedans, station wagons, vans and pickups with wheels, windows and lights. They face along x."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lumifield.synthetic.materials import DARK, STEEL, WHITE, random_paint
from lumifield.synthetic.scene_description import Item, Material, SolidColor
from lumifield.synthetic.shapes import Box, Cylinder, Sphere

GLASS = Material(SolidColor((0.02, 0.03, 0.045)), coat_reflectance=0.08)
HEADLIGHT = Material(SolidColor((0.90, 0.85, 0.62)), coat_reflectance=0.05)
TAIL_LIGHT = Material(SolidColor((0.55, 0.02, 0.02)), coat_reflectance=0.05)
SIGNAL = Material(SolidColor((0.05, 0.12, 0.70)), coat_reflectance=0.05)
WINDOW_OVERLAP = 0.05


@dataclass(frozen=True)
class CarBody:
    """Half extents of the body without the cabin, the height of its center, and its paint."""

    half_length: float
    half_width: float
    half_height: float
    center_height: float
    paint: Material

    @property
    def top(self) -> float:
        """The height of the upper side of the body."""
        return self.center_height + self.half_height


def make_car(rng: np.random.Generator) -> tuple[Item, ...]:
    """A car that stands on the plane z = 0."""
    wheel_radius, half_height = rng.uniform(0.12, 0.17), rng.uniform(0.10, 0.14)
    half_length, half_width = rng.uniform(0.66, 0.80), rng.uniform(0.28, 0.35)
    body = CarBody(half_length, half_width, half_height, wheel_radius + 0.6 * half_height, random_paint(rng))
    box = Box((body.half_length, body.half_width, half_height), 0.06)
    body_item = Item("body", box, body.paint, (0, 0, body.center_height))
    return (
        body_item,
        *_make_wheels(body, wheel_radius),
        *_make_lights(body),
        *_make_cabin(body, rng),
        *_make_extras(body, rng),
    )


def _make_wheels(body: CarBody, radius: float) -> list[Item]:
    items = []
    for x in (-0.60 * body.half_length, 0.62 * body.half_length):
        for side in (-1, 1):
            center = (x, side * (body.half_width - 0.03), radius)
            items.append(Item("wheel", Cylinder(radius, 0.06, 0.02), DARK, center, (90, 0, 0)))
            items.append(Item("hub", Cylinder(0.55 * radius, 0.068, 0.01), STEEL, center, (90, 0, 0)))
    return items


def _make_lights(body: CarBody) -> list[Item]:
    items = []
    for side in (-1, 1):
        y, z = side * 0.7 * body.half_width, body.center_height + 0.25 * body.half_height
        items.append(Item("headlight", Sphere(0.055), HEADLIGHT, (body.half_length - 0.035, y, z)))
        items.append(Item("tail light", Box((0.02, 0.05, 0.035), 0.01), TAIL_LIGHT, (-body.half_length, y, z)))
    for x in (-body.half_length, body.half_length):
        bumper_center = (x, 0, body.center_height - 0.55 * body.half_height)
        items.append(Item("bumper", Box((0.03, 0.9 * body.half_width, 0.035), 0.02), DARK, bumper_center))
    return items


def _make_cabin(body: CarBody, rng: np.random.Generator) -> list[Item]:
    """Windows under a roof; their placement determines the body style."""
    half_width, body_style = 0.88 * body.half_width, rng.integers(4)
    if body_style == 0:
        return _make_windows(
            body, (-0.08 * body.half_length, 0.48 * body.half_length), half_width, rng.uniform(0.12, 0.16)
        )
    if body_style == 1:
        return _make_windows(
            body, (-0.26 * body.half_length, 0.66 * body.half_length), half_width, rng.uniform(0.12, 0.16)
        )
    if body_style == 2:
        windows = _make_windows(
            body, (0.50 * body.half_length, 0.30 * body.half_length), half_width, rng.uniform(0.14, 0.18)
        )
        cargo_half_extents = (0.52 * body.half_length, body.half_width, rng.uniform(0.16, 0.20))
        cargo_material = body.paint if rng.uniform() < 0.5 else WHITE
        cargo_center = (-0.36 * body.half_length, 0, body.top + cargo_half_extents[2] - 0.04)
        return [*windows, Item("load", Box(cargo_half_extents, 0.03), cargo_material, cargo_center)]
    windows = _make_windows(
        body, (0.28 * body.half_length, 0.30 * body.half_length), half_width, rng.uniform(0.13, 0.17)
    )
    wall, bed_center = (0.46 * body.half_length, 0.025, 0.06), -0.50 * body.half_length
    walls = [
        Item("side", Box(wall, 0.01), body.paint, (bed_center, side * (body.half_width - 0.03), body.top + 0.03))
        for side in (-1, 1)
    ]
    gate = Box((0.025, body.half_width - 0.03, 0.06), 0.01)
    return [*windows, *walls, Item("gate", gate, body.paint, (-0.95 * body.half_length, 0, body.top + 0.03))]


def _make_windows(body: CarBody, extent: tuple[float, float], half_width: float, half_height: float) -> list[Item]:
    """Glass with a roof and a pillar of the body's paint; `extent` is its center and half length along x."""
    x, half_length = extent
    center_height = body.top + half_height - WINDOW_OVERLAP
    roof = Box((0.94 * half_length, 0.96 * half_width, 0.03), 0.025)
    pillar = Box((0.03, 1.01 * half_width, half_height), 0.01)
    return [
        Item("windows", Box((half_length, half_width, half_height), 0.07), GLASS, (x, 0, center_height)),
        Item("roof", roof, body.paint, (x, 0, center_height + half_height)),
        Item("pillar", pillar, body.paint, (x - 0.1 * half_length, 0, center_height)),
    ]


def _make_extras(body: CarBody, rng: np.random.Generator) -> list[Item]:
    items = []
    if rng.uniform() < 0.25:
        stripe = Box((1.001 * body.half_length, 0.08, 1.01 * body.half_height), 0.06)
        items.append(Item("stripe", stripe, random_paint(rng), (0, 0, body.center_height)))
    if rng.uniform() < 0.2:
        bar = (0.92 * body.half_length, body.half_width - 0.05)
        items += [
            Item("spoiler", Box((0.06, bar[1], 0.015), 0.01), DARK, (-bar[0], 0, body.top + 0.12)),
            Item("strut", Box((0.02, 0.02, 0.06)), DARK, (-bar[0], 0, body.top + 0.06)),
        ]
    if rng.uniform() < 0.2:
        items.append(
            Item("signal", Box((0.04, 0.12, 0.03), 0.02), SIGNAL, (0.3 * body.half_length, 0, body.top + 0.33))
        )
    return items
