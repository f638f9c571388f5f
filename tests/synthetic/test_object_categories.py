"""Families: objects within the unit sphere, all different, in a layout that its reader takes."""

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
from lumifield.synthetic.object_categories import make_category_object, random_object_views
from lumifield.synthetic.path_tracer import render_ground_truth
from lumifield.synthetic.scene_description import pack_scene

KINDS = ("cars", "chairs", "lamps")
SMALL = ObjectCategory(size=16, train=2, val=1, test=1, views=3, samples=1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_lies_in_the_unit_sphere_about_its_middle(kind):
    for index in range(200):
        bounds = np.stack(
            [item.world_bounds() for item in make_category_object(replace(SMALL, kind=kind), index).items]
        )
        lower, upper = bounds[:, 0].min(0), bounds[:, 1].max(0)
        assert np.abs(lower + upper).max() < 1e-9
        assert np.linalg.norm(upper) < 1.01
        assert np.linalg.norm(upper) > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_objects_differ_and_each_is_always_the_same(kind):
    settings = replace(SMALL, kind=kind)
    several = [make_category_object(settings, index) for index in range(8)]
    assert all(one != other for one, other in combinations(several, 2))
    assert several[3] == make_category_object(replace(settings, train=40, size=64), 3)
    assert several[3] != make_category_object(replace(settings, seed=1), 3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_shows_all_of_its_object(kind):
    for index in range(12):
        scene = pack_scene(make_category_object(replace(SMALL, kind=kind), index))
        for view in random_object_views(replace(SMALL, size=32), index):
            seen = render_ground_truth(scene, view).item > 0
            assert 0.01 < seen.mean() < 0.8
            assert not seen[[0, -1]].any()
            assert not seen[:, [0, -1]].any()


def test_cameras_look_at_the_middle_from_everywhere():
    places = np.stack([view.c2w[:, 3] for view in random_object_views(replace(SMALL, views=200), 0)])
    assert np.linalg.norm(places, axis=1) == pytest.approx(4.0)
    assert np.abs(places[:, :2].mean(0)).max() < 0.6
    assert (places[:, 2].min() < -1, places[:, 2].max() > 3.6) == (True, True)
    for view in random_object_views(SMALL, 0):
        assert view.c2w[:, 2] * -4 == pytest.approx(view.c2w[:, 3])


def test_its_reader_takes_it(tmp_path):
    out = tmp_path / "lamps"
    options = ["--size", "16", "--train", "2", "--val", "1", "--test", "1", "--views", "3", "--samples", "1"]
    called("synthesize-data", "family", "--kind", "lamps", "--out", out, *options)
    names = {split: [task.name for task in list_tasks(Source(out), split)] for split in ("train", "val", "test")}
    assert names == {"train": ["0000", "0001"], "val": ["0002"], "test": ["0003"]}
    assert names == json.loads((out / "splits.json").read_text())
    scene = list_tasks(Source(out), "test")[0].photographs()
    made = random_object_views(replace(SMALL, kind="lamps"), 3)
    torch.testing.assert_close(scene.cameras.c2w, torch.tensor(np.stack([view.c2w for view in made])).float())
    assert scene.cameras.focal[0].tolist() == pytest.approx([made[0].focal] * 2)
    # Where the truth has matter, and only there, the image is opaque, but for the silhouette.
    for row, view in enumerate(made):
        covered = scene.images.image(row, (16, 16))[..., 3].numpy() > 127
        assert (
            covered
            != (render_ground_truth(pack_scene(make_category_object(replace(SMALL, kind="lamps"), 3)), view).item > 0)
        ).mean() < 0.1


def test_the_same_settings_make_the_same_files(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        families.write_family(replace(SMALL, train=1, val=0, test=0), tmp_path / name, lambda done, total: None)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
