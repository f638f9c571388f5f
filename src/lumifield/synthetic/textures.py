"""Procedural textures of the items: compiled, on points in the axes of each item."""

from __future__ import annotations

from math import atan2, floor, pi, sqrt

import numpy as np

from lumifield.runtime.jit import inner

U64 = np.uint64
# Weyl and finalizer constants of splitmix64 (Steele et al. 2014).
WEYL, MIX_A, MIX_B = U64(0x9E3779B97F4A7C15), U64(0xBF58476D1CE4E5B9), U64(0x94D049BB133111EB)
# Odd multipliers that separate neighboring cells before hashing.
HASH_X, HASH_Y, HASH_Z = U64(0xD6E8FEB86659FD93), U64(0xA0761D6478BD642F), U64(0xE7037ED1A0B428DB)
SHIFT_27, SHIFT_30, SHIFT_31 = U64(27), U64(30), U64(31)
NUM_OCTAVES = 4
# Contrast of the noise at the border of two blotches.
BLOTCH_SHARPNESS = 6.0


@inner
def hash_uint64(key):
    """The splitmix64 finalizer: a uint64 that depends on every bit of `key`."""
    key = key + WEYL
    key = (key ^ (key >> SHIFT_30)) * MIX_A
    key = (key ^ (key >> SHIFT_27)) * MIX_B
    return key ^ (key >> SHIFT_31)


@inner
def lattice_value(x, y, z):
    """A pseudorandom number in [0, 1) for each cell of the integer lattice."""
    key = hash_uint64(U64(x) * HASH_X ^ U64(y) * HASH_Y ^ U64(z) * HASH_Z)
    return np.float64(key >> U64(11)) * (1.0 / 9007199254740992.0)


@inner
def smoothstep(t):
    """The cubic 3 t^2 - 2 t^3 from 0 to 1 with zero derivative at both ends."""
    return t * t * (3.0 - 2.0 * t)


@inner
def value_noise(x, y, z):
    """Value noise in [0, 1]: random lattice values, interpolated by `smoothstep`."""
    i, j, k = np.int64(floor(x)), np.int64(floor(y)), np.int64(floor(z))
    u, v, w = smoothstep(x - floor(x)), smoothstep(y - floor(y)), smoothstep(z - floor(z))
    total = 0.0
    for a in range(2):
        for b in range(2):
            for c in range(2):
                weight = (u if a else 1.0 - u) * (v if b else 1.0 - v) * (w if c else 1.0 - w)
                total += weight * lattice_value(i + a, j + b, k + c)
    return total


@inner
def fractal_noise(x, y, z):
    """Fractal noise in [0, 1]: octaves of value noise."""
    total, weight = 0.0, 0.5
    for _ in range(NUM_OCTAVES):
        total += weight * value_noise(x, y, z)
        x, y, z, weight = 2.0 * x + 17.0, 2.0 * y + 31.0, 2.0 * z + 47.0, 0.5 * weight
    return total / (1.0 - 0.5**NUM_OCTAVES)


@inner
def wood_rings(p, frequency):
    """Annual rings of a trunk along x, centered outside the item: a slow rise, a fast fall, and fine grain."""
    x, y, z = p[0], p[1] + 0.11, p[2] + 0.47
    radius = sqrt(y * y + z * z) * frequency + 1.6 * value_noise(1.3 * x, 4.0 * y, 4.0 * z)
    phase = radius - floor(radius)
    ring = phase if phase < 0.8 else (1.0 - phase) * 4.0
    return 0.75 * smoothstep(ring) + 0.25 * value_noise(6.0 * x, 60.0 * y, 60.0 * z)


@inner
def second_color_weight(item, p):
    """The weight in [0, 1] of the item's second color at point `p` in its own axes."""
    texture_id, frequency = item.texture, item.frequency
    x, y, z = p[0] * frequency, p[1] * frequency, p[2] * frequency
    if texture_id == 1:
        return np.float64((np.int64(floor(x)) + np.int64(floor(y))) & 1)
    if texture_id == 2:
        height = z + item.slant * atan2(y, x) / (2.0 * pi)
        return 1.0 if height - floor(height) < 0.5 else 0.0
    if texture_id == 3:
        return wood_rings(p, frequency)
    if texture_id == 4:
        return smoothstep(min(max(2.0 * fractal_noise(x, y, z) - 0.5, 0.0), 1.0))
    if texture_id == 5:
        return smoothstep(min(max(BLOTCH_SHARPNESS * (fractal_noise(x, y, z) - 0.5) + 0.5, 0.0), 1.0))
    return 0.0


@inner
def evaluate_albedo(item, p):
    """The albedo of the item at point `p` in its own axes."""
    weight, a, b = second_color_weight(item, p), item.first_color, item.second_color
    return (
        a[0] * (1.0 - weight) + b[0] * weight,
        a[1] * (1.0 - weight) + b[1] * weight,
        a[2] * (1.0 - weight) + b[2] * weight,
    )
