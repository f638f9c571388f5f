"""Cars: saloons, estates, vans and pick-ups with wheels, windows and lights. They drive along x."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lumifield.synthetic.materials import DARK, STEEL, WHITE, paint
from lumifield.synthetic.shapes import Box, Cylinder, Sphere
from lumifield.synthetic.stage import Item, Material, Plain

GLASS = Material(Plain((0.02, 0.03, 0.045)), coat=0.08)
HEADLIGHT = Material(Plain((0.90, 0.85, 0.62)), coat=0.05)
TAIL_LIGHT = Material(Plain((0.55, 0.02, 0.02)), coat=0.05)
SIGNAL = Material(Plain((0.05, 0.12, 0.70)), coat=0.05)
SILL = 0.05


@dataclass(frozen=True)
class Body:
    """Half length, width and height of the body without cabin, the height of its middle, and its paint."""

    length: float
    width: float
    height: float
    middle: float
    paint: Material

    @property
    def top(self) -> float:
        """Where the cabin begins."""
        return self.middle + self.height


def car(rng: np.random.Generator) -> tuple[Item, ...]:
    """A car that stands on the plane z = 0."""
    wheel, height = rng.uniform(0.12, 0.17), rng.uniform(0.10, 0.14)
    body = Body(rng.uniform(0.66, 0.80), rng.uniform(0.28, 0.35), height, wheel + 0.6 * height, paint(rng))
    hull = Item("body", Box((body.length, body.width, height), 0.06), body.paint, (0, 0, body.middle))
    return (hull, *_wheels(body, wheel), *_lights(body), *_cabin(body, rng), *_extras(body, rng))


def _wheels(body: Body, radius: float) -> list[Item]:
    found = []
    for x in (-0.60 * body.length, 0.62 * body.length):
        for side in (-1, 1):
            center = (x, side * (body.width - 0.03), radius)
            found.append(Item("wheel", Cylinder(radius, 0.06, 0.02), DARK, center, (90, 0, 0)))
            found.append(Item("hub", Cylinder(0.55 * radius, 0.068, 0.01), STEEL, center, (90, 0, 0)))
    return found


def _lights(body: Body) -> list[Item]:
    found = []
    for side in (-1, 1):
        y, z = side * 0.7 * body.width, body.middle + 0.25 * body.height
        found.append(Item("headlight", Sphere(0.055), HEADLIGHT, (body.length - 0.035, y, z)))
        found.append(Item("tail light", Box((0.02, 0.05, 0.035), 0.01), TAIL_LIGHT, (-body.length, y, z)))
    for x in (-body.length, body.length):
        low = (x, 0, body.middle - 0.55 * body.height)
        found.append(Item("bumper", Box((0.03, 0.9 * body.width, 0.035), 0.02), DARK, low))
    return found


def _cabin(body: Body, rng: np.random.Generator) -> list[Item]:
    """Windows under a roof; where they stand makes the kind of car."""
    width, kind = 0.88 * body.width, rng.integers(4)
    if kind == 0:
        return _windows(body, (-0.08 * body.length, 0.48 * body.length), width, rng.uniform(0.12, 0.16))
    if kind == 1:
        return _windows(body, (-0.26 * body.length, 0.66 * body.length), width, rng.uniform(0.12, 0.16))
    if kind == 2:
        windows = _windows(body, (0.50 * body.length, 0.30 * body.length), width, rng.uniform(0.14, 0.18))
        load = (0.52 * body.length, body.width, rng.uniform(0.16, 0.20))
        cargo = body.paint if rng.uniform() < 0.5 else WHITE
        return [*windows, Item("load", Box(load, 0.03), cargo, (-0.36 * body.length, 0, body.top + load[2] - 0.04))]
    windows = _windows(body, (0.28 * body.length, 0.30 * body.length), width, rng.uniform(0.13, 0.17))
    wall, back = (0.46 * body.length, 0.025, 0.06), -0.50 * body.length
    walls = [
        Item("side", Box(wall, 0.01), body.paint, (back, side * (body.width - 0.03), body.top + 0.03))
        for side in (-1, 1)
    ]
    gate = Box((0.025, body.width - 0.03, 0.06), 0.01)
    return [*windows, *walls, Item("gate", gate, body.paint, (-0.95 * body.length, 0, body.top + 0.03))]


def _windows(body: Body, place: tuple[float, float], width: float, height: float) -> list[Item]:
    """Glass over `place`, the middle and half length along x, with a roof and pillars of the body's color."""
    x, half = place
    middle = body.top + height - SILL
    roof = Box((0.94 * half, 0.96 * width, 0.03), 0.025)
    pillar = Box((0.03, 1.01 * width, height), 0.01)
    return [
        Item("windows", Box((half, width, height), 0.07), GLASS, (x, 0, middle)),
        Item("roof", roof, body.paint, (x, 0, middle + height)),
        Item("pillar", pillar, body.paint, (x - 0.1 * half, 0, middle)),
    ]


def _extras(body: Body, rng: np.random.Generator) -> list[Item]:
    found = []
    if rng.uniform() < 0.25:
        stripe = Box((1.001 * body.length, 0.08, 1.01 * body.height), 0.06)
        found.append(Item("stripe", stripe, paint(rng), (0, 0, body.middle)))
    if rng.uniform() < 0.2:
        bar = (0.92 * body.length, body.width - 0.05)
        found += [
            Item("spoiler", Box((0.06, bar[1], 0.015), 0.01), DARK, (-bar[0], 0, body.top + 0.12)),
            Item("strut", Box((0.02, 0.02, 0.06)), DARK, (-bar[0], 0, body.top + 0.06)),
        ]
    if rng.uniform() < 0.2:
        found.append(Item("signal", Box((0.04, 0.12, 0.03), 0.02), SIGNAL, (0.3 * body.length, 0, body.top + 0.33)))
    return found
