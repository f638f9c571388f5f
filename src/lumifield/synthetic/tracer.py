"""The path tracer: sun sampled at every vertex, sky met by cosine-distributed bounces, one mirror branch.

Numbers come from a counter: each pixel's key is a hash of seed, image and place, so that an image is the same
whatever the number of threads. Within a pixel each pair of dimensions runs through the R2 sequence (Roberts 2018) in
its own order and with its own shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, floor, pi, sin, sqrt

import numba
import numpy as np
from jaxtyping import Float, Int, UInt8
from numba import prange

from lumifield.runtime.jit import inner, loop
from lumifield.synthetic.distance import EXACT, LIFT, NEAR, along, blocked, closest, dot, normal, place, to_world, unit
from lumifield.synthetic.stage import Packed
from lumifield.synthetic.textures import U64, color, scramble
from lumifield.synthetic.views import View

GOLDEN = 0.6180339887498949
# Pair k runs through the lattice in steps of PRIMES[k] points: primes beyond any number of samples in use.
PRIMES = (1, 1000081, 1000211, 1000249, 1000333, 1000427, 1000919, 1000999, 1001321, 1001621, 1001659)
BOUNCES = 2
# The pairs of a sample: its place in the pixel, then sun and bounce in turn of the matt path, then of the mirrored one.
PIXEL, MATT, MIRRORED = 0, 1, 6
MASK = U64(0xFFFFFFFF)
HALF = U64(32)


@dataclass(frozen=True)
class GroundTruth:
    """What the ray through each pixel's center meets: distance (infinite for nothing), world normal, item from 1."""

    depth: Float[np.ndarray, "h w"]
    normal: Float[np.ndarray, "h w 3"]
    item: UInt8[np.ndarray, "h w"]


@inner
def pair(draw, k):
    """Two numbers in [0, 1) for dimensions `2 k, 2 k + 1` of a draw: a pixel's key, the sample, and of how many."""
    key, sample, samples = draw
    bits = scramble(key ^ U64(k))
    index = (sample * PRIMES[k] + np.int64(bits & U64(0xFFFF))) % samples
    u = index / samples + np.float64(bits >> HALF) / 4294967296.0
    v = index * GOLDEN + np.float64(scramble(bits) & MASK) / 4294967296.0
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
def sky(light, direction):
    """Radiance of the sky without its sun; below the horizon it passes to the ground's within some ten degrees."""
    z = direction[2]
    other = 0 if z > 0.0 else 2
    s = sqrt(z) if z > 0.0 else min(1.0, -6.0 * z)
    c = light.sky
    return (
        c[1, 0] * (1.0 - s) + c[other, 0] * s,
        c[1, 1] * (1.0 - s) + c[other, 1] * s,
        c[1, 2] * (1.0 - s) + c[other, 2] * s,
    )


@inner
def surface(item, origin, direction, t):
    """Where a ray meets the item: a point just above it, its normal in the world and its albedo there."""
    p = along(origin, direction, t)
    local = place(item, p)
    n = to_world(item, normal(item, local))
    return along(p, n, LIFT), n, color(item, local)


@inner
def sunlight(scene, i, point, n, u, v):
    """The share of the sun's irradiance that one shadow ray into its disc finds at `point`, over pi."""
    light = scene.light[0]
    towards = (light.towards[0], light.towards[1], light.towards[2])
    ray = around(towards, 1.0 - u * (1.0 - light.sun_cosine), v)
    cosine = dot(ray, n)
    if cosine <= 0.0 or blocked(scene.items, point, ray, i):
        return 0.0
    return cosine / pi


@inner
def matt(scene, i, point, n, albedo, draw, k):
    """Radiance that leaves a matt surface: sun and sky, and `BOUNCES` reflections drawn by the pairs from `k`."""
    red, green, blue = 0.0, 0.0, 0.0
    a, b, c = albedo
    light = scene.light[0]
    for bounce in range(BOUNCES + 1):
        u, v = pair(draw, k + 2 * bounce)
        lit = sunlight(scene, i, point, n, u, v)
        red, green, blue = red + a * lit * light.sun[0], green + b * lit * light.sun[1], blue + c * lit * light.sun[2]
        if bounce == BOUNCES:
            break
        u, v = pair(draw, k + 2 * bounce + 1)
        ray = around(n, sqrt(1.0 - u), v)
        t, j = closest(scene.items, scene.all, point, ray, i, NEAR)
        if j < 0:
            above = sky(light, ray)
            return red + a * above[0], green + b * above[1], blue + c * above[2]
        point, n, next_albedo = surface(scene.items[j], point, ray, t)
        a, b, c, i = a * next_albedo[0], b * next_albedo[1], c * next_albedo[2], j
    return red, green, blue


@inner
def mirrored(scene, i, point, ray, draw):
    """Radiance that a mirror at `point` of item `i` throws back: the sky and the sun, or other items taken as matt."""
    t, j = closest(scene.items, scene.all, point, ray, i, NEAR)
    if j >= 0:
        there, n, albedo = surface(scene.items[j], point, ray, t)
        return matt(scene, j, there, n, albedo, draw, MIRRORED)
    light = scene.light[0]
    red, green, blue = sky(light, ray)
    towards = (light.towards[0], light.towards[1], light.towards[2])
    if dot(ray, towards) > light.sun_cosine:
        disc = 1.0 / (pi * (1.0 - light.sun_cosine * light.sun_cosine))
        return red + disc * light.sun[0], green + disc * light.sun[1], blue + disc * light.sun[2]
    return red, green, blue


@inner
def leaving(scene, i, origin, direction, t, draw):
    """Radiance that leaves item `i` towards the ray's origin: matt under its coat (after Schlick 1994), or metal."""
    point, n, albedo = surface(scene.items[i], origin, direction, t)
    coat, metal = scene.items[i].coat, scene.items[i].metal
    if coat == 0.0 and not metal:
        return matt(scene, i, point, n, albedo, draw, MATT)
    cosine = -dot(direction, n)
    rim = (1.0 - min(max(cosine, 0.0), 1.0)) ** 5
    head_on = albedo if metal else (coat, coat, coat)
    share = (
        head_on[0] + (1.0 - head_on[0]) * rim,
        head_on[1] + (1.0 - head_on[1]) * rim,
        head_on[2] + (1.0 - head_on[2]) * rim,
    )
    ray = unit(along(direction, n, 2.0 * cosine))
    m = mirrored(scene, i, point, ray, draw)
    # A mirrored sun is cut at white before the mean is taken, else its rim would be a staircase.
    shine = (min(share[0] * m[0], 1.0), min(share[1] * m[1], 1.0), min(share[2] * m[2], 1.0))
    if metal:
        return shine
    d = matt(scene, i, point, n, albedo, draw, MATT)
    return (
        shine[0] + (1.0 - share[0]) * d[0],
        shine[1] + (1.0 - share[1]) * d[1],
        shine[2] + (1.0 - share[2]) * d[2],
    )


@inner
def camera_ray(c2w, focal, x, y):
    """The unit direction through the point (x, y) [pixels from the image's middle]."""
    a, b = x / focal, y / focal
    return unit(
        (
            c2w[0, 0] * a + c2w[0, 1] * b + c2w[0, 2],
            c2w[1, 0] * a + c2w[1, 1] * b + c2w[1, 2],
            c2w[2, 0] * a + c2w[2, 1] * b + c2w[2, 2],
        )
    )


@inner
def choose(windows, column, row, among):
    """Writes the numbers of the windows that a pixel lies in to `among` and returns how many they are."""
    count = 0
    for i in range(windows.shape[0]):
        if windows[i, 0] <= column < windows[i, 2] and windows[i, 1] <= row < windows[i, 3]:
            among[count] = i
            count += 1
    return count


@loop
def light_pixels(scene, windows, c2w, focal, samples, key, image):
    """Fills `image` (height, width, 4) with the mean radiance of the samples that meet an item, and their share."""
    height, width = image.shape[0], image.shape[1]
    origin = (c2w[0, 3], c2w[1, 3], c2w[2, 3])
    for row in prange(height):
        room = np.empty_like(scene.all)
        for column in range(width):
            among = room[: choose(windows, column, row, room)]
            own = scramble(scramble(key) + U64(row * width + column))
            red, green, blue, met = 0.0, 0.0, 0.0, 0
            for sample in range(samples if among.size else 0):
                draw = (own, sample, samples)
                u, v = pair(draw, PIXEL)
                ray = camera_ray(c2w, focal, column + u - 0.5 * width, row + v - 0.5 * height)
                t, i = closest(scene.items, among, origin, ray, -1, NEAR)
                if i >= 0:
                    light = leaving(scene, i, origin, ray, t, draw)
                    red, green, blue, met = red + light[0], green + light[1], blue + light[2], met + 1
            share = 1.0 / max(met, 1)
            image[row, column, 0], image[row, column, 1] = red * share, green * share
            image[row, column, 2], image[row, column, 3] = blue * share, met / samples


@loop
def meet_pixels(scene, c2w, focal, depth, normals, item):
    """Fills depth (height, width), normals (height, width, 3) and item with what the rays through the centers meet."""
    height, width = depth.shape
    origin = (c2w[0, 3], c2w[1, 3], c2w[2, 3])
    for row in prange(height):
        for column in range(width):
            ray = camera_ray(c2w, focal, column + 0.5 - 0.5 * width, row + 0.5 - 0.5 * height)
            t, i = closest(scene.items, scene.all, origin, ray, -1, EXACT)
            depth[row, column], item[row, column] = t, i + 1
            if i >= 0:
                found = scene.items[i]
                n = to_world(found, normal(found, place(found, along(origin, ray, t))))
                normals[row, column, 0], normals[row, column, 1], normals[row, column, 2] = n


def windows(scene: Packed, view: View) -> Int[np.ndarray, "n 4"]:
    """The pixels (left, top, right, bottom; the last two excluded) outside of which each item is not seen."""
    lower, upper = scene.items["lower"], scene.items["upper"]
    far_side = np.array(list(np.ndindex(2, 2, 2)), bool)
    corners = np.where(far_side, upper[:, None], lower[:, None]) - view.c2w[:, 3]
    local = corners @ view.c2w[:, :3]
    size = np.array([view.width, view.height])
    ahead = np.maximum(local[..., 2:], 1e-9)
    image = np.clip(view.focal * local[..., :2] / ahead + size / 2, 0, size)
    window = np.concatenate([np.floor(image.min(1)), np.ceil(image.max(1))], -1)
    # Of an item that reaches behind the camera, the corners say nothing.
    whole = np.any(local[..., 2] < 1e-6, axis=1, keepdims=True)
    return np.where(whole, np.array([0, 0, *size]), window).astype(np.int64)


def render_radiance(scene: Packed, view: View, samples: int, key: int) -> Float[np.ndarray, "h w 4"]:
    """Linear RGB of the matter in each pixel, and the share of the pixel that it covers.

    `key` numbers the noise: images of one scene should differ in it.
    """
    image = np.zeros((view.height, view.width, 4))
    with numba.parallel_chunksize(1):
        light_pixels(scene, windows(scene, view), view.c2w, view.focal, samples, U64(key % 2**64), image)
    return image


def render_ground_truth(scene: Packed, view: View) -> GroundTruth:
    """What the rays through the pixels' centers meet."""
    shape = (view.height, view.width)
    depth, normals, item = np.empty(shape, np.float32), np.zeros((*shape, 3), np.float32), np.empty(shape, np.uint8)
    meet_pixels(scene, view.c2w, view.focal, depth, normals, item)
    return GroundTruth(depth, normals, item)


def render_image(scene: Packed, view: View, samples: int, key: int) -> UInt8[np.ndarray, "h w 4"]:
    """8-bit sRGB with straight alpha."""
    linear = render_radiance(scene, view, samples, key)
    alpha = linear[..., 3:]
    return np.round(255 * np.concatenate([encode(linear[..., :3]), alpha], -1)).astype(np.uint8)


def encode(linear: Float[np.ndarray, "*p"]) -> Float[np.ndarray, "*p"]:
    """The sRGB transfer curve (IEC 61966-2-1) of linear light, cut at black and white."""
    light = np.clip(linear, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
