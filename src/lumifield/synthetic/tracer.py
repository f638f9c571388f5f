"""The path tracer: sun sampled at every vertex, sky met by cosine-distributed bounces, one mirror branch.

Numbers come from a counter: each pixel's key is a hash of seed, picture and place, so that a picture is the same
whatever the number of threads. Within a pixel each pair of dimensions runs through the R2 sequence (Roberts 2018) in
its own order and with its own shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, floor, inf, pi, sin, sqrt

import numba
import numpy as np
from jaxtyping import Float, UInt8
from numba import prange

from lumifield.synthetic.distance import LIFT, along, blocked, closest, dot, normal, place, to_world, unit
from lumifield.synthetic.jit import inner, loop
from lumifield.synthetic.stage import Packed
from lumifield.synthetic.textures import U64, colour, scramble

R2 = (0.7548776662466927, 0.5698402909980532)
# Pair k of a sample takes every PRIME[k]-th point of the sequence: prime to any number of samples in use.
PRIMES = (1, 1009, 2003, 3001, 4001, 5003, 6007, 7001, 8009)
PIXEL, FIRST, MIRROR = 0, 1, 5
BOUNCES = 2
MASK = U64(0xFFFFFFFF)
HALF = U64(32)


@dataclass(frozen=True)
class View:
    """A pinhole camera with OpenCV axes that looks through the picture's middle; `focal`, `width`, `height` in pixels."""

    c2w: Float[np.ndarray, "3 4"]
    focal: float
    width: int
    height: int


@dataclass(frozen=True)
class Truth:
    """What the ray through each pixel's centre meets: distance (infinite for nothing), world normal, item from 1."""

    depth: Float[np.ndarray, "h w"]
    normal: Float[np.ndarray, "h w 3"]
    item: UInt8[np.ndarray, "h w"]


@inner
def pair(key, k, sample, samples):
    """Two numbers in [0, 1) for dimensions `2 k, 2 k + 1` of a sample."""
    bits = scramble(key ^ U64(k))
    index = (sample * PRIMES[k] + np.int64(bits & U64(0xFFFF))) % samples
    u = index * R2[0] + np.float64(bits >> HALF) / 4294967296.0
    v = index * R2[1] + np.float64(scramble(bits) & MASK) / 4294967296.0
    return u - floor(u), v - floor(v)


@inner
def around(axis, cosine, turn):
    """The unit direction at an angle of the given cosine to `axis`, `turn` of the way round it (Duff et al. 2017)."""
    x, y, z = axis
    sign = 1.0 if z >= 0.0 else -1.0
    a = -1.0 / (sign + z)
    b = x * y * a
    sine = sqrt(max(0.0, 1.0 - cosine * cosine))
    s, t = sine * cos(2.0 * pi * turn), sine * sin(2.0 * pi * turn)
    return (
        s * (1.0 + sign * x * x * a) + t * b + cosine * x,
        s * sign * b + t * (sign + y * y * a) + cosine * y,
        -s * sign * x - t * y + cosine * z,
    )


@inner
def sky(scene, direction):
    """Radiance of the sky without its sun; below the horizon it passes to the ground's within some ten degrees."""
    z = direction[2]
    other = 0 if z > 0.0 else 2
    s = sqrt(z) if z > 0.0 else min(1.0, -6.0 * z)
    c = scene.sky
    return (
        c[1, 0] * (1.0 - s) + c[other, 0] * s,
        c[1, 1] * (1.0 - s) + c[other, 1] * s,
        c[1, 2] * (1.0 - s) + c[other, 2] * s,
    )


@inner
def surface(scene, i, origin, direction, t):
    """Where a ray meets item `i`: a point just above it, its normal in the world and its albedo there."""
    p = along(origin, direction, t)
    local = place(scene, i, p)
    n = to_world(scene, i, normal(scene, i, local))
    return along(p, n, LIFT), n, colour(scene, i, local)


@inner
def sunlight(scene, i, point, n, u, v):
    """The share of the sun's irradiance that one shadow ray into its disc finds at `point`, over pi."""
    towards = (scene.towards[0], scene.towards[1], scene.towards[2])
    ray = around(towards, 1.0 - u * (1.0 - scene.sun_cosine), v)
    cosine = dot(ray, n)
    if cosine <= 0.0 or blocked(scene, point, ray, i):
        return 0.0
    return cosine / pi


@inner
def matt(scene, i, point, n, albedo, key, k, sample, samples):
    """Radiance that leaves a matt surface: sun and sky, and `BOUNCES` reflections from other matt surfaces."""
    red, green, blue = 0.0, 0.0, 0.0
    a, b, c = albedo
    sun = scene.sun
    for bounce in range(BOUNCES + 1):
        u, v = pair(key, k + 2 * bounce, sample, samples) if bounce < 2 else pair(key, 0, sample + 7, samples)
        lit = sunlight(scene, i, point, n, u, v)
        red, green, blue = red + a * lit * sun[0], green + b * lit * sun[1], blue + c * lit * sun[2]
        if bounce == BOUNCES:
            break
        u, v = pair(key, k + 2 * bounce + 1, sample, samples)
        ray = around(n, sqrt(1.0 - u), v)
        t, j = closest(scene, point, ray, i)
        if j < 0:
            above = sky(scene, ray)
            return red + a * above[0], green + b * above[1], blue + c * above[2]
        point, n, next_albedo = surface(scene, j, point, ray, t)
        a, b, c = a * next_albedo[0], b * next_albedo[1], c * next_albedo[2]
        i = j
    return red, green, blue
