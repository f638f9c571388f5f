import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.errors import DataError


def test_a_scene_as_it_is_on_disk(tmp_path):
    scene = data.read_scene(Source(made.blender(tmp_path)), "train")
    assert data.open_capture(Source(tmp_path)).splits == ("train", "val", "test")
    assert scene.names == ("train/r_0", "train/r_1", "train/r_2")
    assert np.array_equal(scene.images.image(1, (8, 6)).numpy(), made.image(1, (8, 6), 4))
    torch.testing.assert_close(scene.cameras.c2w, made.ring(3).float())
    assert scene.cameras.focal[0].tolist() == pytest.approx([4 / math.tan(0.4)] * 2)
    assert scene.cameras.center[0].tolist() == [4, 3]
    assert (scene.near.tolist(), scene.far.tolist()) == ([2.0] * 3, [6.0] * 3)
    assert scene.box.tolist() == [[-1.5] * 3, [1.5] * 3]
    assert (scene.background, scene.unbounded, scene.ndc) == ("white", False, None)
    points = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scene.frame.to_world(points), points)


def test_the_origin_lies_in_the_middle_of_every_view(tmp_path):
    scene = data.open_capture(Source(made.blender(tmp_path))).cameras("test")
    seen, depth = scene.cameras.project(torch.zeros(1, 3))
    torch.testing.assert_close(seen[:, 0], torch.tensor([[4.0, 3.0]] * 2), atol=1e-4, rtol=0)
    assert bool((depth > 4).all())


def test_half_size_is_the_rounded_mean_of_straight_rgba(tmp_path):
    scene = data.read_scene(Source(made.blender(tmp_path), downscale=2), "train")
    whole = made.image(2, (8, 6), 4).astype(float)
    blocks = np.stack([whole[0::2, 0::2], whole[1::2, 0::2], whole[0::2, 1::2], whole[1::2, 1::2]])
    expected = np.floor(blocks.mean(0) + 0.5)
    assert np.array_equal(scene.images.image(2, (4, 3)).numpy(), expected)
    assert scene.cameras.focal[0].tolist() == pytest.approx([2 / math.tan(0.4)] * 2)


def test_sizes_that_the_factor_does_not_divide(tmp_path):
    scene = data.read_scene(Source(made.blender(tmp_path), downscale=3), "train")
    assert scene.size(0) == (3, 2)
    # The angles of view stay as they are, in both directions.
    assert float(scene.cameras.focal[0, 0]) == pytest.approx(3 / 8 * 4 / math.tan(0.4))
    assert float(scene.cameras.focal[0, 1]) == pytest.approx(2 / 6 * 4 / math.tan(0.4))


@pytest.mark.parametrize(("asked", "got"), [("auto", "white"), ("black", "black"), ("random", "random")])
def test_backgrounds(tmp_path, asked, got):
    scene = data.open_capture(Source(made.blender(tmp_path), background=asked)).cameras("train")
    assert scene.background == got


def test_opaque_images(tmp_path):
    scene = data.read_scene(Source(made.blender(tmp_path, channels=3)), "train")
    assert scene.images.pixels.shape == (3 * 48, 3)
    assert scene.background == "none"
    assert data.open_capture(Source(tmp_path, background="white")).cameras("train").background == "white"


def test_images_of_unequal_size(tmp_path):
    made.blender(tmp_path)
    made.save(tmp_path / "train/r_1.png", made.image(7, (12, 4), 4))
    scene = data.read_scene(Source(tmp_path, downscale=2), "train")
    assert scene.cameras.size.tolist() == [[4, 3], [6, 2], [4, 3]]
    assert scene.images.offsets.tolist() == [0, 12, 24, 36]
    assert scene.ground_truth(1).shape == (2, 6, 3)
    # One angle for all: the focal length follows the width of each.
    assert float(scene.cameras.focal[1, 0]) == pytest.approx(3 / math.tan(0.4))


def test_one_opaque_image_among_those_with_alpha_is_opaque(tmp_path):
    made.blender(tmp_path)
    made.save(tmp_path / "train/r_1.png", made.image(1, (8, 6), 3))
    scene = data.read_scene(Source(tmp_path), "train")
    assert bool((scene.images.image(1, (8, 6))[..., 3] == 255).all())


def test_file_names_with_endings(tmp_path):
    made.blender(tmp_path)
    path = tmp_path / "transforms_train.json"
    made.edit(path, lambda content: [f.update(file_path=f["file_path"] + ".png") for f in content["frames"]])
    assert data.read_scene(Source(tmp_path), "train").names[0] == "train/r_0.png"


@pytest.mark.parametrize(
    ("angle", "message"),
    [
        (None, "camera_angle_x: found None"),
        (0, "camera_angle_x: found 0"),
        (float("inf"), "camera_angle_x: found inf"),
        (40.0, r"camera_angle_x: found 40"),
    ],
)
def test_angles_that_cannot_be(tmp_path, angle, message):
    made.blender(tmp_path)
    made.edit(tmp_path / "transforms_train.json", lambda content: content.update(camera_angle_x=angle))
    with pytest.raises(DataError, match=rf"transforms_train\.json: {message}"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_the_forced_format_misses_its_files(tmp_path):
    made.llff(tmp_path, made.row(3))
    with pytest.raises(DataError, match=r"transforms_train\.json: found missing"):
        data.open_capture(Source(tmp_path, format="blender")).cameras("train")


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
def test_lego():
    source = Source(Path(os.environ["LUMIFIELD_DATA"]) / "nerf_synthetic/lego", downscale=4)
    scene = data.read_scene(source, "train", max_images=8)
    assert [len(data.open_capture(source).cameras(split)) for split in data.open_capture(source).splits] == [
        100,
        100,
        200,
    ]
    assert scene.cameras.focal[0].tolist() == pytest.approx([555.5555 / 4] * 2, rel=1e-5)
    # The model fills the middle of every view and leaves the corners empty.
    for index in range(len(scene)):
        alpha = scene.images.image(index, scene.size(index))[..., 3]
        assert int(alpha[50, 50]) == 255
        assert int(alpha[0, 0]) == 0
