"""Procedural colors of the items: compiled, on points in each item's own axes."""

from __future__ import annotations

from math import atan2, floor, pi, sqrt

import numpy as np

from lumifield.runtime.jit import inner

U64 = np.uint64
# Weyl and finalizer constants of splitmix64 (Steele et al. 2014).
WEYL, MIX_A, MIX_B = U64(0x9E3779B97F4A7C15), U64(0xBF58476D1CE4E5B9), U64(0x94D049BB133111EB)
# Odd multipliers that keep neighboring cells apart before they are scrambled.
SPREAD_X, SPREAD_Y, SPREAD_Z = U64(0xD6E8FEB86659FD93), U64(0xA0761D6478BD642F), U64(0xE7037ED1A0B428DB)
S27, S30, S31 = U64(27), U64(30), U64(31)
OCTAVES = 4
# How sharply blotches pass into each other.
EDGE = 6.0


@inner
def scramble(key):
    """A uint64 that depends on every bit of `key` (the finalizer of splitmix64)."""
    key = key + WEYL
    key = (key ^ (key >> S30)) * MIX_A
    key = (key ^ (key >> S27)) * MIX_B
    return key ^ (key >> S31)


@inner
def lattice(x, y, z):
    """A number in [0, 1) for each cell of the integer lattice."""
    key = scramble(U64(x) * SPREAD_X ^ U64(y) * SPREAD_Y ^ U64(z) * SPREAD_Z)
    return np.float64(key >> U64(11)) * (1.0 / 9007199254740992.0)


@inner
def smooth(t):
    """The cubic from 0 to 1 that starts and ends level."""
    return t * t * (3.0 - 2.0 * t)


@inner
def noise(x, y, z):
    """Value noise in [0, 1]: lattice numbers, interpolated smoothly."""
    i, j, k = np.int64(floor(x)), np.int64(floor(y)), np.int64(floor(z))
    u, v, w = smooth(x - floor(x)), smooth(y - floor(y)), smooth(z - floor(z))
    total = 0.0
    for a in range(2):
        for b in range(2):
            for c in range(2):
                weight = (u if a else 1.0 - u) * (v if b else 1.0 - v) * (w if c else 1.0 - w)
                total += weight * lattice(i + a, j + b, k + c)
    return total


@inner
def clouds(x, y, z):
    """Fractal noise in [0, 1]."""
    total, weight = 0.0, 0.5
    for _ in range(OCTAVES):
        total += weight * noise(x, y, z)
        x, y, z, weight = 2.0 * x + 17.0, 2.0 * y + 31.0, 2.0 * z + 47.0, 0.5 * weight
    return total / (1.0 - 0.5**OCTAVES)


@inner
def rings(p, repeats):
    """Year rings of a trunk along x whose heart lies beside the item: slow rise, quick fall, and fine grain."""
    x, y, z = p[0], p[1] + 0.11, p[2] + 0.47
    radius = sqrt(y * y + z * z) * repeats + 1.6 * noise(1.3 * x, 4.0 * y, 4.0 * z)
    phase = radius - floor(radius)
    ring = phase if phase < 0.8 else (1.0 - phase) * 4.0
    return 0.75 * smooth(ring) + 0.25 * noise(6.0 * x, 60.0 * y, 60.0 * z)


@inner
def share(item, p):
    """How much of its second color the item shows at the point `p` of its own axes, from 0 to 1."""
    kind, repeats = item.texture, item.repeats
    x, y, z = p[0] * repeats, p[1] * repeats, p[2] * repeats
    if kind == 1:
        return np.float64((np.int64(floor(x)) + np.int64(floor(y))) & 1)
    if kind == 2:
        height = z + item.slant * atan2(y, x) / (2.0 * pi)
        return 1.0 if height - floor(height) < 0.5 else 0.0
    if kind == 3:
        return rings(p, repeats)
    if kind == 4:
        return smooth(min(max(2.0 * clouds(x, y, z) - 0.5, 0.0), 1.0))
    if kind == 5:
        return smooth(min(max(EDGE * (clouds(x, y, z) - 0.5) + 0.5, 0.0), 1.0))
    return 0.0


@inner
def color(item, p):
    """The albedo of the item at the point `p` of its own axes."""
    s, a, b = share(item, p), item.first, item.second
    return (
        a[0] * (1.0 - s) + b[0] * s,
        a[1] * (1.0 - s) + b[1] * s,
        a[2] * (1.0 - s) + b[2] * s,
    )
