import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import made_reconstructions as sfm
import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.data.readers import cambridge
from lumifield.data.undistort import Radial
from lumifield.errors import DataError


def cameras(root, split="train", **options):
    return data.open_capture(Source(root, **options)).cameras(split)


def test_lists_say_the_splits_and_the_model_the_poses(tmp_path):
    poses = made.ring(9, target=(3, 1, -2))
    source = Source(sfm.cambridge(tmp_path, poses))
    assert data.detect_format(tmp_path) == "cambridge"
    assert data.open_capture(source).splits == ("train", "test")
    for split, rows in (("train", [0, 1, 3, 4, 6, 7, 8]), ("test", [2, 5])):
        scene = data.read_scene(source, split)
        assert scene.names == tuple(f"seq1/frame{row:05d}.jpg" for row in rows)
        world = scene.frame.poses_to_world(scene.cameras.c2w)
        torch.testing.assert_close(world, poses[rows].float(), atol=1e-5, rtol=1e-5)
        assert np.array_equal(scene.images.image(1, sfm.SIZE).numpy(), made.image(rows[1], sfm.SIZE, 3))
    torch.testing.assert_close(cambridge.load_cambridge(tmp_path).c2w, poses, atol=1e-12, rtol=0)


def test_focal_lengths_follow_the_size_that_is_read(tmp_path):
    full = cameras(sfm.cambridge(tmp_path, made.ring(9)))
    half = cameras(tmp_path, downscale=5)
    assert full.cameras.focal[0].tolist() == [30.0, 30.0]
    assert half.cameras.size[0].tolist() == [6, 5]
    assert half.cameras.focal[0].tolist() == pytest.approx([30 * 6 / 32, 30 * 5 / 24])
    assert half.cameras.center[0].tolist() == [3.0, 2.5]


def measured(points, lens: Radial):
    """VisualSFM's definition, the other way about: directions of pixels."""
    m = (np.array(points) - lens.center) / lens.focal
    return m * (1 + lens.radial * (m**2).sum(-1, keepdims=True))


@given(st.floats(-0.3, 0.5), st.floats(0.5, 31.5), st.floats(0.5, 23.5))
def test_the_lens_undoes_its_definition(radial, x, y):
    lens = Radial(30.0, (16.0, 12.0), radial)
    found = lens.pixels(measured([[x, y]], lens))
    assert np.abs(found - [x, y]).max() < 1e-6


def test_no_points_at_all_pass_the_lens():
    assert Radial(30.0, (16.0, 12.0), 0.1).pixels(np.zeros((0, 2))).shape == (0, 2)
    assert np.allclose(Radial(30.0, (16.0, 12.0), 0.1).pixels(np.zeros((1, 2))), [[16.0, 12.0]])


@pytest.mark.parametrize("radial", [0.2, -0.2])
def test_resampled_images_show_no_place_that_was_not_photographed(radial):
    """And a pixel more on any side would."""
    lens = Radial(300.0, (160.0, 120.0), radial)
    undistortion = lens.with_undistortion((320, 240))
    for grow, inside in ((0, True), (2, False)):
        width, height = (side + grow for side in undistortion.size)
        edge = np.array([[x, y] for x in np.linspace(0, width, 50) for y in np.linspace(0, height, 50)])
        seen = lens.pixels((edge - np.array([width, height]) / 2) / lens.focal)
        assert bool(((seen > -1e-6) & (seen < np.array([320, 240]) + 1e-6)).all()) == inside


@pytest.mark.parametrize("radial", [0.3, -0.15])
def test_marks_stand_where_their_directions_point(tmp_path, radial):
    """Images whose colors are their own place, 8 levels a pixel, are undistorted to within a tenth of a pixel."""
    sfm.cambridge(tmp_path, made.ring(9), radial=radial)
    x, y = np.meshgrid(np.arange(32) + 0.5, np.arange(24) + 0.5)
    for file in (tmp_path / "seq1").iterdir():
        made.save(file, np.rint(np.stack([8 * x - 4, 8 * y - 4, 0 * x], -1)).astype(np.uint8))
    scene = data.read_scene(Source(tmp_path), "train")
    lens = Radial(30.0, (16.0, 12.0), radial)
    width, height = scene.size(0)
    place = (scene.images.image(0, (width, height)).numpy()[..., :2].astype(float) + 4) / 8
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    true = measured(place.reshape(-1, 2), lens) * 30 + scene.cameras.center[0].numpy()
    inside = ((place > 1) & (place < np.array(sfm.SIZE) - 1)).all(-1).reshape(-1)
    assert inside.mean() > 0.7
    assert np.abs(true - np.stack([u, v], -1).reshape(-1, 2))[inside].max() < 0.1


def test_names_in_quotes_with_spaces_and_back_slashes(tmp_path):
    names = ['"seq 1/a b.c.jpg"', "seq1\\frame00001.jpg", "seq1/frame00002.jpg"]
    sfm.cambridge(tmp_path, made.ring(3), test=(), names=names)
    made.save(tmp_path / "seq 1/a b.c.png", made.image(0, sfm.SIZE, 3))
    lines = "seq 1/a b.c.png 0 0 0 1 0 0 0\nseq1/frame00001.png 0 0 0 1 0 0 0\n"
    (tmp_path / "dataset_train.txt").write_text(lines)
    assert cameras(tmp_path).names == ("seq 1/a b.c.jpg", "seq1\\frame00001.jpg")


def test_photographs_without_a_pose_are_skipped_and_counted(tmp_path, caplog):
    with (sfm.cambridge(tmp_path, made.ring(9)) / "dataset_train.txt").open("a") as file:
        file.write("seq9/frame00001.png 0 0 0 1 0 0 0\n")
    with caplog.at_level(logging.WARNING):
        assert len(cameras(tmp_path)) == 7
    assert "dataset_train.txt: 1 of 8 frames have no pose and are skipped." in caplog.text


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "dataset_train.txt",
            lambda t: t + "what is this\n",
            r"dataset_train\.txt: line 11: found of another form",
        ),
        ("dataset_train.txt", lambda t: t[:30], r"dataset_train\.txt: list: found no frame"),
        ("dataset_train.txt", lambda t: t.replace("seq1", "seq7"), r"list: found seq7/frame00000\.png …"),
        ("reconstruction.nvm", lambda t: "NVM_V2" + t[6:], r"nvm: line 1: found of another form"),
        (
            "reconstruction.nvm",
            lambda t: t.replace("\n9\n", "\nnine\n", 1),
            r"line 3: found of another form",
        ),
        ("reconstruction.nvm", lambda t: t.replace(" 0.0 0\n", " 0\n", 1), r"line 4: found of another form"),
        ("reconstruction.nvm", lambda t: t.replace("\t30.0", "\t-30", 1), r"line 4: found of another form"),
        ("reconstruction.nvm", lambda t: t.replace("\t30.0", "\tnan", 1), r"line 4: found of another form"),
        ("reconstruction.nvm", lambda t: t.replace("\t30.0", "\ta", 1), r"line 4: found of another form"),
        (
            "reconstruction.nvm",
            lambda t: t.replace("30 9 0", "30 8 0", 1),
            r"line 15: found of another form",
        ),
        (
            "reconstruction.nvm",
            lambda t: t.replace("30 9 0", "30 9 9", 1),
            r"line 15: found of another form",
        ),
        (
            "reconstruction.nvm",
            lambda t: t[: len(t) // 2].rsplit("\n", 1)[0],
            r"nvm: file: found cut off",
        ),
        (
            "reconstruction.nvm",
            lambda t: t.replace(" 0.0 0\n", " -0.9 0\n"),
            r"png: radial distortion: found -0\.9",
        ),
    ],
)
def test_files_that_cannot_be(tmp_path, name, change, message):
    path = sfm.cambridge(tmp_path, made.ring(9)) / name
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        cameras(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "reconstruction.nvm",
            r"reconstruction\.nvm: file: found missing",
        ),
        ("seq1/frame00001.png", r"frame00001\.png: image: found missing"),
    ],
)
def test_files_that_are_missing(tmp_path, name, message):
    (sfm.cambridge(tmp_path, made.ring(9)) / name).unlink()
    with pytest.raises(DataError, match=message):
        cameras(tmp_path)


def test_no_lists(tmp_path):
    sfm.cambridge(tmp_path, made.ring(9))
    for split in ("train", "test"):
        (tmp_path / f"dataset_{split}.txt").unlink()
    with pytest.raises(DataError, match=r"dataset_train\.txt: found missing"):
        cameras(tmp_path, format="cambridge")
