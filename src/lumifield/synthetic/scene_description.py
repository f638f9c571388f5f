"""Description of a synthetic scene: items with materials under a sun and a sky, and its packed rows for compiled loops.

World axes have z up. Colors are linear RGB in [0, 1]; sky radiance and sun irradiance share one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from lumifield.synthetic.shapes import Shape, Vec3

LinearRgb = tuple[float, float, float]

# Padding of the bounds [world units], so that rounding never excludes a surface.
BOUNDS_MARGIN = 1e-5


@dataclass(frozen=True)
class SolidColor:
    """One color everywhere."""

    color: LinearRgb
    texture_id: ClassVar[int] = 0

    def to_row(self) -> tuple[LinearRgb, LinearRgb, float, float]:
        """The colors, frequency and slant, as the compiled loops read them."""
        return self.color, self.color, 1.0, 0.0


@dataclass(frozen=True)
class Checker:
    """A checkerboard in x and y with `frequency` squares per unit."""

    first_color: LinearRgb
    second_color: LinearRgb
    frequency: float
    texture_id: ClassVar[int] = 1

    def to_row(self) -> tuple[LinearRgb, LinearRgb, float, float]:
        """The colors, frequency and slant, as the compiled loops read them."""
        return self.first_color, self.second_color, self.frequency, 0.0


@dataclass(frozen=True)
class Stripes:
    """Bands around z, `frequency` pairs per unit of height, rising by `slant` pairs per turn."""

    first_color: LinearRgb
    second_color: LinearRgb
    frequency: float
    slant: float = 0.0
    texture_id: ClassVar[int] = 2

    def to_row(self) -> tuple[LinearRgb, LinearRgb, float, float]:
        """The colors, frequency and slant, as the compiled loops read them."""
        return self.first_color, self.second_color, self.frequency, self.slant


@dataclass(frozen=True)
class Wood:
    """Annual rings around an axis parallel to x, `frequency` per unit, with grain along x."""

    light_color: LinearRgb
    dark_color: LinearRgb
    frequency: float
    texture_id: ClassVar[int] = 3

    def to_row(self) -> tuple[LinearRgb, LinearRgb, float, float]:
        """The colors, frequency and slant, as the compiled loops read them."""
        return self.light_color, self.dark_color, self.frequency, 0.0


@dataclass(frozen=True)
class Clouds:
    """Fractal noise between two colors, `frequency` lattice cells per unit."""

    first_color: LinearRgb
    second_color: LinearRgb
    frequency: float
    texture_id: ClassVar[int] = 4

    def to_row(self) -> tuple[LinearRgb, LinearRgb, float, float]:
        """The colors, frequency and slant, as the compiled loops read them."""
        return self.first_color, self.second_color, self.frequency, 0.0


@dataclass(frozen=True)
class Blotches:
    """Fractal noise in two colors with sharp transitions, `frequency` lattice cells per unit; it never repeats."""

    first_color: LinearRgb
    second_color: LinearRgb
    frequency: float
    texture_id: ClassVar[int] = 5

    def to_row(self) -> tuple[LinearRgb, LinearRgb, float, float]:
        """The colors, frequency and slant, as the compiled loops read them."""
        return self.first_color, self.second_color, self.frequency, 0.0


Texture = SolidColor | Checker | Stripes | Wood | Clouds | Blotches


@dataclass(frozen=True)
class Material:
    """A diffuse texture under a clear coat, or a bare metal.

    `coat_reflectance` is the reflectance of the coat at normal incidence.
    """

    texture: Texture
    coat_reflectance: float = 0.0
    is_metal: bool = False


@dataclass(frozen=True)
class Item:
    """A named shape at `center`, rotated about x, then y, then z by `euler_angles` [degrees]."""

    name: str
    shape: Shape
    material: Material
    center: Vec3 = (0.0, 0.0, 0.0)
    euler_angles: Vec3 = (0.0, 0.0, 0.0)

    def rotation_matrix(self) -> Float[np.ndarray, "3 3"]:
        """The rotation from the axes of the shape to world axes."""
        x, y, z = (radians(angle) for angle in self.euler_angles)
        about_x = np.array([[1, 0, 0], [0, cos(x), -sin(x)], [0, sin(x), cos(x)]])
        about_y = np.array([[cos(y), 0, sin(y)], [0, 1, 0], [-sin(y), 0, cos(y)]])
        about_z = np.array([[cos(z), -sin(z), 0], [sin(z), cos(z), 0], [0, 0, 1]])
        return about_z @ about_y @ about_x

    def world_bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lower and upper corner of the bounding box in world coordinates."""
        lower, upper = (np.array(corner) for corner in self.shape.bounds())
        center = self.rotation_matrix() @ ((lower + upper) / 2) + self.center
        half_extents = np.abs(self.rotation_matrix()) @ ((upper - lower) / 2) + BOUNDS_MARGIN
        return np.stack([center - half_extents, center + half_extents])


@dataclass(frozen=True)
class Lighting:
    """A sun of angular radius `sun_radius` [degrees] and a sky whose radiance is interpolated between three colors.

    `sun_irradiance` is that of a surface that faces the sun.
    """

    sun_direction: Vec3 = (-0.55, -0.45, 0.85)
    sun_radius: float = 4.0
    sun_irradiance: LinearRgb = (2.45, 2.25, 1.95)
    zenith: LinearRgb = (0.40, 0.47, 0.60)
    horizon: LinearRgb = (0.55, 0.55, 0.53)
    ground: LinearRgb = (0.20, 0.18, 0.16)


@dataclass(frozen=True)
class SyntheticScene:
    """Items and their lighting."""

    items: tuple[Item, ...]
    lighting: Lighting = Lighting()


# Rows of the items and of the lighting, as the compiled loops read them.
ITEM_DTYPE = np.dtype(
    [
        ("shape", np.int64),
        ("dimensions", np.float64, 4),
        ("is_convex", np.bool_),
        ("center", np.float64, 3),
        ("rotation", np.float64, (3, 3)),
        ("lower", np.float64, 3),
        ("upper", np.float64, 3),
        ("texture", np.int64),
        ("first_color", np.float64, 3),
        ("second_color", np.float64, 3),
        ("frequency", np.float64),
        ("slant", np.float64),
        ("coat_reflectance", np.float64),
        ("is_metal", np.bool_),
    ],
    align=True,
)
LIGHTING_DTYPE = np.dtype(
    [
        ("sun_direction", np.float64, 3),
        ("sun_irradiance", np.float64, 3),
        ("sun_cosine", np.float64),
        ("sky_colors", np.float64, (3, 3)),
    ],
    align=True,
)


class PackedScene(NamedTuple):
    """A scene as structured arrays for the compiled loops: one row per item, their indices, and one row for the
    lighting."""

    items: np.ndarray
    all_items: np.ndarray
    lighting: np.ndarray


def pack_scene(scene: SyntheticScene) -> PackedScene:
    """Packs a scene into structured arrays."""
    lighting = scene.lighting
    sun_direction = np.array(lighting.sun_direction) / np.linalg.norm(lighting.sun_direction)
    sky = (lighting.zenith, lighting.horizon, lighting.ground)
    return PackedScene(
        items=np.array([pack_item(item) for item in scene.items], ITEM_DTYPE),
        all_items=np.arange(len(scene.items)),
        lighting=np.array(
            [(sun_direction, lighting.sun_irradiance, cos(radians(lighting.sun_radius)), sky)], LIGHTING_DTYPE
        ),
    )


def pack_item(item: Item) -> tuple[object, ...]:
    """The row of one item, in the order of `ITEM_DTYPE`."""
    shape, material = item.shape, item.material
    return (
        shape.shape_id,
        shape.to_row(),
        shape.is_convex,
        item.center,
        item.rotation_matrix(),
        *item.world_bounds(),
        material.texture.texture_id,
        *material.texture.to_row(),
        material.coat_reflectance,
        material.is_metal,
    )
