import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import made_reconstructions as sfm
import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.errors import DataError


def cameras(root, split="train", **options):
    return data.open_capture(Source(root, **options)).cameras(split)


def test_sequences_with_two_digits(tmp_path):
    poses = made.ring(3, target=(3, 1, -2))
    source = Source(sfm.seven_scenes(tmp_path, poses, train=(1, 4), test=(10,)))
    assert data.detect_format(tmp_path) == "seven_scenes"
    assert data.open_capture(source).splits == ("train", "test")
    train, test = data.read_scene(source, "train"), data.read_scene(source, "test")
    assert train.names == tuple(f"seq-{s:02d}/frame-{100 * s + i:06d}.color.png" for s in (1, 4) for i in range(3))
    assert test.names == tuple(f"seq-10/frame-00100{i}.color.png" for i in range(3))
    for scene, repeat in ((train, 2), (test, 1)):
        world = scene.frame.poses_to_world(scene.cameras.c2w)
        torch.testing.assert_close(world, poses.repeat(repeat, 1, 1).float(), atol=1e-5, rtol=1e-5)
    assert np.array_equal(test.images.image(2, sfm.SIZE).numpy(), made.image(1002, sfm.SIZE, 3))
    assert torch.equal(train.frame.translation, test.frame.translation)


def test_images_and_poses_are_paired_by_number(tmp_path, caplog):
    sfm.seven_scenes(tmp_path, made.ring(4))
    (tmp_path / "seq-01/frame-000101.color.png").unlink()
    (tmp_path / "seq-01/frame-000102.pose.txt").unlink()
    scene = cameras(tmp_path)
    assert [name[-16:-10] for name in scene.names] == ["000100", "000103"]
    world = scene.frame.poses_to_world(scene.cameras.c2w)
    torch.testing.assert_close(world, made.ring(4)[[0, 3]].float(), atol=1e-5, rtol=1e-5)
    assert "1 of 3 listed images do not exist" in caplog.text


def test_the_color_camera_has_525_pixels_at_640(tmp_path):
    sfm.seven_scenes(tmp_path, made.ring(3))
    assert cameras(tmp_path).cameras.focal[0].tolist() == pytest.approx([525 / 20] * 2)
    assert cameras(tmp_path).cameras.center[0].tolist() == [16.0, 12.0]
    assert cameras(tmp_path, focal=30.0, downscale=2).cameras.focal[0].tolist() == [15.0, 15.0]


@pytest.mark.parametrize("focal", [0.0, -1.0, math.inf, math.nan])
def test_focal_lengths_that_cannot_be(tmp_path, focal):
    with pytest.raises(DataError, match=rf"focal: found {focal:g}"):
        cameras(sfm.seven_scenes(tmp_path, made.ring(3)), focal=focal)


def test_focal_lengths_are_for_this_layout(tmp_path):
    with pytest.raises(DataError, match="focal: found 30"):
        cameras(made.blender(tmp_path), focal=30.0)


def test_bounds_follow_from_valid_depth(tmp_path):
    """A plane at 2.5 m, the upper rows without measurement: its nearest valid pixel is ahead, its farthest a corner."""
    scene = cameras(sfm.seven_scenes(tmp_path, made.ring(3), depth=(0, 1)))
    unit = scene.frame.scale
    assert (scene.near * unit).tolist() == pytest.approx([0.9 * 2.5] * 3, rel=2e-3)
    corner = 2.5 * math.hypot(1, 15.5 / 26.25, 11.5 / 26.25)
    assert (scene.far * unit).tolist() == pytest.approx([1.1 * corner] * 3, rel=5e-3)


def test_frames_without_depth_have_the_widest_bounds(tmp_path):
    sfm.seven_scenes(tmp_path, made.ring(3), depth=(0, 1))
    Image.fromarray(np.full((24, 32), 4000, np.uint16)).save(tmp_path / "seq-01/frame-000101.depth.png")
    scene = cameras(tmp_path)
    assert scene.near[0] == scene.near[2] < scene.near[1]
    assert scene.far[0] < scene.far[1] == scene.far[2]
    test = cameras(tmp_path, "test")
    assert (test.near == scene.near[2]).all()
    assert (test.far == scene.far[2]).all()


@pytest.mark.parametrize("depth", [(), (2,)])
def test_scenes_without_any_measurement_have_the_range_of_the_sensor(tmp_path, depth):
    sfm.seven_scenes(tmp_path, made.ring(3), depth=depth)
    for index in depth:
        Image.fromarray(np.zeros((24, 32), np.uint16)).save(tmp_path / f"seq-01/frame-{100 + index:06d}.depth.png")
    scene = cameras(tmp_path)
    assert (scene.near * scene.frame.scale).tolist() == pytest.approx([0.3] * 3)
    assert (scene.far * scene.frame.scale).tolist() == pytest.approx([5.0] * 3)


@pytest.mark.parametrize("beside", [True, False])
def test_depth_of_the_mesh_goes_before_that_of_the_sensor(tmp_path, beside):
    root = sfm.seven_scenes(tmp_path / "fire", made.ring(3), depth=(0, 1, 2))
    folder = (tmp_path / "7scenes_fire" if beside else root) / "train/depth"
    folder.mkdir(parents=True)
    for index in range(3):
        deep = Image.fromarray(np.full((24, 32), 4000, np.uint16))
        deep.save(folder / f"seq-01_frame-{100 + index:06d}.pose.depth.tiff")
    scene = cameras(root)
    assert (scene.near * scene.frame.scale).tolist() == pytest.approx([0.9 * 4.0] * 3, rel=2e-3)


def test_the_cube_holds_nine_tenths_of_what_the_depth_shows(tmp_path):
    scene = cameras(sfm.seven_scenes(tmp_path, made.ring(3), depth=(0, 1, 2)))
    u, v = np.meshgrid(np.arange(32) + 0.5, np.arange(6, 24) + 0.5)
    local = torch.from_numpy(np.stack([(u - 16) / 26.25, (v - 12) / 26.25, 0 * u + 1], -1).reshape(-1, 3) * 2.5)
    world = torch.cat([local @ pose[:, :3].T + pose[:, 3] for pose in made.ring(3)])
    inside = (scene.frame.to_scene(world.float()).abs() <= 1).all(-1)
    assert inside.float().mean().item() == pytest.approx(0.9, abs=0.03)


def test_a_folder_of_frames_holds_out_those_with_depth(tmp_path):
    source = Source(sfm.frames_of(tmp_path, made.ring(14), depth=(3, 9)))
    assert data.detect_format(tmp_path) == "seven_scenes"
    assert data.open_capture(source).splits == ("train", "val", "test")
    rows = {
        s: [int(name[6:12]) for name in data.open_capture(source).cameras(s).names]
        for s in data.open_capture(source).splits
    }
    assert rows == {"test": [3, 9], "val": [0, 10], "train": [1, 2, 4, 5, 6, 7, 8, 11, 12, 13]}


@pytest.mark.parametrize("depth", [(), range(9)])
def test_a_folder_of_frames_that_are_all_alike(tmp_path, depth):
    source = Source(sfm.frames_of(tmp_path, made.ring(9), depth=depth))
    assert data.open_capture(source).splits == ("train", "test")
    assert [name[6:12] for name in data.open_capture(source).cameras("test").names] == ["000000", "000008"]


def test_an_asked_hold_out_goes_before_the_depth(tmp_path):
    source = Source(sfm.frames_of(tmp_path, made.ring(9), depth=(3,)), hold_out="none")
    assert data.open_capture(source).splits == ("train",)
    assert len(data.open_capture(source).cameras("train")) == 9


def test_jpeg_images(tmp_path):
    sfm.frames_of(tmp_path, made.ring(2))
    for index in range(2):
        png = tmp_path / f"frame-00000{index}.color.png"
        Image.open(png).save(png.with_suffix(".jpg"))
        png.unlink()
    assert cameras(tmp_path, hold_out="none").names == ("frame-000000.color.jpg", "frame-000001.color.jpg")


def bad_pose(root):
    (root / "seq-01/frame-000101.pose.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 nan 0\n0 0 0 1\n")


def bad_words(root):
    (root / "seq-01/frame-000101.pose.txt").write_text("1 0 0 zero\n")


def no_sequence(root):
    (root / "TrainSplit.txt").write_text("sequence1\nsequence11\n")


def other_words(root):
    (root / "TrainSplit.txt").write_text("sequence1\nseq-02\n")


def empty(root):
    (root / "TrainSplit.txt").write_text("\n")


def colored(root):
    made.save(root / "seq-01/frame-000101.depth.png", made.image(0, sfm.SIZE, 3))


def cut(root):
    path = root / "seq-01/frame-000101.depth.png"
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bad_pose, r"frame-000101\.pose\.txt: pose: found NaN or infinity"),
        (bad_words, r"frame-000101\.pose\.txt: pose: found shape \(\)"),
        (no_sequence, r"seq-11: poses: found missing"),
        (other_words, r"TrainSplit\.txt: line 2: found 'seq-02'"),
        (empty, r"TrainSplit\.txt: list: found empty"),
        (colored, r"frame-000101\.depth\.png: depth image: found in color"),
        (cut, r"frame-000101\.depth\.png: image: found damaged or cut off \(image file is truncated\)"),
    ],
)
def test_files_that_cannot_be(tmp_path, spoil, message):
    spoil(sfm.seven_scenes(tmp_path, made.ring(3), depth=(1,)))
    with pytest.raises(DataError, match=message):
        cameras(tmp_path)


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
def test_red_kitchen():
    source = Source(Path(os.environ["LUMIFIELD_DATA"]) / "7scenes/redkitchen_subset")
    assert data.detect_format(source.data) == "seven_scenes"
    found = [data.open_capture(source).cameras(split) for split in data.open_capture(source).splits]
    assert [len(scene) for scene in found] == [70, 10, 20]
    assert all(int(name[6:12]) % 50 == 0 for name in found[2].names)
