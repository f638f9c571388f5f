"""Tourists' images, read back by the readers of their layouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lumifield import data
from lumifield.data import image_files
from lumifield.data.readers import cambridge
from lumifield.errors import DataError
from lumifield.synthetic import Tourists, synthesize_data
from lumifield.synthetic.path_tracer import render_ground_truth, render_image

SMALL = Tourists(size=32, train=7, test=3, samples=1, seed=2)
FORMATS = ("phototourism", "cambridge", "seven_scenes")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("tourists")
    for form in FORMATS:
        synthesize_data(replace(SMALL, format=form), root / form)
    return root


@pytest.mark.parametrize("form", FORMATS)
def test_readers_find_the_cameras_that_took_the_photographs(scenes, form):
    source = data.Source(scenes / form)
    assert data.detect_format(source.data) == form
    assert data.list_splits(source) == ("train", "test")
    taken = tourists.photographs(replace(SMALL, format=form))
    for split in ("train", "test"):
        scene = data.read_scene(source, split)
        expected = [one for one in taken if one.split == split]
        assert len(scene) == len(expected)
        truth_c2w = torch.from_numpy(np.stack([one.view.c2w for one in expected])).float()
        found = scene.frame.poses_to_world(scene.cameras.c2w)
        torch.testing.assert_close(found, truth_c2w, atol=4e-6, rtol=0)
        focal = torch.tensor([[one.view.focal] * 2 for one in expected])
        torch.testing.assert_close(scene.cameras.focal, focal)
        assert bool((scene.near < scene.far).all())


def test_poses_in_the_files_are_exact_to_a_millionth(scenes):
    taken = tourists.photographs(replace(SMALL, format="cambridge"))
    expected = torch.from_numpy(np.stack([one.view.c2w for one in taken]))
    torch.testing.assert_close(cambridge.load_cambridge(scenes / "cambridge").c2w, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_photograph_shows_lies_between_near_and_far(scenes, form):
    scene = data.read_scene(data.Source(scenes / form), "train")
    taken = tourists.photographs(replace(SMALL, format=form))
    day, _ = tourists.stages()
    for row in range(len(scene)):
        depth = render_ground_truth(day, taken[row].view).depth / scene.frame.scale
        between = (depth > float(scene.near[row])) & (depth < float(scene.far[row]))
        assert between.mean() > 0.85


def test_landmarks_are_seen_where_they_were_measured(scenes):
    """Through the reader: a point of the file falls on the place that the file measured it at."""
    settings = replace(SMALL, format="cambridge")
    taken = tourists.photographs(settings)
    marks = tourists.landmarks(tourists.stages()[0], taken, settings)
    world = cambridge.load_cambridge(scenes / "cambridge").trusted()
    scene = data.read_cameras(data.Source(scenes / "cambridge"), "train")
    assert len(world.points) > 50
    for row in range(len(scene)):
        assert np.array_equal(world.seen[row], marks.seen[row])
        points = scene.frame.to_scene(torch.from_numpy(world.points[world.seen[row]]).float())
        at, _ = scene.cameras[[row]].project(points)
        straight = world.calibrations[row].optics(scenes, (32, 24)).undistortion
        seen = straight.lens.pixels((at[0].numpy() - straight.center) / straight.focal)
        assert np.abs(seen - (marks.places[row] * taken[row].view.focal + (16, 12))).max() < 1e-3


def test_undistorted_photographs_lie_on_those_of_a_pinhole(tmp_path):
    """To within a tenth of a pixel in each quarter of the image; as they were taken, they do not."""
    settings = replace(SMALL, size=160, train=2, test=1, samples=8, format="cambridge")
    synthesize_data(settings, tmp_path / "scene")
    scene = data.read_scene(data.Source(tmp_path / "scene"), "test")
    one = tourists.photographs(settings)[2]
    width, height = scene.size(0)
    plain = replace(one.view, width=width, height=height)
    day, _ = tourists.stages()
    expected = render_image(day, plain, 8, 5)[..., :3].astype(float)
    straight = scene.images.image(0, (width, height)).numpy().astype(float)
    bent = tourists.through_lens(day, one, settings).astype(float)
    assert max(shifts(straight, expected)) < 0.1
    assert max(shifts(bent, middle(expected, 120, 160))) > 0.3


def middle(pixels, rows, columns):
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    return pixels[top : top + rows, left : left + columns]


def shifts(a, b):
    """How far `a` lies from `b` in each quarter, by least squares over the gradient [pixels]."""
    found = []
    for rows in (slice(3, a.shape[0] // 2), slice(a.shape[0] // 2, -3)):
        for columns in (slice(3, a.shape[1] // 2), slice(a.shape[1] // 2, -3)):
            down, across, _ = np.gradient((a + b) / 2)
            slopes = np.stack([down[rows, columns].ravel(), across[rows, columns].ravel()], 1)
            moved = np.linalg.lstsq(slopes, (a - b)[rows, columns].ravel(), rcond=None)[0]
            found.append(float(np.linalg.norm(moved)))
    return found


def test_test_photographs_are_clean_and_train_photographs_are_not(scenes):
    settings = replace(SMALL, format="seven_scenes")
    day, _ = tourists.stages()
    for split in ("train", "test"):
        scene = data.read_scene(data.Source(scenes / "seven_scenes"), split)
        taken = [one for one in tourists.photographs(settings) if one.split == split]
        for row, one in enumerate(taken):
            clean = tourists.through_lens(day, one, settings)
            assert np.array_equal(scene.images.image(row, (32, 24)).numpy(), clean) == (split == "test")


def test_tourists_differ():
    taken = tourists.photographs(replace(SMALL, train=400))
    train = [one for one in taken if one.split == "train"]
    assert 0.2 < np.mean([one.evening for one in train]) < 0.4
    assert 0.5 < np.mean([len(one.disturbances) == 2 for one in train]) < 0.7
    assert len({one.view.focal for one in train}) == 400
    assert all(one.disturbances == () and not one.evening for one in taken[400:])


def test_depth_is_that_of_the_room(scenes):
    scene = data.read_cameras(data.Source(scenes / "seven_scenes"), "train")
    day, _ = tourists.stages()
    one = tourists.photographs(replace(SMALL, format="seven_scenes"))[0]
    z = render_ground_truth(day, one.view).depth * (one.view.rays() @ one.view.c2w[:, 2])
    for name in ("seq-01/frame-000000.depth.png", "train/depth/seq-01_frame-000000.pose.depth.tiff"):
        found = image_files.read_single_channel(scenes / "seven_scenes" / name)
        assert np.abs(found / 1000 - z).max() < 5.1e-4
    assert len(scene) == SMALL.train


@pytest.mark.parametrize("form", FORMATS)
def test_a_broken_attempt_leaves_nothing(tmp_path, form):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize_data(replace(SMALL, format=form), tmp_path / "out", stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("field", "value"), [("size", 30), ("train", 1), ("test", -1), ("samples", 0)])
def test_settings_that_make_no_scene(tmp_path, field, value):
    with pytest.raises(DataError, match=rf"tourists: {field}: found {value}"):
        synthesize_data(replace(SMALL, **{field: value}), tmp_path / "out")
