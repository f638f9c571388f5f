"""Optical flow pairs: exact forward and backward flow, and occlusion masks."""

from __future__ import annotations

import numpy as np

from lumifield.synthetic import FlowPairs
from lumifield.synthetic.optical_flow_pairs import LAYER_DTYPE, compute_flow, render_flow_pair, render_layers

SMALL = FlowPairs(num_pairs=1, image_width=64)


def sample_nearest(field: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The nearest values of a field at the targets of the flow."""
    height, width = flow.shape[:2]
    x = np.clip(np.round(np.arange(width) + flow[..., 0]), 0, width - 1).astype(int)
    y = np.clip(np.round(np.arange(height)[:, None] + flow[..., 1]), 0, height - 1).astype(int)
    return field[y, x]


def test_forward_and_backward_flow_cancel():
    for index in range(4):
        pair = render_flow_pair(SMALL, index)
        back = sample_nearest(pair.flows[1], pair.flows[0])
        error = np.abs(pair.flows[0] + back).max(-1)[~pair.occlusions[0]]
        # The backward flow is sampled at the nearest pixel.
        assert np.median(error) < 0.1
        assert np.quantile(error, 0.95) < 0.5


def make_layers(*rows) -> np.ndarray:
    return np.array(list(rows), LAYER_DTYPE)


def make_disc(gray: float, before, after, *, is_background: bool = False) -> tuple:
    """A gray disc with (x, y, size) in both images."""
    image_to_layer = [np.linalg.inv([[size, 0, x], [0, size, y], [0, 0, 1]])[:2] for x, y, size in (before, after)]
    return (0, (gray,) * 3, (gray,) * 3, 1.0, 0.0, is_background, 2, 0.0, np.stack(image_to_layer))


def test_a_disc_that_moves_over_a_static_background():
    backdrop = make_disc(0.2, (0.5, 0.5, 1), (0.5, 0.5, 1), is_background=True)
    layers = make_layers(backdrop, make_disc(0.9, (0.3, 0.4, 0.2), (0.5, 0.4, 0.2)))
    layer_maps = []
    for frame in (0, 1):
        image, layer_map = np.empty((48, 64, 3)), np.empty((48, 64), np.int64)
        render_layers(layers, frame, image, layer_map)
        assert np.allclose(image[layer_map == 1].max(), 0.9)
        layer_maps.append(layer_map)
    flow, occluded = compute_flow(layers, layer_maps, 0)
    assert np.allclose(flow[layer_maps[0] == 1], (12.8, 0))
    assert np.abs(flow[layer_maps[0] == 0]).max() < 1e-9
    # Exactly the pixels that the disc covers only in the second image are occluded.
    assert np.array_equal(occluded, (layer_maps[1] == 1) & (layer_maps[0] == 0))


def test_pixels_that_leave_the_image_are_occluded():
    layers = make_layers(make_disc(0.2, (0.5, 0.5, 1), (1.0, 0.5, 1), is_background=True))
    flow, occluded = compute_flow(layers, [np.zeros((48, 64), np.int64)] * 2, 0)
    assert np.allclose(flow, (32, 0))
    assert np.array_equal(occluded, np.tile(np.arange(64) >= 32, (48, 1)))


def test_pairs_are_distinct_and_reproducible():
    first, again, other = (
        render_flow_pair(SMALL, 0),
        render_flow_pair(FlowPairs(num_pairs=9, image_width=64), 0),
        render_flow_pair(SMALL, 1),
    )
    assert np.array_equal(first.images[1], again.images[1])
    assert not np.array_equal(first.images[1], other.images[1])


def test_images_have_contrast():
    assert min(render_flow_pair(SMALL, index).images[0].std() for index in range(4)) > 20
