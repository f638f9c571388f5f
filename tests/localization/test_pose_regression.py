import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analytic import Room, around, photograph, scene_of
from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.geometry.poses import pose_error
from lumifield.localization import Baseline, Regressor, pose_regression
from lumifield.localization.pose_regression import (
    Examples,
    PoseRegressor,
    batch,
    errors,
    relative_reduction,
    rotations,
    train_regressor,
)
from lumifield.rendering.camera_paths import read_camera_path
from lumifield.runtime.rng import Rng

SMALL = Regressor(image_size=16, steps=150, batch_size=8, dropout=0.0)


@pytest.fixture
def source(tmp_path):
    """The room from six places, and from others between them."""
    for split, rows in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        (tmp_path / "room").mkdir(exist_ok=True)
        cameras = around(12, (16, 12), 0.5)[rows]
        source = photograph(tmp_path / "room", scene_of(cameras), split, Room())
    return source


def test_examples_do_not_depend_on_the_light(source):
    scene = data.read_scene(source, "train")
    plain = Examples.of(scene, (8, 6))
    pixels = (scene.images.pixels.float() * 0.5 + 60).round().to(torch.uint8)
    dim = Examples.of(replace(scene, images=replace(scene.images, pixels=pixels)), (8, 6))
    assert plain.images.shape == (6, 3, 6, 8)
    torch.testing.assert_close(plain.images, dim.images, atol=0.05, rtol=0)
    torch.testing.assert_close(plain.images.flatten(1).mean(1), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.images.flatten(1).std(1), torch.ones(6))


def test_examples_are_in_the_world(source):
    scene = data.read_scene(source, "train")
    frame = Frame(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]), 2.0)
    moved = Examples.of(replace(scene, frame=frame), (8, 6)).c2w
    torch.testing.assert_close(moved, frame.poses_to_world(scene.cameras.c2w))


def test_an_image_of_one_color_is_no_fault(source):
    scene = data.read_scene(source, "train")
    plain = replace(scene.images, pixels=torch.full_like(scene.images.pixels, 7))
    images = Examples.of(replace(scene, images=plain), (8, 6)).images
    torch.testing.assert_close(images, torch.zeros_like(images), atol=1e-3, rtol=0)


@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6))
def test_two_axes_make_a_rotation(values):
    axes = torch.tensor(values).view(1, 3, 2) + torch.tensor([[5.0, 0], [0, 5], [0, 0]])
    (rotation,) = rotations(axes)
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3), atol=1e-5, rtol=0)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(rotation[:, 0], axes[0, :, 0] / axes[0, :, 0].norm())
    assert float(rotation[:, 2] @ axes[0, :, 1]) == pytest.approx(0, abs=1e-4)


def test_the_loss_is_that_of_the_expected_errors(source):
    examples = Examples.of(data.read_scene(source, "train"), (8, 6))
    network = PoseRegressor(SMALL, examples)
    found = examples.c2w.clone()
    found[:, 0, 3] += 0.3
    found[:, :, 0] *= 0.5
    position, orientation = 0.3 / float(network.reach), 0.5
    s, q = pose_regression.INITIAL_LOG_VARIANCES
    expected = position * torch.tensor(-s).exp() + s + orientation * torch.tensor(-q).exp() + q
    assert float(network.loss(found, examples.c2w).detach()) == pytest.approx(float(expected), abs=1e-4)


def test_half_of_a_batch_is_synthetic(source):
    real = Examples.of(data.read_scene(source, "train"), (8, 6))
    synthetic = replace(real, c2w=real.c2w + 10)
    rng = Rng(torch.Generator().manual_seed(0))
    images, c2w = batch(replace(SMALL, batch_size=7, noise_std=0.0), real, synthetic, rng)
    assert images.shape == (7, 3, 6, 8)
    assert [bool((each > 5).all()) for each in c2w] == [False] * 4 + [True] * 3
    assert all(any(torch.equal(each, own) for own in real.images) for each in images)
    noisy, _ = batch(replace(SMALL, batch_size=64, noise_std=0.5), real, None, rng)
    assert float(noisy.var()) == pytest.approx(1.25, abs=0.1)


def test_it_learns_the_images_and_is_the_same_again(source):
    examples = Examples.of(data.read_scene(source, "train"), (16, 12))
    network = train_regressor(SMALL, examples, None, 0)
    distance, degrees = errors(network, examples)
    assert float(distance.median()) < 10
    assert float(degrees.median()) < 15
    again = train_regressor(replace(SMALL, steps=5), examples, None, 1)
    other = train_regressor(replace(SMALL, steps=5), examples, None, 1)
    torch.testing.assert_close(errors(again, examples), errors(other, examples), rtol=0, atol=0)


def test_more_views_are_compared_with_fewer(source, tmp_path):
    training, judged = data.read_scene(source, "train"), data.read_scene(source, "test")
    (tmp_path / "between").mkdir()
    photograph(tmp_path / "between", scene_of(around(12, (16, 12), 0.5)), "train", Room())
    synthetic = data.read_scene(Source(tmp_path / "between"), "train")
    settings = Baseline(network=SMALL, seeds=(0, 1))
    result = pose_regression.compare(settings, training, judged, synthetic, tmp_path / "out")
    assert result == json.loads((tmp_path / "out" / "baseline.json").read_text())
    assert [(row["seed"], row["synthetic"]) for row in result["rows"]] == [(0, 0), (0, 12), (1, 0), (1, 12)]
    assert min(result["drop"]) > 0.2
    cameras = read_camera_path(tmp_path / "out" / "poses.json", judged)
    distance, _ = pose_error(cameras.c2w, judged.cameras.c2w)
    assert 100 * float(distance.median()) == pytest.approx(result["rows"][1]["median_error"][0], rel=1e-3)


def test_without_synthetic_views_there_is_nothing_to_drop(source, tmp_path):
    scene = data.read_scene(source, "train")
    settings = Baseline(network=replace(SMALL, steps=2), seeds=(0,))
    result = pose_regression.compare(settings, scene, scene, None, tmp_path / "out")
    assert "drop" not in result
    assert len(result["rows"]) == 1


def test_the_drop_is_that_of_the_means_over_the_seeds():
    rows = [
        {"synthetic": 0, "median_error": [10.0, 2.0]},
        {"synthetic": 5, "median_error": [4.0, 1.0]},
        {"synthetic": 0, "median_error": [20.0, 4.0]},
        {"synthetic": 5, "median_error": [8.0, 3.5]},
    ]
    assert relative_reduction(rows) == {"without": [15.0, 3.0], "with": [6.0, 2.25], "drop": [pytest.approx(0.6), 0.25]}


def test_no_seed_is_refused():
    with pytest.raises(DataError, match="seeds: found empty"):
        Baseline(seeds=())
