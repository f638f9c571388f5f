"""Primitive shapes as zero level sets of signed distance functions: dimensions, bounds, and rows for compiled loops.

Each shape is defined in its own axes (z up); lengths are in world units. `signed_distance.py` has the SDF of each
`shape_id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

Vec3 = tuple[float, float, float]
ShapeRow = tuple[float, float, float, float]

# The radius of a vase is radius + swell cos(VASE_FREQUENCY (z / half_height + VASE_PHASE)). It is hollow above
# z = VASE_FLOOR half_height.
VASE_FREQUENCY, VASE_PHASE, VASE_FLOOR = 2.2, 0.35, 0.3


@dataclass(frozen=True)
class Sphere:
    """A ball centered on the origin."""

    radius: float
    shape_id: ClassVar[int] = 0
    is_convex: ClassVar[bool] = True

    def to_row(self) -> ShapeRow:
        """The dimensions, as the compiled loops read them."""
        return (self.radius, 0.0, 0.0, 0.0)

    def bounds(self) -> tuple[Vec3, Vec3]:
        """Lower and upper corner of the bounding box."""
        r = self.radius
        return (-r, -r, -r), (r, r, r)


@dataclass(frozen=True)
class Box:
    """A box with edges rounded by radius `rounding`, centered on the origin."""

    half_extents: Vec3
    rounding: float = 0.0
    shape_id: ClassVar[int] = 1
    is_convex: ClassVar[bool] = True

    def to_row(self) -> ShapeRow:
        """The dimensions, as the compiled loops read them."""
        return (*self.half_extents, self.rounding)

    def bounds(self) -> tuple[Vec3, Vec3]:
        """Lower and upper corner of the bounding box."""
        x, y, z = self.half_extents
        return (-x, -y, -z), (x, y, z)


@dataclass(frozen=True)
class Cylinder:
    """A cylinder about the z axis with edges rounded by radius `rounding`, centered on the origin."""

    radius: float
    half_height: float
    rounding: float = 0.0
    shape_id: ClassVar[int] = 2
    is_convex: ClassVar[bool] = True

    def to_row(self) -> ShapeRow:
        """The dimensions, as the compiled loops read them."""
        return (self.radius, self.half_height, self.rounding, 0.0)

    def bounds(self) -> tuple[Vec3, Vec3]:
        """Lower and upper corner of the bounding box."""
        r, h = self.radius, self.half_height
        return (-r, -r, -h), (r, r, h)


@dataclass(frozen=True)
class Torus:
    """A torus about the z axis; with `major_radius < minor_radius` its outer sheet is apple-shaped."""

    major_radius: float
    minor_radius: float
    shape_id: ClassVar[int] = 3
    is_convex: ClassVar[bool] = False

    def to_row(self) -> ShapeRow:
        """The dimensions, as the compiled loops read them."""
        return (self.major_radius, self.minor_radius, 0.0, 0.0)

    def bounds(self) -> tuple[Vec3, Vec3]:
        """Lower and upper corner of the bounding box."""
        r, h = self.major_radius + self.minor_radius, self.minor_radius
        return (-r, -r, -h), (r, r, h)


@dataclass(frozen=True)
class RoundCone:
    """The convex hull of a ball of `base_radius` at the origin and one of `tip_radius` at z = `height`.

    Requires `height > |base_radius - tip_radius|`.
    """

    base_radius: float
    tip_radius: float
    height: float
    shape_id: ClassVar[int] = 4
    is_convex: ClassVar[bool] = True

    def to_row(self) -> ShapeRow:
        """The dimensions, as the compiled loops read them."""
        return (self.base_radius, self.tip_radius, self.height, 0.0)

    def bounds(self) -> tuple[Vec3, Vec3]:
        """Lower and upper corner of the bounding box."""
        r = max(self.base_radius, self.tip_radius)
        return (-r, -r, -self.base_radius), (r, r, self.height + self.tip_radius)


@dataclass(frozen=True)
class Bowl:
    """The part below z = `cut_height` of a spherical shell of mid-surface `radius` and half thickness `wall`, edge
    rounded."""

    radius: float
    cut_height: float
    wall: float
    shape_id: ClassVar[int] = 5
    is_convex: ClassVar[bool] = False

    def to_row(self) -> ShapeRow:
        """The dimensions, as the compiled loops read them."""
        return (self.radius, self.cut_height, self.wall, 0.0)

    def bounds(self) -> tuple[Vec3, Vec3]:
        """Lower and upper corner of the bounding box."""
        r = self.radius + self.wall
        return (-r, -r, -r), (r, r, self.cut_height + self.wall)


@dataclass(frozen=True)
class Vase:
    """A surface of revolution about the z axis, open at the top, with a hollow neck whose wall has thickness `wall`."""

    radius: float
    swell: float
    half_height: float
    wall: float
    shape_id: ClassVar[int] = 6
    is_convex: ClassVar[bool] = False

    def to_row(self) -> ShapeRow:
        """The dimensions, as the compiled loops read them."""
        return (self.radius, self.swell, self.half_height, self.wall)

    def bounds(self) -> tuple[Vec3, Vec3]:
        """Lower and upper corner of the bounding box."""
        r, h = self.radius + self.swell, self.half_height
        return (-r, -r, -h), (r, r, h)


Shape = Sphere | Box | Cylinder | Torus | RoundCone | Bowl | Vase
