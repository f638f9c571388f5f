"""Materials for random objects."""

from __future__ import annotations

import colorsys

import numpy as np

from lumifield.synthetic.scene_description import Checker, Clouds, LinearRgb, Material, SolidColor, Stripes, Wood

WHITE = Material(SolidColor((0.80, 0.79, 0.75)), coat_reflectance=0.04)
DARK = Material(SolidColor((0.03, 0.03, 0.035)), coat_reflectance=0.05)
STEEL = Material(SolidColor((0.62, 0.62, 0.64)), is_metal=True)
BRASS = Material(SolidColor((0.80, 0.60, 0.26)), is_metal=True)


def random_color(rng: np.random.Generator, saturation: tuple[float, float] = (0.45, 0.95)) -> LinearRgb:
    """A linear color of random hue, neither black nor white."""
    red, green, blue = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(0.4, 0.95))
    return red**2.2, green**2.2, blue**2.2


def random_paint(rng: np.random.Generator) -> Material:
    """Glossy paint of a random color."""
    return Material(SolidColor(random_color(rng)), coat_reflectance=0.05)


def random_wood(rng: np.random.Generator) -> Material:
    """Wood of random brightness."""
    shade = rng.uniform(0.3, 1.0)
    light = (0.70 * shade, 0.48 * shade, 0.26 * shade)
    return Material(Wood(light, (0.55 * light[0], 0.48 * light[1], 0.42 * light[2]), rng.uniform(6, 14)))


def random_cloth(rng: np.random.Generator) -> Material:
    """Cloth in one random color, or with checks, stripes or clouds of a second one."""
    first, second = random_color(rng, (0.2, 0.9)), random_color(rng, (0.0, 0.5))
    textures = (SolidColor(first), Checker(first, second, 7.0), Stripes(first, second, 9.0), Clouds(first, second, 6.0))
    return Material(textures[rng.integers(len(textures))])
