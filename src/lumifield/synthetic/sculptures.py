"""Random sculptures of a few intersecting solids with high-contrast textures, for object captures."""

from __future__ import annotations

import numpy as np

from lumifield.synthetic.materials import random_color
from lumifield.synthetic.scene_description import Blotches, Checker, Item, Lighting, Material, Stripes, SyntheticScene
from lumifield.synthetic.shapes import Box, Cylinder, RoundCone, Shape, Sphere, Torus

# Strong light from all directions, so that every side shows contrast.
STUDIO_LIGHTING = Lighting(
    sun_irradiance=(1.2, 1.1, 1.0), zenith=(0.8, 0.83, 0.9), horizon=(0.8, 0.8, 0.78), ground=(0.6, 0.58, 0.55)
)


def make_sculpture(rng: np.random.Generator) -> SyntheticScene:
    """A trunk with two to four parts that protrude from it."""
    trunk = Item("trunk", _random_trunk(rng), _random_material(rng), euler_angles=_random_rotation(rng, 25))
    return SyntheticScene((trunk, *(_random_part(rng, index) for index in range(rng.integers(2, 5)))), STUDIO_LIGHTING)


def _random_trunk(rng: np.random.Generator) -> Shape:
    match rng.integers(3):
        case 0:
            x, y, z = rng.uniform(0.3, 0.5, 3).tolist()
            return Box((x, y, z), 0.06)
        case 1:
            return Cylinder(rng.uniform(0.3, 0.45), rng.uniform(0.35, 0.6), 0.05)
        case _:
            return Sphere(rng.uniform(0.4, 0.55))


def _random_part(rng: np.random.Generator, index: int) -> Item:
    """A solid centered near the surface of the trunk."""
    azimuth, height = 2.4 * index + rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.6)
    match rng.integers(4):
        case 0:
            shape = Sphere(rng.uniform(0.18, 0.3))
        case 1:
            shape = Torus(rng.uniform(0.22, 0.3), rng.uniform(0.08, 0.12))
        case 2:
            shape = RoundCone(rng.uniform(0.2, 0.28), rng.uniform(0.05, 0.1), rng.uniform(0.35, 0.5))
        case _:
            x, y, z = rng.uniform(0.15, 0.28, 3).tolist()
            shape = Box((x, y, z), 0.03)
    center = (0.45 * float(np.cos(azimuth)), 0.45 * float(np.sin(azimuth)), height)
    return Item(f"part {index}", shape, _random_material(rng), center, _random_rotation(rng, 60))


def _random_rotation(rng: np.random.Generator, max_angle: float) -> tuple[float, float, float]:
    x, y, z = rng.uniform(-max_angle, max_angle, 3).tolist()
    return x, y, z


def _random_material(rng: np.random.Generator) -> Material:
    """A diffuse texture of a light and a dark color."""
    r, g, b = random_color(rng, (0.0, 0.5))
    bright = 0.9 / max(r, g, b)
    light, dark = (r * bright, g * bright, b * bright), (0.05 + 0.04 * b, 0.05 + 0.04 * r, 0.05 + 0.04 * g)
    frequency = rng.uniform(1.5, 2.5)
    textures = (Blotches(light, dark, frequency), Checker(light, dark, frequency), Stripes(light, dark, frequency, 2.0))
    # Periodic textures can cause false matches: they are less frequent.
    return Material(textures[rng.choice(3, p=(0.6, 0.2, 0.2))])
