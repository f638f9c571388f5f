"""Flying shapes: flows that are exact, both ways, and what is hidden."""

from __future__ import annotations

import numpy as np

from lumifield.synthetic import FlowPairs
from lumifield.synthetic.optical_flow_pairs import LAYER_DTYPE, compute_flow, render_flow_pair, render_layers

SMALL = FlowPairs(pairs=1, size=64)


def sampled(field: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The nearest values of a field where the flow leads."""
    height, width = flow.shape[:2]
    x = np.clip(np.round(np.arange(width) + flow[..., 0]), 0, width - 1).astype(int)
    y = np.clip(np.round(np.arange(height)[:, None] + flow[..., 1]), 0, height - 1).astype(int)
    return field[y, x]


def test_there_and_back_is_nowhere():
    for index in range(4):
        one = render_flow_pair(SMALL, index)
        back = sampled(one.flows[1], one.flows[0])
        away = np.abs(one.flows[0] + back).max(-1)[~one.hidden[0]]
        # The flow varies within the pixel that it is looked up in.
        assert np.median(away) < 0.1
        assert np.quantile(away, 0.95) < 0.5


def layers(*rows) -> np.ndarray:
    return np.array(list(rows), LAYER_DTYPE)


def layer(level: float, before, after, *, endless: bool = False) -> tuple:
    """A disc of one gray, at places and of a size."""
    into = [np.linalg.inv([[size, 0, x], [0, size, y], [0, 0, 1]])[:2] for x, y, size in (before, after)]
    return (0, (level,) * 3, (level,) * 3, 1.0, 0.0, endless, 2, 0.0, np.stack(into))


def test_a_disc_that_moves_over_what_stands_still():
    backdrop = layer(0.2, (0.5, 0.5, 1), (0.5, 0.5, 1), endless=True)
    scene = layers(backdrop, layer(0.9, (0.3, 0.4, 0.2), (0.5, 0.4, 0.2)))
    tops = []
    for frame in (0, 1):
        image, top = np.empty((48, 64, 3)), np.empty((48, 64), np.int64)
        render_layers(scene, frame, image, top)
        assert np.allclose(image[top == 1].max(), 0.9)
        tops.append(top)
    flow, hidden = compute_flow(scene, tops, 0)
    assert np.allclose(flow[tops[0] == 1], (12.8, 0))
    assert np.abs(flow[tops[0] == 0]).max() < 1e-9
    # What the disc covers in the second image and not in the first is hidden there, and nothing else.
    assert np.array_equal(hidden, (tops[1] == 1) & (tops[0] == 0))


def test_what_leaves_the_image_is_hidden():
    scene = layers(layer(0.2, (0.5, 0.5, 1), (1.0, 0.5, 1), endless=True))
    flow, hidden = compute_flow(scene, [np.zeros((48, 64), np.int64)] * 2, 0)
    assert np.allclose(flow, (32, 0))
    assert np.array_equal(hidden, np.tile(np.arange(64) >= 32, (48, 1)))


def test_every_pair_is_always_the_same_and_unlike_the_others():
    first, again, other = (
        render_flow_pair(SMALL, 0),
        render_flow_pair(FlowPairs(pairs=9, size=64), 0),
        render_flow_pair(SMALL, 1),
    )
    assert np.array_equal(first.images[1], again.images[1])
    assert not np.array_equal(first.images[1], other.images[1])


def test_images_differ_from_pixel_to_pixel():
    assert min(render_flow_pair(SMALL, index).images[0].std() for index in range(4)) > 20
