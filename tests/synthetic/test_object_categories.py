"""Object categories: distinct objects in the unit sphere, in a format that its reader accepts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from commands import called, tree
from lumifield.data import Source
from lumifield.data.scene_collection import list_tasks
from lumifield.synthetic import ObjectCategory
from lumifield.synthetic.object_categories import make_category_object, random_object_views, write_object_category
from lumifield.synthetic.path_tracer import render_ground_truth
from lumifield.synthetic.scene_description import pack_scene

CATEGORIES = ("cars", "chairs", "lamps")
SMALL = ObjectCategory(image_width=16, num_train=2, num_val=1, num_test=1, num_views=3, samples_per_pixel=1)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_object_lies_in_the_unit_sphere_around_its_center(category):
    for index in range(200):
        bounds = np.stack(
            [item.world_bounds() for item in make_category_object(replace(SMALL, category=category), index).items]
        )
        lower, upper = bounds[:, 0].min(0), bounds[:, 1].max(0)
        assert np.abs(lower + upper).max() < 1e-9
        assert np.linalg.norm(upper) < 1.01
        assert np.linalg.norm(upper) > 0.6


@pytest.mark.parametrize("category", CATEGORIES)
def test_objects_are_distinct_and_reproducible(category):
    settings = replace(SMALL, category=category)
    several = [make_category_object(settings, index) for index in range(8)]
    assert all(one != other for one, other in combinations(several, 2))
    assert several[3] == make_category_object(replace(settings, num_train=40, image_width=64), 3)
    assert several[3] != make_category_object(replace(settings, seed=1), 3)


@pytest.mark.parametrize("category", CATEGORIES)
def test_an_image_shows_the_whole_object(category):
    for index in range(12):
        scene = pack_scene(make_category_object(replace(SMALL, category=category), index))
        for view in random_object_views(replace(SMALL, image_width=32), index):
            is_hit = render_ground_truth(scene, view).item_id > 0
            assert 0.01 < is_hit.mean() < 0.8
            assert not is_hit[[0, -1]].any()
            assert not is_hit[:, [0, -1]].any()


def test_cameras_look_at_the_center_from_all_sides():
    positions = np.stack([view.c2w[:, 3] for view in random_object_views(replace(SMALL, num_views=200), 0)])
    assert np.linalg.norm(positions, axis=1) == pytest.approx(4.0)
    assert np.abs(positions[:, :2].mean(0)).max() < 0.6
    assert (positions[:, 2].min() < -1, positions[:, 2].max() > 3.6) == (True, True)
    for view in random_object_views(SMALL, 0):
        assert view.c2w[:, 2] * -4 == pytest.approx(view.c2w[:, 3])


def test_the_reader_finds_splits_cameras_and_images(tmp_path):
    out = tmp_path / "lamps"
    options = "--image-width 16 --num-train 2 --num-val 1 --num-test 1 --num-views 3 --samples-per-pixel 1"
    called("synthesize-data", "object-category", "--category", "lamps", "--out", out, *options.split())
    names = {split: [task.name for task in list_tasks(Source(out), split)] for split in ("train", "val", "test")}
    assert names == {"train": ["0000", "0001"], "val": ["0002"], "test": ["0003"]}
    assert names == json.loads((out / "splits.json").read_text())
    scene = list_tasks(Source(out), "test")[0].load_images()
    expected_views = random_object_views(replace(SMALL, category="lamps"), 3)
    torch.testing.assert_close(scene.cameras.c2w, torch.tensor(np.stack([view.c2w for view in expected_views])).float())
    assert scene.cameras.focal[0].tolist() == pytest.approx([expected_views[0].focal] * 2)
    # Except at the silhouette, the image is opaque exactly at the pixels whose center ray hits the object.
    for row, view in enumerate(expected_views):
        is_opaque = scene.images.image(row, (16, 16))[..., 3].numpy() > 127
        assert (
            is_opaque
            != (
                render_ground_truth(pack_scene(make_category_object(replace(SMALL, category="lamps"), 3)), view).item_id
                > 0
            )
        ).mean() < 0.1


def test_equal_settings_give_equal_files(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_object_category(
            replace(SMALL, num_train=1, num_val=0, num_test=0), tmp_path / name, lambda done, total: None
        )
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
