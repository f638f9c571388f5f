"""Intersection of rays with items by sphere tracing (Hart 1996): compiled, on tuples of three floats."""

from __future__ import annotations

from math import inf

from lumifield.runtime.jit import inner
from lumifield.synthetic.signed_distance import item_distance, rotate_to_item, transform_to_item
from lumifield.synthetic.vectors import invert_direction, point_on_ray

# A ray hits an item within this distance [world units]: for ground truth, and for shading, where a two-hundredth of a
# pixel is enough. Secondary rays start SURFACE_OFFSET above the surface.
EXACT_TOLERANCE, SHADING_TOLERANCE, SURFACE_OFFSET = 1e-7, 1e-4, 1e-3
# At grazing angles sphere tracing takes many steps: each one shrinks the distance by only the sine of the angle.
MAX_STEPS = 2000


@inner
def clip_to_bounds(item, origin, inverse_direction, far):
    """The interval of t in [0, far] within the item's bounds (slab test on the reciprocal direction); empty if the
    first is greater."""
    first, last = 0.0, far
    lower, upper = item.lower, item.upper
    for axis in range(3):
        a = (lower[axis] - origin[axis]) * inverse_direction[axis]
        b = (upper[axis] - origin[axis]) * inverse_direction[axis]
        if a > b:
            a, b = b, a
        first = a if a > first else first
        last = b if b < last else last
    return first, last


@inner
def trace_item(item, origin, direction, first, last, tolerance):
    """The first t in [first, last] at which the ray is within `tolerance` of the item; infinity without a hit."""
    local_origin, local_direction = transform_to_item(item, origin), rotate_to_item(item, direction)
    t = first
    for _ in range(MAX_STEPS):
        distance = item_distance(item, point_on_ray(local_origin, local_direction, t))
        if distance < tolerance:
            return t
        t += distance
        if t > last:
            return inf
    return inf


@inner
def find_closest_hit(items, candidates, origin, direction, origin_item, tolerance):
    """The t and the index of the closest hit among the `candidates`, infinity and -1 without a hit.

    `origin_item` is the index of the item that the ray leaves: a convex one cannot be hit again.
    """
    best, found = inf, -1
    inverse_direction = invert_direction(direction)
    for i in candidates:
        item = items[i]
        if i == origin_item and item.is_convex:
            continue
        first, last = clip_to_bounds(item, origin, inverse_direction, best)
        if first <= last:
            t = trace_item(item, origin, direction, first, last, tolerance)
            if t < best:
                best, found = t, i
    return best, found


@inner
def is_occluded(items, origin, direction, origin_item):
    """Whether a ray that leaves item `origin_item` hits any item."""
    inverse_direction = invert_direction(direction)
    for i in range(items.shape[0]):
        item = items[i]
        if i == origin_item and item.is_convex:
            continue
        first, last = clip_to_bounds(item, origin, inverse_direction, inf)
        if first <= last and trace_item(item, origin, direction, first, last, SHADING_TOLERANCE) < inf:
            return True
    return False
