"""Shapes, each the zero set of a signed distance: their dimensions, bounds and rows for the compiled loops.

Every shape stands in its own axes (z up); lengths are world units. `distance.py` has the distance of each `kind`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

Point = tuple[float, float, float]
Row = tuple[float, float, float, float]

# A vase's radius is RADIUS + SWELL cos(BEND (z / half height + BELLY)); it is hollow above HOLLOW half heights.
BEND, BELLY, HOLLOW = 2.2, 0.35, 0.3


@dataclass(frozen=True)
class Sphere:
    """A ball about the origin."""

    radius: float
    kind: ClassVar[int] = 0
    convex: ClassVar[bool] = True

    def row(self) -> Row:
        """Dimensions as the compiled loops take them."""
        return (self.radius, 0.0, 0.0, 0.0)

    def bounds(self) -> tuple[Point, Point]:
        """Lower and upper corner."""
        r = self.radius
        return (-r, -r, -r), (r, r, r)


@dataclass(frozen=True)
class Box:
    """A box of half extents `half`, its edges rounded by radius `rounding`, centerd on the origin."""

    half: Point
    rounding: float = 0.0
    kind: ClassVar[int] = 1
    convex: ClassVar[bool] = True

    def row(self) -> Row:
        """Dimensions as the compiled loops take them."""
        return (*self.half, self.rounding)

    def bounds(self) -> tuple[Point, Point]:
        """Lower and upper corner."""
        x, y, z = self.half
        return (-x, -y, -z), (x, y, z)


@dataclass(frozen=True)
class Cylinder:
    """A cylinder about z, its rims rounded by radius `rounding`, centerd on the origin."""

    radius: float
    half_height: float
    rounding: float = 0.0
    kind: ClassVar[int] = 2
    convex: ClassVar[bool] = True

    def row(self) -> Row:
        """Dimensions as the compiled loops take them."""
        return (self.radius, self.half_height, self.rounding, 0.0)

    def bounds(self) -> tuple[Point, Point]:
        """Lower and upper corner."""
        r, h = self.radius, self.half_height
        return (-r, -r, -h), (r, r, h)


@dataclass(frozen=True)
class Torus:
    """A ring about z; with `major < minor` its outer sheet is the shape of an apple."""

    major: float
    minor: float
    kind: ClassVar[int] = 3
    convex: ClassVar[bool] = False

    def row(self) -> Row:
        """Dimensions as the compiled loops take them."""
        return (self.major, self.minor, 0.0, 0.0)

    def bounds(self) -> tuple[Point, Point]:
        """Lower and upper corner."""
        r, h = self.major + self.minor, self.minor
        return (-r, -r, -h), (r, r, h)


@dataclass(frozen=True)
class Cone:
    """The hull of a ball of radius `base` at the origin and one of radius `tip` at height `height > |base - tip|`."""

    base: float
    tip: float
    height: float
    kind: ClassVar[int] = 4
    convex: ClassVar[bool] = True

    def row(self) -> Row:
        """Dimensions as the compiled loops take them."""
        return (self.base, self.tip, self.height, 0.0)

    def bounds(self) -> tuple[Point, Point]:
        """Lower and upper corner."""
        r = max(self.base, self.tip)
        return (-r, -r, -self.base), (r, r, self.height + self.tip)


@dataclass(frozen=True)
class Bowl:
    """The part below `z = cut` of a spherical shell of mid-surface `radius` and half thickness `wall`, rim rounded."""

    radius: float
    cut: float
    wall: float
    kind: ClassVar[int] = 5
    convex: ClassVar[bool] = False

    def row(self) -> Row:
        """Dimensions as the compiled loops take them."""
        return (self.radius, self.cut, self.wall, 0.0)

    def bounds(self) -> tuple[Point, Point]:
        """Lower and upper corner."""
        r = self.radius + self.wall
        return (-r, -r, -r), (r, r, self.cut + self.wall)


@dataclass(frozen=True)
class Vase:
    """A vessel turned about z, open at the top and hollow in its neck, where the wall is `wall` thick."""

    radius: float
    swell: float
    half_height: float
    wall: float
    kind: ClassVar[int] = 6
    convex: ClassVar[bool] = False

    def row(self) -> Row:
        """Dimensions as the compiled loops take them."""
        return (self.radius, self.swell, self.half_height, self.wall)

    def bounds(self) -> tuple[Point, Point]:
        """Lower and upper corner."""
        r, h = self.radius + self.swell, self.half_height
        return (-r, -r, -h), (r, r, h)


Shape = Sphere | Box | Cylinder | Torus | Cone | Bowl | Vase
