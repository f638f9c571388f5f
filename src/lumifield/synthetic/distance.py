"""Signed distances of the shapes, and where rays meet them: compiled, on points and directions as tuples of three.

A distance is positive outside matter and never larger than the true one, so that steps of its length reach the
surface and do not pass it (sphere tracing, Hart 1996). It is exact outside all shapes but the vase.
"""

from __future__ import annotations

from math import cos, hypot, inf, sqrt

from lumifield.synthetic.jit import inner
from lumifield.synthetic.shapes import BELLY, BEND

# A ray has arrived when it is this close [world units]; it starts this far above the surface that it leaves.
ARRIVED, LIFT = 1e-6, 1e-4
STEPS = 256
# Half the base of the central differences for normals: rounding and curvature both cost about 1e-10.
NUDGE = 1e-5


@inner
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inner
def along(origin, direction, t):
    return (origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2])


@inner
def unit(a):
    scale = 1.0 / sqrt(dot(a, a))
    return (a[0] * scale, a[1] * scale, a[2] * scale)


@inner
def box_distance(p, x, y, z, rounding):
    a, b, c = abs(p[0]) - x + rounding, abs(p[1]) - y + rounding, abs(p[2]) - z + rounding
    outside = sqrt(max(a, 0.0) ** 2 + max(b, 0.0) ** 2 + max(c, 0.0) ** 2)
    return outside + min(max(a, max(b, c)), 0.0) - rounding


@inner
def cylinder_distance(p, radius, half_height, rounding):
    a, b = hypot(p[0], p[1]) - radius + rounding, abs(p[2]) - half_height + rounding
    return sqrt(max(a, 0.0) ** 2 + max(b, 0.0) ** 2) + min(max(a, b), 0.0) - rounding


@inner
def cone_distance(p, base, tip, height):
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
    rho, z = hypot(p[0], p[1]), p[2]
    lip = sqrt(radius * radius - cut * cut)
    if cut * rho < lip * z:
        return hypot(rho - lip, z - cut) - wall
    return abs(hypot(rho, z) - radius) - wall


@inner
def vase_distance(p, radius, swell, half_height, wall):
    rho, z = hypot(p[0], p[1]), p[2]
    slope = swell * BEND / half_height
    # Beside the profile the radius may change by `slope` per unit: dividing so keeps the distance a lower bound.
    flat = 1.0 / sqrt(1.0 + slope * slope)
    outer = (rho - radius - swell * cos(BEND * (z / half_height + BELLY))) * flat
    hollow = max(outer + wall * flat, wall - half_height - z)
    return max(max(outer, abs(z) - half_height), -hollow)


@inner
def distance(scene, i, p):
    """Signed distance of item `i` at the point `p` of its own axes."""
    kind = scene.kind[i]
    a, b, c, d = scene.size[i, 0], scene.size[i, 1], scene.size[i, 2], scene.size[i, 3]
    if kind == 0:
        return sqrt(dot(p, p)) - a
    if kind == 1:
        return box_distance(p, a, b, c, d)
    if kind == 2:
        return cylinder_distance(p, a, b, c)
    if kind == 3:
        return hypot(hypot(p[0], p[1]) - a, p[2]) - b
    if kind == 4:
        return cone_distance(p, a, b, c)
    if kind == 5:
        return bowl_distance(p, a, b, c)
    return vase_distance(p, a, b, c, d)


@inner
def to_item(scene, i, v):
    """A world direction in the axes of item `i`."""
    r = scene.rotation
    return (
        r[i, 0, 0] * v[0] + r[i, 1, 0] * v[1] + r[i, 2, 0] * v[2],
        r[i, 0, 1] * v[0] + r[i, 1, 1] * v[1] + r[i, 2, 1] * v[2],
        r[i, 0, 2] * v[0] + r[i, 1, 2] * v[1] + r[i, 2, 2] * v[2],
    )


@inner
def to_world(scene, i, v):
    """A direction of item `i` in the world's axes."""
    r = scene.rotation
    return (
        r[i, 0, 0] * v[0] + r[i, 0, 1] * v[1] + r[i, 0, 2] * v[2],
        r[i, 1, 0] * v[0] + r[i, 1, 1] * v[1] + r[i, 1, 2] * v[2],
        r[i, 2, 0] * v[0] + r[i, 2, 1] * v[1] + r[i, 2, 2] * v[2],
    )


@inner
def place(scene, i, point):
    """A world point in the axes of item `i`."""
    c = scene.centre
    return to_item(scene, i, (point[0] - c[i, 0], point[1] - c[i, 1], point[2] - c[i, 2]))


@inner
def normal(scene, i, p):
    """The unit outward normal of item `i`, in its own axes, at the point `p` of its surface: central differences."""
    x, y, z = p
    return unit(
        (
            distance(scene, i, (x + NUDGE, y, z)) - distance(scene, i, (x - NUDGE, y, z)),
            distance(scene, i, (x, y + NUDGE, z)) - distance(scene, i, (x, y - NUDGE, z)),
            distance(scene, i, (x, y, z + NUDGE)) - distance(scene, i, (x, y, z - NUDGE)),
        )
    )


@inner
def span(scene, i, origin, inverse, far):
    """Where the ray of reciprocal direction `inverse` enters and leaves the bounds of item `i`, within [0, far]."""
    first, last = 0.0, far
    for axis in range(3):
        a = (scene.bounds[i, 0, axis] - origin[axis]) * inverse[axis]
        b = (scene.bounds[i, 1, axis] - origin[axis]) * inverse[axis]
        first = max(first, min(a, b))
        last = min(last, max(a, b))
    return first, last


@inner
def meet(scene, i, origin, direction, first, last):
    """The first t in [first, last] where the ray is on item `i`, infinity where it is nowhere."""
    start, way = place(scene, i, origin), to_item(scene, i, direction)
    t = first
    for _ in range(STEPS):
        gap = distance(scene, i, along(start, way, t))
        if gap < ARRIVED:
            return t
        t += gap
        if t > last:
            return inf
    return inf


@inner
def reciprocal(direction):
    # A direction along a plane must not give 0 * infinity at a bound that it touches.
    x, y, z = direction
    tiny = 1e-300
    return (1.0 / (x if x != 0.0 else tiny), 1.0 / (y if y != 0.0 else tiny), 1.0 / (z if z != 0.0 else tiny))


@inner
def closest(scene, origin, direction, leaving):
    """The t and number of the first item on the ray (infinity and -1 where there is none); `leaving` is the item that
    the ray starts on, which a convex item never meets again."""
    best, found = inf, -1
    inverse = reciprocal(direction)
    for i in range(scene.kind.shape[0]):
        if i == leaving and scene.convex[i]:
            continue
        first, last = span(scene, i, origin, inverse, best)
        if first <= last:
            t = meet(scene, i, origin, direction, first, last)
            if t < best:
                best, found = t, i
    return best, found


@inner
def blocked(scene, origin, direction, leaving):
    """Whether anything is on the ray."""
    inverse = reciprocal(direction)
    for i in range(scene.kind.shape[0]):
        if i == leaving and scene.convex[i]:
            continue
        first, last = span(scene, i, origin, inverse, inf)
        if first <= last and meet(scene, i, origin, direction, first, last) < inf:
            return True
    return False
