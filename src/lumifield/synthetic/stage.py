"""A stage: items with materials under a sun and a sky, and its rows for the compiled loops.

World axes are z up; colors are linear RGB, 0 to 1; the sky's radiance and the sun's irradiance share one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from lumifield.synthetic.shapes import Point, Shape

Color = tuple[float, float, float]

# The bounds are grown by this much, so that rounding never loses a surface that lies in them.
MARGIN = 1e-5


@dataclass(frozen=True)
class Plain:
    """One color everywhere."""

    color: Color
    kind: ClassVar[int] = 0

    def row(self) -> tuple[Color, Color, float, float]:
        """Two colors, the repeats per unit, and the slant, as the compiled loops take them."""
        return self.color, self.color, 1.0, 0.0


@dataclass(frozen=True)
class Checker:
    """Squares in x and y, `repeats` of them per unit."""

    first: Color
    second: Color
    repeats: float
    kind: ClassVar[int] = 1

    def row(self) -> tuple[Color, Color, float, float]:
        """Two colors, the repeats per unit, and the slant, as the compiled loops take them."""
        return self.first, self.second, self.repeats, 0.0


@dataclass(frozen=True)
class Stripes:
    """Bands about z, `repeats` pairs per unit of height, climbing `slant` pairs in one turn."""

    first: Color
    second: Color
    repeats: float
    slant: float = 0.0
    kind: ClassVar[int] = 2

    def row(self) -> tuple[Color, Color, float, float]:
        """Two colors, the repeats per unit, and the slant, as the compiled loops take them."""
        return self.first, self.second, self.repeats, self.slant


@dataclass(frozen=True)
class Wood:
    """Year rings about an axis beside x, `repeats` per unit, with grain along x."""

    light: Color
    dark: Color
    repeats: float
    kind: ClassVar[int] = 3

    def row(self) -> tuple[Color, Color, float, float]:
        """Two colors, the repeats per unit, and the slant, as the compiled loops take them."""
        return self.light, self.dark, self.repeats, 0.0


@dataclass(frozen=True)
class Clouds:
    """Fractal noise between two colors, `repeats` blobs per unit."""

    first: Color
    second: Color
    repeats: float
    kind: ClassVar[int] = 4

    def row(self) -> tuple[Color, Color, float, float]:
        """Two colors, the repeats per unit, and the slant, as the compiled loops take them."""
        return self.first, self.second, self.repeats, 0.0


@dataclass(frozen=True)
class Blotches:
    """Fractal noise in two colors with narrow passages, `repeats` blobs per unit: nowhere the same."""

    first: Color
    second: Color
    repeats: float
    kind: ClassVar[int] = 5

    def row(self) -> tuple[Color, Color, float, float]:
        """Two colors, the repeats per unit, and the slant, as the compiled loops take them."""
        return self.first, self.second, self.repeats, 0.0


Texture = Plain | Checker | Stripes | Wood | Clouds | Blotches


@dataclass(frozen=True)
class Material:
    """A matt texture under a clear coat that reflects `coat` of the light that meets it head-on, or a bare metal."""

    texture: Texture
    coat: float = 0.0
    metal: bool = False


@dataclass(frozen=True)
class Item:
    """A named shape at `center`, turned about x, then y, then z by `turn` [degrees]."""

    name: str
    shape: Shape
    material: Material
    center: Point = (0.0, 0.0, 0.0)
    turn: Point = (0.0, 0.0, 0.0)

    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """The matrix from the shape's axes to the world's."""
        x, y, z = (radians(angle) for angle in self.turn)
        about_x = np.array([[1, 0, 0], [0, cos(x), -sin(x)], [0, sin(x), cos(x)]])
        about_y = np.array([[cos(y), 0, sin(y)], [0, 1, 0], [-sin(y), 0, cos(y)]])
        about_z = np.array([[cos(z), -sin(z), 0], [sin(z), cos(z), 0], [0, 0, 1]])
        return about_z @ about_y @ about_x

    def world_bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lower and upper corner in the world."""
        lower, upper = (np.array(corner) for corner in self.shape.bounds())
        middle = self.rotation() @ ((lower + upper) / 2) + self.center
        reach = np.abs(self.rotation()) @ ((upper - lower) / 2) + MARGIN
        return np.stack([middle - reach, middle + reach])


@dataclass(frozen=True)
class Light:
    """A sun of angular radius `radius` [degrees] that gives `sun` on what faces it, and a sky of three colors."""

    towards: Point = (-0.55, -0.45, 0.85)
    radius: float = 4.0
    sun: Color = (2.45, 2.25, 1.95)
    zenith: Color = (0.40, 0.47, 0.60)
    horizon: Color = (0.55, 0.55, 0.53)
    ground: Color = (0.20, 0.18, 0.16)


@dataclass(frozen=True)
class Stage:
    """Items under a light."""

    items: tuple[Item, ...]
    light: Light = Light()


# A row for each item and one for the light, as the compiled loops read them.
ITEM = np.dtype(
    [
        ("kind", np.int64),
        ("size", np.float64, 4),
        ("convex", np.bool_),
        ("center", np.float64, 3),
        ("rotation", np.float64, (3, 3)),
        ("lower", np.float64, 3),
        ("upper", np.float64, 3),
        ("texture", np.int64),
        ("first", np.float64, 3),
        ("second", np.float64, 3),
        ("repeats", np.float64),
        ("slant", np.float64),
        ("coat", np.float64),
        ("metal", np.bool_),
    ],
    align=True,
)
LIGHT = np.dtype(
    [("towards", np.float64, 3), ("sun", np.float64, 3), ("sun_cosine", np.float64), ("sky", np.float64, (3, 3))],
    align=True,
)


class Packed(NamedTuple):
    """A stage as rows: one an item, and one of the light; `all` numbers the items."""

    items: np.ndarray
    all: np.ndarray
    light: np.ndarray


def pack(stage: Stage) -> Packed:
    """The rows that the compiled loops take."""
    light = stage.light
    towards = np.array(light.towards) / np.linalg.norm(light.towards)
    sky = (light.zenith, light.horizon, light.ground)
    return Packed(
        items=np.array([item_row(item) for item in stage.items], ITEM),
        all=np.arange(len(stage.items)),
        light=np.array([(towards, light.sun, cos(radians(light.radius)), sky)], LIGHT),
    )


def item_row(item: Item) -> tuple[object, ...]:
    """One item in the order of `ITEM`."""
    shape, material = item.shape, item.material
    return (
        shape.kind,
        shape.row(),
        shape.convex,
        item.center,
        item.rotation(),
        *item.world_bounds(),
        material.texture.kind,
        *material.texture.row(),
        material.coat,
        material.metal,
    )
