"""A path tracer: next-event estimation of the sun, cosine-weighted bounces to the sky, and one specular branch.

Random numbers are counter-based: the key of each pixel is a hash of seed, image and position, so that an image does not
depend on the number of threads. Within a pixel, each pair of dimensions follows the R2 sequence (Roberts 2018) in its
own order and with its own offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, floor, pi, sin, sqrt

import numba
import numpy as np
from jaxtyping import Float, Int, UInt8
from numba import prange

from lumifield.runtime.jit import inner, loop
from lumifield.synthetic.camera_placement import SyntheticView
from lumifield.synthetic.ray_intersection import (
    EXACT_TOLERANCE,
    SHADING_TOLERANCE,
    SURFACE_OFFSET,
    find_closest_hit,
    is_occluded,
)
from lumifield.synthetic.scene_description import PackedScene
from lumifield.synthetic.signed_distance import item_normal, rotate_to_world, transform_to_item
from lumifield.synthetic.textures import U64, evaluate_albedo, hash_uint64
from lumifield.synthetic.vectors import dot, normalize_vector, point_on_ray

GOLDEN_RATIO_FRACTION = 0.6180339887498949
# Pair k visits the samples in strides of SEQUENCE_STRIDES[k]: primes larger than any number of samples in use.
SEQUENCE_STRIDES = (1, 1000081, 1000211, 1000249, 1000333, 1000427, 1000919, 1000999, 1001321, 1001621, 1001659)
NUM_BOUNCES = 2
# Indices of the pairs of a sample: its position in the pixel, then alternately sun and bounce of the diffuse path,
# then of the mirror path.
PIXEL_PAIR, DIFFUSE_PAIR, MIRROR_PAIR = 0, 1, 6
LOW_BITS = U64(0xFFFFFFFF)
HALF_WORD = U64(32)


@dataclass(frozen=True)
class GroundTruth:
    """Hits of the rays through the pixel centers.

    `depth` is the distance along the ray (infinite without a hit), `normal` in world axes, `item_id` counts from 1 (0
    without a hit).
    """

    depth: Float[np.ndarray, "h w"]
    normal: Float[np.ndarray, "h w 3"]
    item_id: UInt8[np.ndarray, "h w"]


@inner
def quasirandom_pair(sequence, pair):
    """The two numbers in [0, 1) of dimension pair `pair`; `sequence` is (pixel key, sample index, sample count)."""
    key, sample, num_samples = sequence
    bits = hash_uint64(key ^ U64(pair))
    index = (sample * SEQUENCE_STRIDES[pair] + np.int64(bits & U64(0xFFFF))) % num_samples
    u = index / num_samples + np.float64(bits >> HALF_WORD) / 4294967296.0
    v = index * GOLDEN_RATIO_FRACTION + np.float64(hash_uint64(bits) & LOW_BITS) / 4294967296.0
    return u - floor(u), v - floor(v)


@inner
def direction_at_angle(axis, cosine, azimuth):
    """The unit direction at angle acos(`cosine`) from `axis`; `azimuth` in [0, 1) is the turn around it (Duff et al.
    2017)."""
    x, y, z = axis
    sign = 1.0 if z >= 0.0 else -1.0
    a = -1.0 / (sign + z)
    b = x * y * a
    sine = sqrt(max(0.0, 1.0 - cosine * cosine))
    s, t = sine * cos(2.0 * pi * azimuth), sine * sin(2.0 * pi * azimuth)
    return (
        s * (1.0 + sign * x * x * a) + t * b + cosine * x,
        s * sign * b + t * (sign + y * y * a) + cosine * y,
        -s * sign * x - t * y + cosine * z,
    )


@inner
def sky_radiance(lighting, direction):
    """The radiance of the sky without the sun; within about ten degrees below the horizon it fades to that of the
    ground."""
    z = direction[2]
    end = 0 if z > 0.0 else 2
    weight = sqrt(z) if z > 0.0 else min(1.0, -6.0 * z)
    c = lighting.sky_colors
    return (
        c[1, 0] * (1.0 - weight) + c[end, 0] * weight,
        c[1, 1] * (1.0 - weight) + c[end, 1] * weight,
        c[1, 2] * (1.0 - weight) + c[end, 2] * weight,
    )


@inner
def evaluate_surface(item, origin, direction, t):
    """The hit point, offset along the normal, the world normal and the albedo."""
    p = point_on_ray(origin, direction, t)
    local = transform_to_item(item, p)
    normal = rotate_to_world(item, item_normal(item, local))
    return point_on_ray(p, normal, SURFACE_OFFSET), normal, evaluate_albedo(item, local)


@inner
def sample_sun(scene, item_index, point, normal, u, v):
    """One shadow ray towards the sun disc: cosine / pi, or 0 where the sun is occluded."""
    lighting = scene.lighting[0]
    sun_direction = (lighting.sun_direction[0], lighting.sun_direction[1], lighting.sun_direction[2])
    direction = direction_at_angle(sun_direction, 1.0 - u * (1.0 - lighting.sun_cosine), v)
    cosine = dot(direction, normal)
    if cosine <= 0.0 or is_occluded(scene.items, point, direction, item_index):
        return 0.0
    return cosine / pi


@inner
def trace_diffuse(scene, item_index, point, normal, albedo, sequence, pair):
    """The radiance from a diffuse surface: sun, sky, and `NUM_BOUNCES` bounces sampled by the dimension pairs from
    `pair`."""
    red, green, blue = 0.0, 0.0, 0.0
    a, b, c = albedo
    lighting = scene.lighting[0]
    for bounce in range(NUM_BOUNCES + 1):
        u, v = quasirandom_pair(sequence, pair + 2 * bounce)
        sunlight = sample_sun(scene, item_index, point, normal, u, v)
        red = red + a * sunlight * lighting.sun_irradiance[0]
        green = green + b * sunlight * lighting.sun_irradiance[1]
        blue = blue + c * sunlight * lighting.sun_irradiance[2]
        if bounce == NUM_BOUNCES:
            break
        u, v = quasirandom_pair(sequence, pair + 2 * bounce + 1)
        direction = direction_at_angle(normal, sqrt(1.0 - u), v)
        t, hit_index = find_closest_hit(scene.items, scene.all_items, point, direction, item_index, SHADING_TOLERANCE)
        if hit_index < 0:
            sky = sky_radiance(lighting, direction)
            return red + a * sky[0], green + b * sky[1], blue + c * sky[2]
        point, normal, next_albedo = evaluate_surface(scene.items[hit_index], point, direction, t)
        a, b, c, item_index = a * next_albedo[0], b * next_albedo[1], c * next_albedo[2], hit_index
    return red, green, blue


@inner
def trace_mirror(scene, item_index, point, direction, sequence):
    """The radiance along a mirror direction: sky and sun, or other items, shaded as diffuse."""
    t, hit_index = find_closest_hit(scene.items, scene.all_items, point, direction, item_index, SHADING_TOLERANCE)
    if hit_index >= 0:
        hit_point, normal, albedo = evaluate_surface(scene.items[hit_index], point, direction, t)
        return trace_diffuse(scene, hit_index, hit_point, normal, albedo, sequence, MIRROR_PAIR)
    lighting = scene.lighting[0]
    red, green, blue = sky_radiance(lighting, direction)
    sun_direction = (lighting.sun_direction[0], lighting.sun_direction[1], lighting.sun_direction[2])
    if dot(direction, sun_direction) > lighting.sun_cosine:
        disc = 1.0 / (pi * (1.0 - lighting.sun_cosine * lighting.sun_cosine))
        sun = lighting.sun_irradiance
        return red + disc * sun[0], green + disc * sun[1], blue + disc * sun[2]
    return red, green, blue


@inner
def outgoing_radiance(scene, item_index, origin, direction, t, sequence):
    """The radiance from a hit towards the ray origin: diffuse under a coat (Fresnel after Schlick 1994), or metal."""
    point, normal, albedo = evaluate_surface(scene.items[item_index], origin, direction, t)
    coat_reflectance, is_metal = scene.items[item_index].coat_reflectance, scene.items[item_index].is_metal
    if coat_reflectance == 0.0 and not is_metal:
        return trace_diffuse(scene, item_index, point, normal, albedo, sequence, DIFFUSE_PAIR)
    cosine = -dot(direction, normal)
    grazing = (1.0 - min(max(cosine, 0.0), 1.0)) ** 5
    normal_reflectance = albedo if is_metal else (coat_reflectance, coat_reflectance, coat_reflectance)
    fresnel = (
        normal_reflectance[0] + (1.0 - normal_reflectance[0]) * grazing,
        normal_reflectance[1] + (1.0 - normal_reflectance[1]) * grazing,
        normal_reflectance[2] + (1.0 - normal_reflectance[2]) * grazing,
    )
    reflected = normalize_vector(point_on_ray(direction, normal, 2.0 * cosine))
    mirrored = trace_mirror(scene, item_index, point, reflected, sequence)
    # Each sample of the mirrored sun is clipped at white before averaging, otherwise its edge would be aliased.
    specular = (
        min(fresnel[0] * mirrored[0], 1.0),
        min(fresnel[1] * mirrored[1], 1.0),
        min(fresnel[2] * mirrored[2], 1.0),
    )
    if is_metal:
        return specular
    diffuse = trace_diffuse(scene, item_index, point, normal, albedo, sequence, DIFFUSE_PAIR)
    return (
        specular[0] + (1.0 - fresnel[0]) * diffuse[0],
        specular[1] + (1.0 - fresnel[1]) * diffuse[1],
        specular[2] + (1.0 - fresnel[2]) * diffuse[2],
    )


@inner
def pixel_direction(c2w, focal, x, y):
    """The unit direction through the point (x, y) [pixels from the image center]."""
    a, b = x / focal, y / focal
    return normalize_vector(
        (
            c2w[0, 0] * a + c2w[0, 1] * b + c2w[0, 2],
            c2w[1, 0] * a + c2w[1, 1] * b + c2w[1, 2],
            c2w[2, 0] * a + c2w[2, 1] * b + c2w[2, 2],
        )
    )


@inner
def select_candidates(item_bounds, column, row, candidates):
    """Writes the indices of the items whose bounds contain the pixel to `candidates`; returns their count."""
    count = 0
    for i in range(item_bounds.shape[0]):
        if item_bounds[i, 0] <= column < item_bounds[i, 2] and item_bounds[i, 1] <= row < item_bounds[i, 3]:
            candidates[count] = i
            count += 1
    return count


@loop
def trace_pixels(scene, item_bounds, c2w, focal, num_samples, seed, image):
    """Fills `image` (height, width, 4) with the mean radiance of the samples that hit an item, and their fraction."""
    height, width = image.shape[0], image.shape[1]
    origin = (c2w[0, 3], c2w[1, 3], c2w[2, 3])
    for row in prange(height):
        buffer = np.empty_like(scene.all_items)
        for column in range(width):
            candidates = buffer[: select_candidates(item_bounds, column, row, buffer)]
            pixel_key = hash_uint64(hash_uint64(seed) + U64(row * width + column))
            red, green, blue, num_hits = 0.0, 0.0, 0.0, 0
            for sample in range(num_samples if candidates.size else 0):
                sequence = (pixel_key, sample, num_samples)
                u, v = quasirandom_pair(sequence, PIXEL_PAIR)
                direction = pixel_direction(c2w, focal, column + u - 0.5 * width, row + v - 0.5 * height)
                t, item_index = find_closest_hit(scene.items, candidates, origin, direction, -1, SHADING_TOLERANCE)
                if item_index >= 0:
                    radiance = outgoing_radiance(scene, item_index, origin, direction, t, sequence)
                    red, green, blue = red + radiance[0], green + radiance[1], blue + radiance[2]
                    num_hits += 1
            scale = 1.0 / max(num_hits, 1)
            image[row, column, 0], image[row, column, 1] = red * scale, green * scale
            image[row, column, 2], image[row, column, 3] = blue * scale, num_hits / num_samples


@loop
def cast_center_rays(scene, c2w, focal, depth, normals, item_ids):
    """Fills depth (height, width), normals (height, width, 3) and `item_ids` with the hits of the center rays."""
    height, width = depth.shape
    origin = (c2w[0, 3], c2w[1, 3], c2w[2, 3])
    for row in prange(height):
        for column in range(width):
            direction = pixel_direction(c2w, focal, column + 0.5 - 0.5 * width, row + 0.5 - 0.5 * height)
            t, item_index = find_closest_hit(scene.items, scene.all_items, origin, direction, -1, EXACT_TOLERANCE)
            depth[row, column], item_ids[row, column] = t, item_index + 1
            if item_index >= 0:
                item = scene.items[item_index]
                local = transform_to_item(item, point_on_ray(origin, direction, t))
                normal = rotate_to_world(item, item_normal(item, local))
                normals[row, column, 0], normals[row, column, 1], normals[row, column, 2] = normal


def project_item_bounds(scene: PackedScene, view: SyntheticView) -> Int[np.ndarray, "n 4"]:
    """The image rectangle (left, top, right, bottom; right and bottom exclusive) [pixels] that contains each item."""
    lower, upper = scene.items["lower"], scene.items["upper"]
    is_upper = np.array(list(np.ndindex(2, 2, 2)), bool)
    corners = np.where(is_upper, upper[:, None], lower[:, None]) - view.c2w[:, 3]
    local = corners @ view.c2w[:, :3]
    size = np.array([view.width, view.height])
    depth = np.maximum(local[..., 2:], 1e-9)
    pixels = np.clip(view.focal * local[..., :2] / depth + size / 2, 0, size)
    rectangle = np.concatenate([np.floor(pixels.min(1)), np.ceil(pixels.max(1))], -1)
    # Projected corners do not bound an item that extends behind the camera.
    behind_camera = np.any(local[..., 2] < 1e-6, axis=1, keepdims=True)
    return np.where(behind_camera, np.array([0, 0, *size]), rectangle).astype(np.int64)


def render_radiance(scene: PackedScene, view: SyntheticView, num_samples: int, seed: int) -> Float[np.ndarray, "h w 4"]:
    """Linear RGB of the surfaces in each pixel, and the fraction of the pixel that they cover.

    `seed` selects the noise: use a different one for each image of a scene.
    """
    image = np.zeros((view.height, view.width, 4))
    with numba.parallel_chunksize(1):
        item_bounds = project_item_bounds(scene, view)
        trace_pixels(scene, item_bounds, view.c2w, view.focal, num_samples, U64(seed % 2**64), image)
    return image


def render_ground_truth(scene: PackedScene, view: SyntheticView) -> GroundTruth:
    """Traces the rays through the pixel centers."""
    shape = (view.height, view.width)
    depth, normals = np.empty(shape, np.float32), np.zeros((*shape, 3), np.float32)
    item_ids = np.empty(shape, np.uint8)
    cast_center_rays(scene, view.c2w, view.focal, depth, normals, item_ids)
    return GroundTruth(depth, normals, item_ids)


def render_image(scene: PackedScene, view: SyntheticView, num_samples: int, seed: int) -> UInt8[np.ndarray, "h w 4"]:
    """The rendering as 8-bit sRGB with straight alpha."""
    linear = render_radiance(scene, view, num_samples, seed)
    alpha = linear[..., 3:]
    return np.round(255 * np.concatenate([encode_srgb(linear[..., :3]), alpha], -1)).astype(np.uint8)


def encode_srgb(linear: Float[np.ndarray, "*p"]) -> Float[np.ndarray, "*p"]:
    """The sRGB transfer function (IEC 61966-2-1); linear input is clipped to [0, 1]."""
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
