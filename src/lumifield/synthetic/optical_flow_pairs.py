"""Image pairs of flat shapes that fly over a background, with exact optical flow, in the formats of FlyingChairs."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, cos, hypot
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numba import prange
from PIL import Image

from lumifield.runtime.jit import inner, loop
from lumifield.runtime.optical_flow import write_flow
from lumifield.synthetic import FlowPairs, Progress
from lumifield.synthetic.materials import random_color
from lumifield.synthetic.path_tracer import encode_srgb
from lumifield.synthetic.scene_description import Checker, Clouds, Stripes, Texture
from lumifield.synthetic.textures import evaluate_albedo

# A layer: texture as `evaluate_albedo` reads it, outline, and affine maps from both images to its own coordinates.
LAYER_DTYPE = np.dtype(
    [
        ("texture", np.int64),
        ("first_color", np.float64, 3),
        ("second_color", np.float64, 3),
        ("frequency", np.float64),
        ("slant", np.float64),
        ("is_background", np.bool_),
        ("num_lobes", np.int64),
        ("lobe_amplitude", np.float64),
        ("image_to_layer", np.float64, (2, 2, 3)),
    ],
    align=True,
)
# Samples along each side of a pixel.
SUPERSAMPLING = 3
MIN_SHAPES, MAX_SHAPES = 4, 10
# Standard deviations of the motion of layers between the images: shift [image widths], rotation [rad], log of scale.
SHIFT_STD, ROTATION_STD, LOG_SCALE_STD = 0.03, 0.1, 0.06


@dataclass(frozen=True)
class RenderedFlowPair:
    """Two images, the flow from each to the other [pixels], and masks of the pixels that are occluded in the other."""

    images: tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]
    flows: tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w 2"]]
    occlusions: tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]


def write_flow_pairs(settings: FlowPairs, folder: Path, progress: Progress) -> None:
    """Writes all pairs, numbered from 1."""
    for index in range(settings.num_pairs):
        pair = render_flow_pair(settings, index)
        if settings.format == "flying_chairs_2":
            _write_flying_chairs_2(folder, f"{index + 1:07d}", pair)
        else:
            _write_flying_chairs(folder, f"{index + 1:05d}", pair)
        progress(index + 1, settings.num_pairs)


def render_flow_pair(settings: FlowPairs, index: int) -> RenderedFlowPair:
    """Pair `index`, which does not depend on the number of pairs."""
    layers = _random_layers(np.random.default_rng([settings.seed, index]))
    width, height = settings.image_width, settings.image_width * 3 // 4
    images, layer_maps = [], []
    for frame in (0, 1):
        image, layer_map = np.empty((height, width, 3)), np.empty((height, width), np.int64)
        render_layers(layers, frame, image, layer_map)
        images.append(np.round(255 * encode_srgb(image)).astype(np.uint8))
        layer_maps.append(layer_map)
    forward, occluded_forward = compute_flow(layers, layer_maps, 0)
    backward, occluded_backward = compute_flow(layers, layer_maps, 1)
    return RenderedFlowPair((images[0], images[1]), (forward, backward), (occluded_forward, occluded_backward))


@inner
def find_topmost_layer(layers, frame, x, y):
    """The index of the visible layer at (x, y) [image widths], and the point in the coordinates of the layer."""
    for i in range(layers.shape[0] - 1, -1, -1):
        m = layers[i].image_to_layer[frame]
        u, v = m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]
        num_lobes, amplitude = layers[i].num_lobes, layers[i].lobe_amplitude
        if layers[i].is_background or hypot(u, v) < 1.0 + amplitude * cos(num_lobes * atan2(v, u)):
            return i, u, v
    return -1, 0.0, 0.0


@loop
def render_layers(layers, frame, image, layer_map):
    """Fills `image` (height, width, 3) with linear colors, and `layer_map` with the layers at the pixel centers."""
    height, width = layer_map.shape
    for row in prange(height):
        for column in range(width):
            layer_map[row, column] = find_topmost_layer(layers, frame, (column + 0.5) / width, (row + 0.5) / width)[0]
            red, green, blue = 0.0, 0.0, 0.0
            for sample in range(SUPERSAMPLING * SUPERSAMPLING):
                x = column + (sample % SUPERSAMPLING + 0.5) / SUPERSAMPLING
                y = row + (sample // SUPERSAMPLING + 0.5) / SUPERSAMPLING
                i, u, v = find_topmost_layer(layers, frame, x / width, y / width)
                r, g, b = evaluate_albedo(layers[i], (u, v, v))
                red, green, blue = red + r, green + g, blue + b
            scale = 1.0 / (SUPERSAMPLING * SUPERSAMPLING)
            image[row, column, 0], image[row, column, 1] = red * scale, green * scale
            image[row, column, 2] = blue * scale


@loop
def find_layers(layers, frame, points, indices):
    """Fills `indices` (n) with the visible layers at `points` (n, 2) [image widths]."""
    for row in prange(points.shape[0]):
        indices[row] = find_topmost_layer(layers, frame, points[row, 0], points[row, 1])[0]


def compute_flow(
    layers: np.ndarray, layer_maps: list[Int[np.ndarray, "h w"]], frame: int
) -> tuple[Float[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """The flow from image `frame` to the other [pixels], and the mask of the pixels that are not visible there."""
    height, width = layer_maps[frame].shape
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / width)
    points = np.stack([x, y, np.ones_like(x)], -1)
    image_to_layer = np.zeros((2, len(layers), 3, 3))
    image_to_layer[:, :, :2], image_to_layer[:, :, 2, 2] = layers["image_to_layer"].transpose(1, 0, 2, 3), 1
    motion = (np.linalg.inv(image_to_layer[1 - frame]) @ image_to_layer[frame])[layer_maps[frame]]
    targets = (motion @ points[..., None])[..., :2, 0]
    indices = np.empty(height * width, np.int64)
    find_layers(layers, 1 - frame, targets.reshape(-1, 2), indices)
    outside = (targets < 0).any(-1) | (targets[..., 0] > 1) | (targets[..., 1] > height / width)
    occluded = (indices.reshape(height, width) != layer_maps[frame]) | outside
    return (targets - points[..., :2]) * width, occluded


def _random_layers(rng: np.random.Generator) -> np.ndarray:
    """The background and the shapes from back to front."""
    num_shapes = int(rng.integers(MIN_SHAPES, MAX_SHAPES + 1))
    camera_shift = rng.normal(0, SHIFT_STD, 2)
    rows = [_random_layer(rng, np.array([0.5, 0.375]), 1.0, camera_shift, is_background=True)]
    for _ in range(num_shapes):
        center, scale = rng.uniform((0, 0), (1, 0.75)), float(np.exp(rng.uniform(np.log(0.06), np.log(0.25))))
        shift = camera_shift + rng.normal(0, SHIFT_STD, 2)
        rows.append(_random_layer(rng, center, scale, shift, is_background=False))
    return np.array(rows, LAYER_DTYPE)


def _random_layer(
    rng: np.random.Generator,
    center: Float[np.ndarray, "2"],
    scale: float,
    shift: Float[np.ndarray, "2"],
    *,
    is_background: bool,
) -> tuple[object, ...]:
    """A layer of random texture and outline with its center, scale and shift [image widths]."""
    angle = rng.uniform(0, 2 * np.pi)
    before = _layer_to_image(center, angle, scale)
    angle_after = angle + rng.normal(0, ROTATION_STD)
    after = _layer_to_image(center + shift, angle_after, scale * float(np.exp(rng.normal(0, LOG_SCALE_STD))))
    image_to_layer = np.stack([np.linalg.inv(before)[:2], np.linalg.inv(after)[:2]])
    texture = _random_texture(rng, 5.0 if is_background else 2.0)
    num_lobes, lobe_amplitude = rng.integers(2, 6), rng.uniform(0, 0.4)
    return (texture.texture_id, *texture.to_row(), is_background, num_lobes, lobe_amplitude, image_to_layer)


def _layer_to_image(center: Float[np.ndarray, "2"], angle: float, scale: float) -> Float[np.ndarray, "3 3"]:
    """The similarity transform from the coordinates of a layer to the image [image widths]."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, center[0]], [s, c, center[1]], [0, 0, 1]])


def _random_texture(rng: np.random.Generator, frequency: float) -> Texture:
    first, second = random_color(rng, (0.0, 0.9)), random_color(rng, (0.0, 0.9))
    frequency = frequency * rng.uniform(0.5, 2.0)
    textures = (
        Checker(first, second, frequency),
        Stripes(first, second, frequency, 2.0),
        Clouds(first, second, frequency),
    )
    # Few real surfaces are checkered or striped.
    return textures[rng.choice(3, p=(0.2, 0.2, 0.6))]


def _write_flying_chairs_2(folder: Path, name: str, pair: RenderedFlowPair) -> None:
    """Writes a pair in the FlyingChairs2 format: both flows, and masks in which occluded pixels are white."""
    for frame, direction in ((0, "01"), (1, "10")):
        Image.fromarray(pair.images[frame]).save(folder / f"{name}-img_{frame}.png")
        write_flow(folder / f"{name}-flow_{direction}.flo", pair.flows[frame])
        mask = np.where(pair.occlusions[frame], 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(folder / f"{name}-occ_{direction}.png")


def _write_flying_chairs(folder: Path, name: str, pair: RenderedFlowPair) -> None:
    """Writes a pair in the FlyingChairs format: only the flow from the first image."""
    for frame in (0, 1):
        Image.fromarray(pair.images[frame]).save(folder / f"{name}_img{frame + 1}.ppm")
    write_flow(folder / f"{name}_flow.flo", pair.flows[0])
