"""Random lamps: table, floor, desk and hanging lamps, with shades of several shapes."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np

from lumifield.synthetic.materials import BRASS, DARK, STEEL, WHITE, random_cloth, random_paint, random_wood
from lumifield.synthetic.scene_description import Item, Material
from lumifield.synthetic.shapes import Bowl, Cylinder, RoundCone, Sphere, Vase, Vec3


def make_lamp(rng: np.random.Generator) -> tuple[Item, ...]:
    """A lamp that stands on the plane z = 0, or hangs above it."""
    return tuple((_make_table_lamp, _make_floor_lamp, _make_desk_lamp, _make_hanging_lamp)[rng.integers(4)](rng))


def _make_table_lamp(rng: np.random.Generator) -> list[Item]:
    height = rng.uniform(0.28, 0.42)
    body = (random_wood, random_paint, random_cloth)[rng.integers(3)](rng)
    radius = rng.uniform(0.18, 0.26)
    match rng.integers(3):
        case 0:
            foot = Item("body", Vase(0.75 * radius, 0.3 * radius, height, 0.02), body, (0, 0, height))
        case 1:
            foot = Item("body", Sphere(radius), body, (0, 0, radius))
        case _:
            foot = Item("body", Cylinder(0.7 * radius, height, 0.03), body, (0, 0, height))
    top = 2 * foot.center[2]
    neck = Item("neck", Cylinder(0.025, 0.12), BRASS, (0, 0, top + 0.08))
    return [foot, neck, *_make_shade(rng, (0, 0, top + 0.14), rng.uniform(0.34, 0.46))]


def _make_floor_lamp(rng: np.random.Generator) -> list[Item]:
    half_height, metal = rng.uniform(0.55, 0.68), _random_metal(rng)
    foot = Item("foot", Cylinder(rng.uniform(0.18, 0.28), 0.025, 0.02), metal, (0, 0, 0.025))
    stem = Item("stem", Cylinder(rng.uniform(0.018, 0.03), half_height), metal, (0, 0, half_height))
    return [foot, stem, *_make_shade(rng, (0, 0, 2 * half_height - 0.05), rng.uniform(0.2, 0.3))]


def _make_desk_lamp(rng: np.random.Generator) -> list[Item]:
    """A foot, two arms in the xz plane, and a head that points down."""
    metal, paint = _random_metal(rng), random_paint(rng)
    lower_angle, upper_angle = rng.uniform(-35, -10), rng.uniform(30, 65)
    lengths = rng.uniform(0.3, 0.42, 2).tolist()
    foot = Item("foot", Cylinder(rng.uniform(0.2, 0.27), 0.03, 0.02), paint, (0, 0, 0.03))
    items, x, z = [foot], 0.0, 0.05
    for name, angle, length in (("lower arm", lower_angle, lengths[0]), ("upper arm", upper_angle, lengths[1])):
        across, up = length * sin(radians(angle)), length * cos(radians(angle))
        items.append(Item(name, Cylinder(0.022, length), metal, (x + across, 0, z + up), (0, angle, 0)))
        x, z = x + 2 * across, z + 2 * up
        items.append(Item("joint", Sphere(0.045), metal, (x, 0, z)))
    head = Item("head", RoundCone(0.14, 0.06, 0.2), paint, (x, 0, z), (0, rng.uniform(-20, 20), 0))
    return [*items, head]


def _make_hanging_lamp(rng: np.random.Generator) -> list[Item]:
    half_height, radius = rng.uniform(0.35, 0.5), rng.uniform(0.3, 0.45)
    ceiling_mount = Item("rose", Cylinder(0.12, 0.025, 0.02), _random_metal(rng), (0, 0, 2 * half_height + 0.3))
    return [
        ceiling_mount,
        Item("cord", Cylinder(0.015, half_height), DARK, (0, 0, half_height + 0.3)),
        *_make_shade(rng, (0, 0, 0.0), radius),
    ]


def _make_shade(rng: np.random.Generator, base: Vec3, radius: float) -> list[Item]:
    """A shade whose lowest point is at `base`."""
    x, y, z = base
    material = random_cloth(rng) if rng.uniform() < 0.7 else WHITE
    match rng.integers(4):
        case 0:
            return [Item("shade", Cylinder(radius, 0.6 * radius, 0.02), material, (x, y, z + 0.6 * radius))]
        case 1:
            return [Item("shade", Sphere(0.75 * radius), material, (x, y, z + 0.75 * radius))]
        case 2:
            tip = 0.3 * radius
            return [Item("shade", RoundCone(0.6 * radius, tip, radius), material, (x, y, z + 0.6 * radius))]
        case _:
            dome = Bowl(0.9 * radius, 0.0, 0.03)
            bulb = Item("bulb", Sphere(0.3 * radius), WHITE, (x, y, z + 0.25 * radius))
            return [bulb, Item("shade", dome, random_paint(rng), (x, y, z + 0.05), (180, 0, 0))]


def _random_metal(rng: np.random.Generator) -> Material:
    return (STEEL, BRASS, DARK)[rng.integers(3)]
