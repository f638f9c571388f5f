"""Sculptures: a few solids on and in each other, with textures of strong contrast, for captures of one object."""

from __future__ import annotations

import numpy as np

from lumifield.synthetic.materials import color
from lumifield.synthetic.shapes import Box, Cone, Cylinder, Shape, Sphere, Torus
from lumifield.synthetic.stage import Blotches, Checker, Item, Light, Material, Stage, Stripes

# Light from all sides, so that no side is without contrast.
STUDIO = Light(sun=(1.2, 1.1, 1.0), zenith=(0.8, 0.83, 0.9), horizon=(0.8, 0.8, 0.78), ground=(0.6, 0.58, 0.55))


def sculpture(rng: np.random.Generator) -> Stage:
    """A trunk with two to four parts that stick out of it."""
    trunk = Item("trunk", _trunk(rng), _material(rng), turn=_turn(rng, 25))
    return Stage((trunk, *(_part(rng, index) for index in range(rng.integers(2, 5)))), STUDIO)


def _trunk(rng: np.random.Generator) -> Shape:
    match rng.integers(3):
        case 0:
            x, y, z = rng.uniform(0.3, 0.5, 3).tolist()
            return Box((x, y, z), 0.06)
        case 1:
            return Cylinder(rng.uniform(0.3, 0.45), rng.uniform(0.35, 0.6), 0.05)
        case _:
            return Sphere(rng.uniform(0.4, 0.55))


def _part(rng: np.random.Generator, index: int) -> Item:
    """A solid whose middle lies near the surface of the trunk."""
    azimuth, height = 2.4 * index + rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.6)
    match rng.integers(4):
        case 0:
            shape = Sphere(rng.uniform(0.18, 0.3))
        case 1:
            shape = Torus(rng.uniform(0.22, 0.3), rng.uniform(0.08, 0.12))
        case 2:
            shape = Cone(rng.uniform(0.2, 0.28), rng.uniform(0.05, 0.1), rng.uniform(0.35, 0.5))
        case _:
            x, y, z = rng.uniform(0.15, 0.28, 3).tolist()
            shape = Box((x, y, z), 0.03)
    center = (0.45 * float(np.cos(azimuth)), 0.45 * float(np.sin(azimuth)), height)
    return Item(f"part {index}", shape, _material(rng), center, _turn(rng, 60))


def _turn(rng: np.random.Generator, most: float) -> tuple[float, float, float]:
    x, y, z = rng.uniform(-most, most, 3).tolist()
    return x, y, z


def _material(rng: np.random.Generator) -> Material:
    """A light and a dark color, matt."""
    r, g, b = color(rng, (0.0, 0.5))
    bright = 0.9 / max(r, g, b)
    light, dark = (r * bright, g * bright, b * bright), (0.05 + 0.04 * b, 0.05 + 0.04 * r, 0.05 + 0.04 * g)
    repeats = rng.uniform(1.5, 2.5)
    textures = (Blotches(light, dark, repeats), Checker(light, dark, repeats), Stripes(light, dark, repeats, 2.0))
    # What repeats itself may be taken for its neighbor: it is rarer.
    return Material(textures[rng.choice(3, p=(0.6, 0.2, 0.2))])
