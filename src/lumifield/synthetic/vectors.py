"""Vector arithmetic for the compiled loops: points and directions are tuples of three floats."""

from __future__ import annotations

from math import sqrt

from lumifield.runtime.jit import inner


@inner
def dot(a, b):
    """The inner product of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inner
def point_on_ray(origin, direction, t):
    """The point `origin + t * direction`."""
    return (origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2])


@inner
def normalize_vector(a):
    """The unit vector in the direction of `a`."""
    scale = 1.0 / sqrt(dot(a, a))
    return (a[0] * scale, a[1] * scale, a[2] * scale)


@inner
def fast_hypot(a, b):
    """The length of (a, b); `math.hypot` guards against overflow and is several times slower."""
    return sqrt(a * a + b * b)


@inner
def invert_direction(direction):
    """The reciprocal of each component, finite for zero, so that the slab test never computes 0 * infinity."""
    x, y, z = direction
    tiny = 1e-300
    return (1.0 / (x if x != 0.0 else tiny), 1.0 / (y if y != 0.0 else tiny), 1.0 / (z if z != 0.0 else tiny))
