"""Random materials for the members of a family."""

from __future__ import annotations

import colorsys

import numpy as np

from lumifield.synthetic.stage import Checker, Clouds, Color, Material, Plain, Stripes, Wood

WHITE = Material(Plain((0.80, 0.79, 0.75)), coat=0.04)
DARK = Material(Plain((0.03, 0.03, 0.035)), coat=0.05)
STEEL = Material(Plain((0.62, 0.62, 0.64)), metal=True)
BRASS = Material(Plain((0.80, 0.60, 0.26)), metal=True)


def color(rng: np.random.Generator, saturation: tuple[float, float] = (0.45, 0.95)) -> Color:
    """A linear color of any hue, neither black nor white."""
    red, green, blue = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(0.4, 0.95))
    return red**2.2, green**2.2, blue**2.2


def paint(rng: np.random.Generator) -> Material:
    """Glossy paint."""
    return Material(Plain(color(rng)), coat=0.05)


def wood(rng: np.random.Generator) -> Material:
    """Wood from pale to dark."""
    shade = rng.uniform(0.3, 1.0)
    light = (0.70 * shade, 0.48 * shade, 0.26 * shade)
    return Material(Wood(light, (0.55 * light[0], 0.48 * light[1], 0.42 * light[2]), rng.uniform(6, 14)))


def cloth(rng: np.random.Generator) -> Material:
    """Cloth in one color, with checks, stripes or blotches of another."""
    first, second = color(rng, (0.2, 0.9)), color(rng, (0.0, 0.5))
    textures = (Plain(first), Checker(first, second, 7.0), Stripes(first, second, 9.0), Clouds(first, second, 6.0))
    return Material(textures[rng.integers(len(textures))])
