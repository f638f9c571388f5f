"""Captures: sculptures of strong contrast in the layouts of DTU and NLR, as their readers take them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from lumifield import data
from lumifield.data import Source
from lumifield.data.scene_collection import list_tasks
from lumifield.errors import DataError
from lumifield.runtime.image_metrics import psnr
from lumifield.synthetic import ObjectCaptures, synthesize_data
from lumifield.synthetic.object_captures import capture_views, make_captured_object
from lumifield.synthetic.path_tracer import render_ground_truth, render_image
from lumifield.synthetic.scene_description import pack_scene

SMALL = ObjectCaptures(size=32, train=5, val=2, test=3, samples=4)


@pytest.fixture(scope="module", params=["dtu", "nlr"])
def captured(request, tmp_path_factory) -> tuple[ObjectCaptures, Path]:
    settings = replace(SMALL, format=request.param)
    folder = tmp_path_factory.mktemp("captures") / request.param
    synthesize_data(settings, folder)
    return settings, folder


def test_the_reader_finds_cameras_and_silhouettes(captured):
    settings, folder = captured
    one = make_captured_object(settings, 0)
    shots = capture_views(settings, 0, one)
    source = Source(folder)
    assert data.list_splits(source) == ("train", "val", "test")
    first = 0
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        scene = data.read_scene(source, split)
        assert (len(scene), scene.has_object_mask) == (count, True)
        for index, view in enumerate(shots[first : first + count]):
            torch.testing.assert_close(
                scene.frame.poses_to_world(scene.cameras.c2w[[index]])[0].numpy(), view.c2w.astype(np.float32)
            )
            assert scene.size(index) == (view.width, view.height)
            assert scene.cameras.center[index].tolist() == [view.width / 2, view.height / 2]
            there = render_ground_truth(pack_scene(one.stage), view).item > 0
            assert (scene.object_mask(index).numpy() == there).mean() > 0.97
        first += count


def test_the_object_lies_within_the_unit_sphere(captured):
    _, folder = captured
    frame = data.read_cameras(Source(folder), "train").frame
    mesh = trimesh.load(folder / "ground_truth/mesh.ply")
    distance = frame.to_scene(torch.from_numpy(np.array(mesh.vertices)).float()).norm(dim=-1)
    assert 0.5 < float(distance.max()) < 1.05
    assert bool((distance < 1).float().mean() > 0.99)


def test_one_color_scores_little():
    for index in range(6):
        one = make_captured_object(SMALL, index)
        view = capture_views(SMALL, index, one)[0]
        pixels = render_image(pack_scene(one.stage), view, 8, index)
        seen = torch.from_numpy(pixels[pixels[..., 3] >= 128][:, :3] / 255)
        assert psnr(float((seen - seen.mean(0)).square().mean())) <= 14


def test_images_of_nlr_differ_in_size():
    settings = replace(SMALL, format="nlr")
    sizes = [(view.width, view.height) for view in capture_views(settings, 0, make_captured_object(settings, 0))]
    assert sizes[:4] == [(32, 32), (16, 24)] * 2


def test_several_objects_are_a_collection(tmp_path):
    synthesize_data(replace(SMALL, objects=3, size=16, samples=1), tmp_path / "many")
    assert [task.name for task in list_tasks(Source(tmp_path / "many"), "train")] == ["0001", "0002"]
    assert make_captured_object(SMALL, 2).stage == make_captured_object(replace(SMALL, objects=3), 2).stage
    assert make_captured_object(SMALL, 2).stage != make_captured_object(SMALL, 1).stage


def test_cameras_stay_within_the_arc():
    settings = replace(SMALL, arc=90.0, train=40)
    one = make_captured_object(settings, 0)
    offsets = np.stack([view.c2w[:, 3] for view in capture_views(settings, 0, one)]) - one.center
    azimuth = np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0]))
    assert np.abs(azimuth).max() <= 45
    assert azimuth.max() - azimuth.min() > 80
    assert np.linalg.norm(offsets, axis=1) == pytest.approx(4 * one.radius)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": 0}, "objects: found 0"),
        ({"arc": 0.0}, "arc: found 0"),
        ({"arc": 361.0}, "arc: found 361"),
    ],
)
def test_settings_that_make_no_capture(tmp_path, change, message):
    with pytest.raises(DataError, match=f"captures: {message}"):
        synthesize_data(replace(SMALL, **change), tmp_path / "out")
