"""Signed distances of the shapes, and where rays meet them: compiled, on points and directions as tuples of three.

A distance is positive outside matter and never larger than the true one, so that steps of its length reach the
surface and do not pass it (sphere tracing, Hart 1996). It is exact outside all shapes but the vase.
"""

from __future__ import annotations

from math import cos, inf, sqrt

from lumifield.runtime.jit import inner
from lumifield.synthetic.shapes import BELLY, BEND, HOLLOW

# A ray has arrived when it is this close [world units]: to tell the truth, and to gather light, where a two-hundredth
# of a pixel is near enough. It starts LIFT above the surface that it leaves.
EXACT, NEAR, LIFT = 1e-7, 1e-4, 1e-3
# A ray that meets a surface at a grazing angle takes many steps: it loses that angle's sine of its distance in each.
STEPS = 2000
# Half the base of the central differences for normals: rounding and curvature both cost about 1e-10.
NUDGE = 1e-5


@inner
def dot(a, b):
    """The inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inner
def along(origin, direction, t):
    """The point at `t` on a ray."""
    return (origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2])


@inner
def unit(a):
    """The vector of length one in the direction of `a`."""
    scale = 1.0 / sqrt(dot(a, a))
    return (a[0] * scale, a[1] * scale, a[2] * scale)


@inner
def hypot(a, b):
    """The length of (a, b); the function of `math` guards against overflow and is several times slower."""
    return sqrt(a * a + b * b)


@inner
def box_distance(p, x, y, z, rounding):
    """Distance to `Box`."""
    a, b, c = abs(p[0]) - x + rounding, abs(p[1]) - y + rounding, abs(p[2]) - z + rounding
    outside = sqrt(max(a, 0.0) ** 2 + max(b, 0.0) ** 2 + max(c, 0.0) ** 2)
    return outside + min(max(a, max(b, c)), 0.0) - rounding


@inner
def cylinder_distance(p, radius, half_height, rounding):
    """Distance to `Cylinder`."""
    a, b = hypot(p[0], p[1]) - radius + rounding, abs(p[2]) - half_height + rounding
    return sqrt(max(a, 0.0) ** 2 + max(b, 0.0) ** 2) + min(max(a, b), 0.0) - rounding


@inner
def cone_distance(p, base, tip, height):
    """Distance to `Cone`: that of the ball at either end, or of the cone between them that touches both."""
    slope = (base - tip) / height
    steep = sqrt(1.0 - slope * slope)
    rho, z = hypot(p[0], p[1]), p[2]
    side = steep * z - slope * rho
    if side < 0.0:
        return hypot(rho, z) - base
    if side > steep * height:
        return hypot(rho, z - height) - tip
    return steep * rho + slope * z - base


@inner
def bowl_distance(p, radius, cut, wall):
    """Distance to `Bowl`: that of the sphere, or beyond its cut that of the rim."""
    rho, z = hypot(p[0], p[1]), p[2]
    lip = sqrt(radius * radius - cut * cut)
    if cut * rho < lip * z:
        return hypot(rho - lip, z - cut) - wall
    return abs(hypot(rho, z) - radius) - wall


@inner
def vase_distance(p, radius, swell, half_height, wall):
    """A lower bound of the distance to `Vase`."""
    rho, z = hypot(p[0], p[1]), p[2]
    slope = swell * BEND / half_height
    # Beside the profile the radius may change by `slope` per unit: dividing so keeps the distance a lower bound.
    flat = 1.0 / sqrt(1.0 + slope * slope)
    outer = (rho - radius - swell * cos(BEND * (z / half_height + BELLY))) * flat
    hollow = max(outer + wall * flat, HOLLOW * half_height - z)
    return max(max(outer, abs(z) - half_height), -hollow)


@inner
def distance(item, p):
    """Signed distance of an item at the point `p` of its own axes."""
    kind, size = item.kind, item.size
    if kind == 0:
        return sqrt(dot(p, p)) - size[0]
    if kind == 1:
        return box_distance(p, size[0], size[1], size[2], size[3])
    if kind == 2:
        return cylinder_distance(p, size[0], size[1], size[2])
    if kind == 3:
        return hypot(hypot(p[0], p[1]) - size[0], p[2]) - size[1]
    if kind == 4:
        return cone_distance(p, size[0], size[1], size[2])
    if kind == 5:
        return bowl_distance(p, size[0], size[1], size[2])
    return vase_distance(p, size[0], size[1], size[2], size[3])


@inner
def to_item(item, v):
    """A world direction in the item's axes."""
    r = item.rotation
    return (
        r[0, 0] * v[0] + r[1, 0] * v[1] + r[2, 0] * v[2],
        r[0, 1] * v[0] + r[1, 1] * v[1] + r[2, 1] * v[2],
        r[0, 2] * v[0] + r[1, 2] * v[1] + r[2, 2] * v[2],
    )


@inner
def to_world(item, v):
    """A direction of the item in the world's axes."""
    r = item.rotation
    return (
        r[0, 0] * v[0] + r[0, 1] * v[1] + r[0, 2] * v[2],
        r[1, 0] * v[0] + r[1, 1] * v[1] + r[1, 2] * v[2],
        r[2, 0] * v[0] + r[2, 1] * v[1] + r[2, 2] * v[2],
    )


@inner
def place(item, point):
    """A world point in the item's axes."""
    c = item.center
    return to_item(item, (point[0] - c[0], point[1] - c[1], point[2] - c[2]))


@inner
def normal(item, p):
    """The unit outward normal, in the item's axes, at the point `p` of its surface: central differences."""
    x, y, z = p
    return unit(
        (
            distance(item, (x + NUDGE, y, z)) - distance(item, (x - NUDGE, y, z)),
            distance(item, (x, y + NUDGE, z)) - distance(item, (x, y - NUDGE, z)),
            distance(item, (x, y, z + NUDGE)) - distance(item, (x, y, z - NUDGE)),
        )
    )


@inner
def span(item, origin, inverse, far):
    """Where the ray of reciprocal direction `inverse` enters and leaves the item's bounds, within [0, far]."""
    first, last = 0.0, far
    lower, upper = item.lower, item.upper
    for axis in range(3):
        a, b = (lower[axis] - origin[axis]) * inverse[axis], (upper[axis] - origin[axis]) * inverse[axis]
        if a > b:
            a, b = b, a
        first = a if a > first else first
        last = b if b < last else last
    return first, last


@inner
def meet(item, origin, direction, first, last, reach):
    """The first t in [first, last] where the ray is within `reach` of the item, infinity where it is nowhere."""
    start, way = place(item, origin), to_item(item, direction)
    t = first
    for _ in range(STEPS):
        gap = distance(item, along(start, way, t))
        if gap < reach:
            return t
        t += gap
        if t > last:
            return inf
    return inf


@inner
def reciprocal(direction):
    """One over each coordinate, finite also for zero, so that no bound that a ray touches gives 0 * infinity."""
    x, y, z = direction
    tiny = 1e-300
    return (1.0 / (x if x != 0.0 else tiny), 1.0 / (y if y != 0.0 else tiny), 1.0 / (z if z != 0.0 else tiny))


@inner
def closest(items, among, origin, direction, start, reach):
    """The t and number of the first item on the ray of those numbered in `among` (infinity and -1 where there is none);
    `start` numbers the item that the ray leaves, which a convex item never meets again."""
    best, found = inf, -1
    inverse = reciprocal(direction)
    for i in among:
        item = items[i]
        if i == start and item.convex:
            continue
        first, last = span(item, origin, inverse, best)
        if first <= last:
            t = meet(item, origin, direction, first, last, reach)
            if t < best:
                best, found = t, i
    return best, found


@inner
def blocked(items, origin, direction, start):
    """Whether anything is on the ray that leaves item `start`."""
    inverse = reciprocal(direction)
    for i in range(items.shape[0]):
        item = items[i]
        if i == start and item.convex:
            continue
        first, last = span(item, origin, inverse, inf)
        if first <= last and meet(item, origin, direction, first, last, NEAR) < inf:
            return True
    return False
