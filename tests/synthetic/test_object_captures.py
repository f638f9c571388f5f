"""Object captures in the formats of DTU and NLR, read back by their readers."""

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
from lumifield.runtime.image_metrics import psnr
from lumifield.synthetic import ObjectCaptures, synthesize_data
from lumifield.synthetic.object_captures import capture_views, make_captured_object
from lumifield.synthetic.path_tracer import render_ground_truth, render_image
from lumifield.synthetic.scene_description import pack_scene

SMALL = ObjectCaptures(image_width=32, num_train=5, num_val=2, num_test=3, samples_per_pixel=4)


@pytest.fixture(scope="module", params=["dtu", "nlr"])
def capture(request, tmp_path_factory) -> tuple[ObjectCaptures, Path]:
    settings = replace(SMALL, format=request.param)
    folder = tmp_path_factory.mktemp("captures") / request.param
    synthesize_data(settings, folder)
    return settings, folder


def test_readers_find_cameras_and_object_masks(capture):
    settings, folder = capture
    captured_object = make_captured_object(settings, 0)
    all_views = capture_views(settings, 0, captured_object)
    source = Source(folder)
    assert data.open_capture(source).splits == ("train", "val", "test")
    first = 0
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        scene = data.read_scene(source, split)
        assert (len(scene), scene.has_object_mask) == (count, True)
        for index, view in enumerate(all_views[first : first + count]):
            torch.testing.assert_close(
                scene.frame.poses_to_world(scene.cameras.c2w[[index]])[0].numpy(), view.c2w.astype(np.float32)
            )
            assert scene.size(index) == (view.width, view.height)
            assert scene.cameras.center[index].tolist() == [view.width / 2, view.height / 2]
            expected_mask = render_ground_truth(pack_scene(captured_object.scene), view).item_id > 0
            assert (scene.object_mask(index).numpy() == expected_mask).mean() > 0.97
        first += count


def test_the_object_lies_in_the_unit_sphere(capture):
    _, folder = capture
    frame = data.open_capture(Source(folder)).cameras("train").frame
    mesh = trimesh.load(folder / "ground_truth/mesh.ply")
    distances = frame.to_scene(torch.from_numpy(np.array(mesh.vertices)).float()).norm(dim=-1)
    assert 0.5 < float(distances.max()) < 1.05
    assert bool((distances < 1).float().mean() > 0.99)


def test_a_constant_color_scores_at_most_14_db():
    for index in range(6):
        captured_object = make_captured_object(SMALL, index)
        view = capture_views(SMALL, index, captured_object)[0]
        pixels = render_image(pack_scene(captured_object.scene), view, 8, index)
        colors = torch.from_numpy(pixels[pixels[..., 3] >= 128][:, :3] / 255)
        assert psnr(float((colors - colors.mean(0)).square().mean())) <= 14


def test_nlr_images_have_two_sizes():
    settings = replace(SMALL, format="nlr")
    sizes = [(view.width, view.height) for view in capture_views(settings, 0, make_captured_object(settings, 0))]
    assert sizes[:4] == [(32, 32), (16, 24)] * 2


def test_several_objects_form_a_collection(tmp_path):
    synthesize_data(replace(SMALL, num_objects=3, image_width=16, samples_per_pixel=1), tmp_path / "many")
    assert [task.name for task in list_tasks(Source(tmp_path / "many"), "train")] == ["0001", "0002"]
    assert make_captured_object(SMALL, 2).scene == make_captured_object(replace(SMALL, num_objects=3), 2).scene
    assert make_captured_object(SMALL, 2).scene != make_captured_object(SMALL, 1).scene


def test_cameras_stay_within_the_azimuth_range():
    settings = replace(SMALL, azimuth_range=90.0, num_train=40)
    captured_object = make_captured_object(settings, 0)
    offsets = (
        np.stack([view.c2w[:, 3] for view in capture_views(settings, 0, captured_object)]) - captured_object.center
    )
    azimuth = np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0]))
    assert np.abs(azimuth).max() <= 45
    assert azimuth.max() - azimuth.min() > 80
    assert np.linalg.norm(offsets, axis=1) == pytest.approx(4 * captured_object.radius)
