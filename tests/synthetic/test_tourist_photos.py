"""Tourist photos, read back by the readers of their formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lumifield import data
from lumifield.data import image_files
from lumifield.data.readers import cambridge
from lumifield.synthetic import Tourists, synthesize_data, tourist_photos
from lumifield.synthetic.path_tracer import render_ground_truth, render_image

SMALL = Tourists(image_width=32, num_train=7, num_test=3, samples_per_pixel=1, seed=2)
FORMATS = ("phototourism", "cambridge", "seven_scenes")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("tourists")
    for format_name in FORMATS:
        synthesize_data(replace(SMALL, format=format_name), root / format_name)
    return root


@pytest.mark.parametrize("format_name", FORMATS)
def test_readers_find_the_cameras(scenes, format_name):
    source = data.Source(scenes / format_name)
    assert data.detect_format(source.data) == format_name
    assert data.open_capture(source).splits == ("train", "test")
    photos = tourist_photos.plan_photos(replace(SMALL, format=format_name))
    for split in ("train", "test"):
        scene = data.read_scene(source, split)
        expected = [photo for photo in photos if photo.split == split]
        assert len(scene) == len(expected)
        expected_c2w = torch.from_numpy(np.stack([photo.view.c2w for photo in expected])).float()
        found = scene.frame.poses_to_world(scene.cameras.c2w)
        torch.testing.assert_close(found, expected_c2w, atol=4e-6, rtol=0)
        focal = torch.tensor([[photo.view.focal] * 2 for photo in expected])
        torch.testing.assert_close(scene.cameras.focal, focal)
        assert bool((scene.near < scene.far).all())


def test_poses_in_the_files_are_exact(scenes):
    photos = tourist_photos.plan_photos(replace(SMALL, format="cambridge"))
    expected = torch.from_numpy(np.stack([photo.view.c2w for photo in photos]))
    torch.testing.assert_close(cambridge.load_cambridge(scenes / "cambridge").c2w, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("format_name", FORMATS)
def test_surfaces_lie_between_near_and_far(scenes, format_name):
    scene = data.read_scene(data.Source(scenes / format_name), "train")
    photos = tourist_photos.plan_photos(replace(SMALL, format=format_name))
    day, _ = tourist_photos.pack_day_and_evening()
    for row in range(len(scene)):
        depth = render_ground_truth(day, photos[row].view).depth / scene.frame.scale
        is_between = (depth > float(scene.near[row])) & (depth < float(scene.far[row]))
        assert is_between.mean() > 0.85


def test_landmarks_project_to_their_measurements(scenes):
    """Through the reader: points of the file project to their measurements in the file."""
    settings = replace(SMALL, format="cambridge")
    photos = tourist_photos.plan_photos(settings)
    landmarks = tourist_photos.sample_landmarks(tourist_photos.pack_day_and_evening()[0], photos, settings)
    world = cambridge.load_cambridge(scenes / "cambridge").without_short_tracks()
    scene = data.open_capture(data.Source(scenes / "cambridge")).cameras("train")
    assert len(world.points) > 50
    for row in range(len(scene)):
        assert np.array_equal(world.seen[row], landmarks.visible_rows[row])
        points = scene.frame.to_scene(torch.from_numpy(world.points[world.seen[row]]).float())
        at, _ = scene.cameras[[row]].project(points)
        undistorted = world.calibrations[row].intrinsics(scenes, (32, 24)).undistortion
        seen = undistorted.lens.pixels((at[0].numpy() - undistorted.center) / undistorted.focal)
        assert np.abs(seen - (landmarks.projections[row] * photos[row].view.focal + (16, 12))).max() < 1e-3


def test_undistorted_images_agree_with_pinhole_renderings(tmp_path):
    """Within a tenth of a pixel in each quarter of the image, unlike the distorted images."""
    settings = replace(SMALL, image_width=160, num_train=2, num_test=1, samples_per_pixel=8, format="cambridge")
    synthesize_data(settings, tmp_path / "scene")
    scene = data.read_scene(data.Source(tmp_path / "scene"), "test")
    photo = tourist_photos.plan_photos(settings)[2]
    width, height = scene.size(0)
    pinhole_view = replace(photo.view, width=width, height=height)
    day, _ = tourist_photos.pack_day_and_evening()
    expected = render_image(day, pinhole_view, 8, 5)[..., :3].astype(float)
    undistorted = scene.images.image(0, (width, height)).numpy().astype(float)
    distorted = tourist_photos.render_clean_photo(day, photo, settings).astype(float)
    assert max(measure_shifts(undistorted, expected)) < 0.1
    assert max(measure_shifts(distorted, crop_center(expected, 120, 160))) > 0.3


def crop_center(pixels, rows, columns):
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    return pixels[top : top + rows, left : left + columns]


def measure_shifts(a, b):
    """The shift between `a` and `b` in each quarter, by least squares on the gradient [pixels]."""
    found = []
    for rows in (slice(3, a.shape[0] // 2), slice(a.shape[0] // 2, -3)):
        for columns in (slice(3, a.shape[1] // 2), slice(a.shape[1] // 2, -3)):
            down, across, _ = np.gradient((a + b) / 2)
            gradients = np.stack([down[rows, columns].ravel(), across[rows, columns].ravel()], 1)
            shift = np.linalg.lstsq(gradients, (a - b)[rows, columns].ravel(), rcond=None)[0]
            found.append(float(np.linalg.norm(shift)))
    return found


def test_only_test_images_are_clean(scenes):
    settings = replace(SMALL, format="seven_scenes")
    day, _ = tourist_photos.pack_day_and_evening()
    for split in ("train", "test"):
        scene = data.read_scene(data.Source(scenes / "seven_scenes"), split)
        photos = [photo for photo in tourist_photos.plan_photos(settings) if photo.split == split]
        for row, photo in enumerate(photos):
            clean_pixels = tourist_photos.render_clean_photo(day, photo, settings)
            assert np.array_equal(scene.images.image(row, (32, 24)).numpy(), clean_pixels) == (split == "test")


def test_photos_vary_in_lighting_occluders_and_focal_length():
    photos = tourist_photos.plan_photos(replace(SMALL, num_train=400))
    train = [photo for photo in photos if photo.split == "train"]
    assert 0.2 < np.mean([photo.is_evening for photo in train]) < 0.4
    assert 0.5 < np.mean([len(photo.perturbations) == 2 for photo in train]) < 0.7
    assert len({photo.view.focal for photo in train}) == 400
    assert all(photo.perturbations == () and not photo.is_evening for photo in photos[400:])


def test_depth_files_hold_the_depth_of_the_room(scenes):
    scene = data.open_capture(data.Source(scenes / "seven_scenes")).cameras("train")
    day, _ = tourist_photos.pack_day_and_evening()
    photo = tourist_photos.plan_photos(replace(SMALL, format="seven_scenes"))[0]
    z = render_ground_truth(day, photo.view).depth * (photo.view.ray_directions() @ photo.view.c2w[:, 2])
    for name in ("seq-01/frame-000000.depth.png", "train/depth/seq-01_frame-000000.pose.depth.tiff"):
        found = image_files.read_single_channel(scenes / "seven_scenes" / name)
        assert np.abs(found / 1000 - z).max() < 5.1e-4
    assert len(scene) == SMALL.num_train


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_interrupted_run_leaves_nothing(tmp_path, format_name):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize_data(replace(SMALL, format=format_name), tmp_path / "out", stop)
    assert list(tmp_path.iterdir()) == []
