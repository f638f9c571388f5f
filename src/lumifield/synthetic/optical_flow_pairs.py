"""Pairs of images of flat shapes that fly before a backdrop, with the exact flow, in the layouts of FlyingChairs."""

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
from lumifield.synthetic.materials import random_color as any_color
from lumifield.synthetic.path_tracer import encode_srgb
from lumifield.synthetic.scene_description import Checker, Clouds, Stripes, Texture
from lumifield.synthetic.textures import random_color

# A layer: its texture as `textures.color` takes it, its outline, and its matrix from each image to its own axes.
LAYER_DTYPE = np.dtype(
    [
        ("texture", np.int64),
        ("first", np.float64, 3),
        ("second", np.float64, 3),
        ("repeats", np.float64),
        ("slant", np.float64),
        ("endless", np.bool_),
        ("lobes", np.int64),
        ("swell", np.float64),
        ("into", np.float64, (2, 2, 3)),
    ],
    align=True,
)
# Samples along each side of a pixel.
FINE = 3
FEWEST, MOST = 4, 10
# How layers move from one image to the other, as deviations: the place in widths, the angle [rad], the log of size.
SHIFT, TURN, GROWTH = 0.03, 0.1, 0.06


@dataclass(frozen=True)
class RenderedFlowPair:
    """Both images, the flow from each to the other [pixels], and where what it shows is hidden in the other."""

    images: tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]
    flows: tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w 2"]]
    hidden: tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]


def write_flow_pairs(settings: FlowPairs, folder: Path, progress: Progress) -> None:
    """All pairs, numbered from 1."""
    for index in range(settings.pairs):
        one = render_flow_pair(settings, index)
        if settings.format == "flying_chairs_2":
            _write_two(folder, f"{index + 1:07d}", one)
        else:
            _write_one(folder, f"{index + 1:05d}", one)
        progress(index + 1, settings.pairs)


def render_flow_pair(settings: FlowPairs, index: int) -> RenderedFlowPair:
    """The pair of an index."""
    layers = _layers(np.random.default_rng([settings.seed, index]))
    width, height = settings.size, settings.size * 3 // 4
    images, tops = [], []
    for frame in (0, 1):
        image, top = np.empty((height, width, 3)), np.empty((height, width), np.int64)
        render_layers(layers, frame, image, top)
        images.append(np.round(255 * encode_srgb(image)).astype(np.uint8))
        tops.append(top)
    (forth, hidden_forth), (back, hidden_back) = (compute_flow(layers, tops, frame) for frame in (0, 1))
    return RenderedFlowPair((images[0], images[1]), (forth, back), (hidden_forth, hidden_back))


@inner
def find_topmost_layer(layers, frame, x, y):
    """The number of the layer that is seen at a place [widths], and the place in its own axes."""
    for i in range(layers.shape[0] - 1, -1, -1):
        m = layers[i].into[frame]
        u, v = m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]
        if layers[i].endless or hypot(u, v) < 1.0 + layers[i].swell * cos(layers[i].lobes * atan2(v, u)):
            return i, u, v
    return -1, 0.0, 0.0


@loop
def render_layers(layers, frame, image, top):
    """Fills `image` (height, width, 3) with linear colors, and `top` with the layers at the pixels' centers."""
    height, width = top.shape
    for row in prange(height):
        for column in range(width):
            top[row, column] = find_topmost_layer(layers, frame, (column + 0.5) / width, (row + 0.5) / width)[0]
            red, green, blue = 0.0, 0.0, 0.0
            for sample in range(FINE * FINE):
                x, y = column + (sample % FINE + 0.5) / FINE, row + (sample // FINE + 0.5) / FINE
                i, u, v = find_topmost_layer(layers, frame, x / width, y / width)
                r, g, b = random_color(layers[i], (u, v, v))
                red, green, blue = red + r, green + g, blue + b
            share = 1.0 / (FINE * FINE)
            image[row, column, 0], image[row, column, 1], image[row, column, 2] = (
                red * share,
                green * share,
                blue * share,
            )


@loop
def find_layers(layers, frame, places, top):
    """Fills `top` (n) with the layers at `places` (n, 2) [widths]."""
    for row in prange(places.shape[0]):
        top[row] = find_topmost_layer(layers, frame, places[row, 0], places[row, 1])[0]


def compute_flow(
    layers: np.ndarray, tops: list[Int[np.ndarray, "h w"]], frame: int
) -> tuple[Float[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """The flow of an image to the other one [pixels], and what cannot be seen there."""
    height, width = tops[frame].shape
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / width)
    here = np.stack([x, y, np.ones_like(x)], -1)
    whole = np.zeros((2, len(layers), 3, 3))
    whole[:, :, :2], whole[:, :, 2, 2] = layers["into"].transpose(1, 0, 2, 3), 1
    across = (np.linalg.inv(whole[1 - frame]) @ whole[frame])[tops[frame]]
    there = (across @ here[..., None])[..., :2, 0]
    found = np.empty(height * width, np.int64)
    find_layers(layers, 1 - frame, there.reshape(-1, 2), found)
    outside = (there < 0).any(-1) | (there[..., 0] > 1) | (there[..., 1] > height / width)
    hidden = (found.reshape(height, width) != tops[frame]) | outside
    return (there - here[..., :2]) * width, hidden


def _layers(rng: np.random.Generator) -> np.ndarray:
    """The backdrop and what flies before it, the nearest last."""
    count = int(rng.integers(FEWEST, MOST + 1))
    drift = rng.normal(0, SHIFT, 2)
    rows = [_layer(rng, np.array([0.5, 0.375]), 1.0, drift, endless=True)]
    for _ in range(count):
        place, size = rng.uniform((0, 0), (1, 0.75)), float(np.exp(rng.uniform(np.log(0.06), np.log(0.25))))
        rows.append(_layer(rng, place, size, drift + rng.normal(0, SHIFT, 2), endless=False))
    return np.array(rows, LAYER_DTYPE)


def _layer(
    rng: np.random.Generator,
    place: Float[np.ndarray, "2"],
    size: float,
    shift: Float[np.ndarray, "2"],
    *,
    endless: bool,
) -> tuple[object, ...]:
    """A layer of random texture and outline; its place and size [widths], and how far it moves."""
    turn = rng.uniform(0, 2 * np.pi)
    before = _pose(place, turn, size)
    after = _pose(place + shift, turn + rng.normal(0, TURN), size * float(np.exp(rng.normal(0, GROWTH))))
    into = np.stack([np.linalg.inv(before)[:2], np.linalg.inv(after)[:2]])
    texture = _texture(rng, 5.0 if endless else 2.0)
    return (texture.kind, *texture.row(), endless, rng.integers(2, 6), rng.uniform(0, 0.4), into)


def _pose(place: Float[np.ndarray, "2"], turn: float, size: float) -> Float[np.ndarray, "3 3"]:
    """From a layer's own axes to the image [widths]."""
    c, s = size * np.cos(turn), size * np.sin(turn)
    return np.array([[c, -s, place[0]], [s, c, place[1]], [0, 0, 1]])


def _texture(rng: np.random.Generator, repeats: float) -> Texture:
    first, second = any_color(rng, (0.0, 0.9)), any_color(rng, (0.0, 0.9))
    repeats = repeats * rng.uniform(0.5, 2.0)
    kinds = (Checker(first, second, repeats), Stripes(first, second, repeats, 2.0), Clouds(first, second, repeats))
    # Most things are neither checked nor striped.
    return kinds[rng.choice(3, p=(0.2, 0.2, 0.6))]


def _write_two(folder: Path, name: str, one: RenderedFlowPair) -> None:
    """FlyingChairs2: both flows, and what is hidden is white."""
    for frame, way in ((0, "01"), (1, "10")):
        Image.fromarray(one.images[frame]).save(folder / f"{name}-img_{frame}.png")
        write_flow(folder / f"{name}-flow_{way}.flo", one.flows[frame])
        hidden = np.where(one.hidden[frame], 255, 0).astype(np.uint8)
        Image.fromarray(hidden).save(folder / f"{name}-occ_{way}.png")


def _write_one(folder: Path, name: str, one: RenderedFlowPair) -> None:
    """FlyingChairs: the flow from the first image alone."""
    for frame in (0, 1):
        Image.fromarray(one.images[frame]).save(folder / f"{name}_img{frame + 1}.ppm")
    write_flow(folder / f"{name}_flow.flo", one.flows[0])
