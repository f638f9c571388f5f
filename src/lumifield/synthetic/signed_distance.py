"""Signed distance functions (SDFs) of the shapes and their normals: compiled, on points in the axes of an item.

An SDF is positive outside the shape and never exceeds the true distance, so sphere tracing (Hart 1996) is safe. It is
exact outside all shapes except `Vase`, for which it is a lower bound.
"""

from __future__ import annotations

from math import cos, sqrt

from lumifield.runtime.jit import inner
from lumifield.synthetic.shapes import VASE_FLOOR, VASE_FREQUENCY, VASE_PHASE
from lumifield.synthetic.vectors import dot, fast_hypot, normalize_vector

# Step of the central differences for normals: rounding and curvature both contribute errors of about 1e-10.
DIFFERENCE_STEP = 1e-5


@inner
def box_distance(p, x, y, z, rounding):
    """SDF of `Box` with half extents x, y, z."""
    a, b, c = abs(p[0]) - x + rounding, abs(p[1]) - y + rounding, abs(p[2]) - z + rounding
    outside = sqrt(max(a, 0.0) ** 2 + max(b, 0.0) ** 2 + max(c, 0.0) ** 2)
    return outside + min(max(a, max(b, c)), 0.0) - rounding


@inner
def cylinder_distance(p, radius, half_height, rounding):
    """SDF of `Cylinder`."""
    a, b = fast_hypot(p[0], p[1]) - radius + rounding, abs(p[2]) - half_height + rounding
    return sqrt(max(a, 0.0) ** 2 + max(b, 0.0) ** 2) + min(max(a, b), 0.0) - rounding


@inner
def cone_distance(p, base, tip, height):
    """SDF of `RoundCone`: of the ball at either end, or of the cone between them that is tangent to both."""
    taper = (base - tip) / height
    cosine = sqrt(1.0 - taper * taper)
    rho, z = fast_hypot(p[0], p[1]), p[2]
    side = cosine * z - taper * rho
    if side < 0.0:
        return fast_hypot(rho, z) - base
    if side > cosine * height:
        return fast_hypot(rho, z - height) - tip
    return cosine * rho + taper * z - base


@inner
def bowl_distance(p, radius, cut, wall):
    """SDF of `Bowl`: of the spherical shell, and beyond its cut of the rounded edge."""
    rho, z = fast_hypot(p[0], p[1]), p[2]
    edge_radius = sqrt(radius * radius - cut * cut)
    if cut * rho < edge_radius * z:
        return fast_hypot(rho - edge_radius, z - cut) - wall
    return abs(fast_hypot(rho, z) - radius) - wall


@inner
def vase_distance(p, radius, swell, half_height, wall):
    """A lower bound of the SDF of `Vase`."""
    rho, z = fast_hypot(p[0], p[1]), p[2]
    taper = swell * VASE_FREQUENCY / half_height
    # The radius of the profile changes by at most `taper` per unit of height: the scale makes the bound 1-Lipschitz.
    scale = 1.0 / sqrt(1.0 + taper * taper)
    outer = (rho - radius - swell * cos(VASE_FREQUENCY * (z / half_height + VASE_PHASE))) * scale
    cavity = max(outer + wall * scale, VASE_FLOOR * half_height - z)
    return max(max(outer, abs(z) - half_height), -cavity)


@inner
def item_distance(item, p):
    """The SDF of an item at point `p` in its own axes."""
    shape, dimensions = item.shape, item.dimensions
    if shape == 0:
        return sqrt(dot(p, p)) - dimensions[0]
    if shape == 1:
        return box_distance(p, dimensions[0], dimensions[1], dimensions[2], dimensions[3])
    if shape == 2:
        return cylinder_distance(p, dimensions[0], dimensions[1], dimensions[2])
    if shape == 3:
        return fast_hypot(fast_hypot(p[0], p[1]) - dimensions[0], p[2]) - dimensions[1]
    if shape == 4:
        return cone_distance(p, dimensions[0], dimensions[1], dimensions[2])
    if shape == 5:
        return bowl_distance(p, dimensions[0], dimensions[1], dimensions[2])
    return vase_distance(p, dimensions[0], dimensions[1], dimensions[2], dimensions[3])


@inner
def rotate_to_item(item, v):
    """Rotates a direction from world axes to those of the item."""
    r = item.rotation
    return (
        r[0, 0] * v[0] + r[1, 0] * v[1] + r[2, 0] * v[2],
        r[0, 1] * v[0] + r[1, 1] * v[1] + r[2, 1] * v[2],
        r[0, 2] * v[0] + r[1, 2] * v[1] + r[2, 2] * v[2],
    )


@inner
def rotate_to_world(item, v):
    """Rotates a direction from the item's axes to world axes."""
    r = item.rotation
    return (
        r[0, 0] * v[0] + r[0, 1] * v[1] + r[0, 2] * v[2],
        r[1, 0] * v[0] + r[1, 1] * v[1] + r[1, 2] * v[2],
        r[2, 0] * v[0] + r[2, 1] * v[1] + r[2, 2] * v[2],
    )


@inner
def transform_to_item(item, point):
    """Transforms a point from world coordinates to those of the item."""
    c = item.center
    return rotate_to_item(item, (point[0] - c[0], point[1] - c[1], point[2] - c[2]))


@inner
def item_normal(item, p):
    """The unit outward normal at surface point `p`, both in the item's axes, by central differences."""
    x, y, z = p
    return normalize_vector(
        (
            item_distance(item, (x + DIFFERENCE_STEP, y, z)) - item_distance(item, (x - DIFFERENCE_STEP, y, z)),
            item_distance(item, (x, y + DIFFERENCE_STEP, z)) - item_distance(item, (x, y - DIFFERENCE_STEP, z)),
            item_distance(item, (x, y, z + DIFFERENCE_STEP)) - item_distance(item, (x, y, z - DIFFERENCE_STEP)),
        )
    )
