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


def everything(path: Path, **options) -> Source:
    return Source(path, hold_out="none", **options)


def test_a_scene_as_it_is_on_disk(tmp_path):
    scene = data.read_scene(everything(made.transforms(tmp_path)), "train")
    cameras = scene.cameras
    assert cameras.focal[0].tolist() == pytest.approx([9.0, 9.5])
    assert cameras.center[0].tolist() == pytest.approx([4.2, 2.9])
    assert cameras.distortion[0].tolist() == pytest.approx([0.05, 0, 0, 0.001])
    assert np.array_equal(scene.images.image(4, (8, 6)).numpy(), made.image(4, (8, 6), 3))
    assert (scene.background, scene.unbounded) == ("none", True)
    assert scene.box.tolist() == [[-1.0] * 3, [1.0] * 3]
    assert (float(scene.near[0]), float(scene.far[0])) == (pytest.approx(0.05), 100.0)


def test_the_frame_leads_back_to_the_world_of_the_file(tmp_path):
    scene = data.open_capture(everything(made.transforms(tmp_path))).cameras("train")
    world = made.ring(10, target=(5, -3, 2)).float()
    torch.testing.assert_close(scene.frame.poses_to_world(scene.cameras.c2w), world, atol=1e-5, rtol=1e-5)


def test_the_scene_frame_is_centerd_upright_and_of_unit_size(tmp_path):
    scene = data.open_capture(everything(made.transforms(tmp_path))).cameras("train")
    torch.testing.assert_close(scene.frame.to_world(torch.zeros(3)), torch.tensor([5.0, -3.0, 2.0]))
    torch.testing.assert_close(scene.frame.rotation[:, 2], torch.tensor([0.0, 0.0, 1.0]))
    assert float(scene.cameras.positions.norm(dim=-1).max()) == pytest.approx(1)
    assert scene.frame.scale == pytest.approx(math.hypot(4, 1.5))


def test_every_8th_existing_image_is_held_out(tmp_path):
    source = Source(made.transforms(tmp_path, n=12))
    (tmp_path / "images/001.png").unlink()
    assert data.open_capture(source).splits == ("train", "test")
    assert data.open_capture(source).cameras("test").names == ("images/000.png", "images/009.png")
    train = data.open_capture(source).cameras("train")
    assert len(train) == 9
    assert set(train.names).isdisjoint(data.open_capture(source).cameras("test").names)


def test_the_image_nearest_to_the_middle_is_held_out(tmp_path):
    made.transforms(tmp_path)

    def move(content):
        content["frames"][6]["transform_matrix"][0][3] = 5.0
        content["frames"][6]["transform_matrix"][1][3] = -3.0

    made.edit(tmp_path / "transforms.json", move)
    source = Source(tmp_path, hold_out="center")
    assert data.open_capture(source).cameras("test").names == ("images/006.png",)
    assert len(data.open_capture(source).cameras("train")) == 9


def test_nothing_held_out(tmp_path):
    source = everything(made.transforms(tmp_path))
    assert data.open_capture(source).splits == ("train",)
    assert len(data.open_capture(source).cameras("train")) == 10


def test_one_image_cannot_be_held_out(tmp_path):
    made.transforms(tmp_path, n=1)
    with pytest.raises(DataError, match=r"train split: found empty"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_order_in_the_file_does_not_matter(tmp_path):
    before = data.open_capture(Source(made.transforms(tmp_path))).cameras("test").names
    made.edit(tmp_path / "transforms.json", lambda content: content["frames"].reverse())
    assert data.open_capture(Source(tmp_path)).cameras("test").names == before


def test_intrinsics_of_single_frames_win(tmp_path):
    made.transforms(tmp_path)
    made.save(tmp_path / "images/002.png", made.image(2, (10, 4), 3))
    own = {"fl_x": 11.0, "fl_y": 12.0, "cx": 5.5, "cy": 1.5, "w": 10, "h": 4, "k1": 0.0}
    made.edit(tmp_path / "transforms.json", lambda content: content["frames"][2].update(own))
    cameras = data.open_capture(everything(tmp_path, downscale=2)).cameras("train").cameras
    assert cameras.size[1:4].tolist() == [[4, 3], [5, 2], [4, 3]]
    assert cameras.focal[2].tolist() == pytest.approx([5.5, 6.0])
    assert cameras.center[2].tolist() == pytest.approx([2.75, 0.75])
    assert cameras.distortion[2].tolist() == pytest.approx([0, 0, 0, 0.001])
    assert cameras.focal[1].tolist() == pytest.approx([4.5, 4.75])


def test_an_angle_of_view_alone(tmp_path):
    made.transforms(tmp_path, camera_angle_x=0.9)

    def bare(content):
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "p2"):
            content.pop(key)

    made.edit(tmp_path / "transforms.json", bare)
    cameras = data.open_capture(everything(tmp_path)).cameras("train").cameras
    assert cameras.focal[0].tolist() == pytest.approx([4 / math.tan(0.45)] * 2)
    assert cameras.center[0].tolist() == [4, 3]
    made.edit(tmp_path / "transforms.json", lambda content: content.pop("camera_angle_x"))
    with pytest.raises(DataError, match=r"fl_x of images/000\.png: found missing"):
        data.open_capture(everything(tmp_path)).cameras("train")


def test_applied_transform_and_scale_are_undone(tmp_path):
    """The same capture as nerfstudio would store it: world points turned, moved and scaled into the file."""
    made.transforms(tmp_path / "plain")
    made.transforms(tmp_path / "stored")
    turn = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]], dtype=torch.float64)
    move, scale = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64), 0.25

    def store(content):
        content["applied_transform"] = torch.cat([turn, move[:, None]], 1).tolist()
        content["applied_scale"] = scale
        for frame in content["frames"]:
            pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
            position = scale * (turn @ pose[:3, 3] + move)
            frame["transform_matrix"] = [*torch.cat([turn @ pose[:3, :3], position[:, None]], 1).tolist(), [0, 0, 0, 1]]

    made.edit(tmp_path / "stored/transforms.json", store)
    plain, count_video_frames = (
        data.open_capture(everything(tmp_path / name)).cameras("train") for name in ("plain", "stored")
    )
    worlds = [scene.frame.poses_to_world(scene.cameras.c2w) for scene in (plain, count_video_frames)]
    torch.testing.assert_close(*worlds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.cameras.c2w, count_video_frames.cameras.c2w, atol=1e-5, rtol=1e-5)


def test_masks(tmp_path):
    made.transforms(tmp_path)
    mask = np.full((6, 8), 255, dtype=np.uint8)
    mask[:3] = 0
    made.save(tmp_path / "masks/1.png", mask)
    made.edit(tmp_path / "transforms.json", lambda content: content["frames"][1].update(mask_path="masks/1.png"))
    scene = data.read_scene(everything(tmp_path), "train")
    assert scene.valid_mask(1).tolist() == (mask > 0).tolist()
    assert bool(scene.valid_mask(0).all())


def test_blurred_photographs_are_left_out_of_the_training_alone(tmp_path, caplog):
    caplog.set_level("INFO")
    made.transforms(tmp_path, n=17)
    sharpness = [1.0, 12, 30, 28, 20, 9, 30, 25, 2, 15, 16, 15, 14, 15, 31, 22, 3]

    def blur(content):
        for frame, value in zip(content["frames"], sharpness, strict=True):
            frame["sharpness"] = value

    made.edit(tmp_path / "transforms.json", blur)
    trained = [row for row in range(17) if row % 8]
    expected = []
    for place, row in enumerate(trained):
        about = [sharpness[other] for at, other in enumerate(trained) if abs(at - place) <= 3]
        if sharpness[row] >= 0.8 * sum(about) / len(about):
            expected.append(f"images/{row:03d}.png")
    whole, sharp = (data.open_capture(Source(tmp_path, min_sharpness=least)).cameras("train") for least in (0.0, 0.8))
    assert (len(whole), list(sharp.names)) == (14, expected)
    assert 8 < len(expected) < 13
    assert f"{14 - len(expected)} of 14 training images are blurred and omitted" in caplog.text
    assert torch.equal(whole.frame.translation, sharp.frame.translation)
    held_out = data.open_capture(Source(tmp_path, min_sharpness=0.8)).cameras("test").names
    assert held_out == ("images/000.png", "images/008.png", "images/016.png")


def test_what_states_no_sharpness_cannot_be_sorted_by_it(tmp_path):
    made.transforms(tmp_path)
    made.edit(tmp_path / "transforms.json", lambda content: content["frames"][3].pop("sharpness"))
    found = r"sharpness of images/003\.png: found None"
    with pytest.raises(DataError, match=found):
        data.open_capture(Source(tmp_path, min_sharpness=0.5)).cameras("train")
    assert len(data.open_capture(Source(tmp_path)).cameras("train")) == 8


def test_lists_of_file_names_are_the_splits(tmp_path):
    names = [f"images/{i:03d}.png" for i in range(10)]
    made.transforms(tmp_path, train_filenames=names[:6], val_filenames=names[6:8], test_filenames=names[8:])
    assert data.open_capture(Source(tmp_path)).splits == ("train", "val", "test")
    assert data.open_capture(Source(tmp_path)).cameras("val").names == tuple(names[6:8])
    with pytest.raises(DataError, match=r"transforms\.json: hold_out: found 'none'"):
        data.open_capture(everything(tmp_path))
    made.edit(tmp_path / "transforms.json", lambda content: content.update(val_filenames=["other.png"]))
    with pytest.raises(DataError, match="val_filenames: found empty"):
        data.open_capture(Source(tmp_path)).cameras("val")


def test_one_file_a_split(tmp_path):
    made.blender(tmp_path)
    for split in ("train", "val", "test"):
        made.edit(tmp_path / f"transforms_{split}.json", lambda content: content.update(fl_x=9.0))
    source = Source(tmp_path)
    assert data.detect_format(tmp_path) == "transforms"
    assert data.open_capture(source).splits == ("train", "val", "test")
    train, test = data.open_capture(source).cameras("train"), data.open_capture(source).cameras("test")
    assert (len(train), len(test)) == (3, 2)
    # Both splits share the frame that follows from the training poses.
    assert torch.equal(train.frame.rotation, test.frame.rotation)
    assert train.frame.scale == test.frame.scale
    assert (train.background, train.unbounded) == ("white", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fl_x": 0}, r"fl_x of images/000\.png: found 0"),
        ({"fl_y": float("nan")}, r"fl_y of images/000\.png: found nan"),
        ({"fl_x": "9"}, r"fl_x of images/000\.png: found '9'"),
        ({"w": 16}, r"w of images/000\.png: found 16"),
        ({"h": 12}, r"h of images/000\.png: found 12"),
        ({"cx": None}, r"cx of images/000\.png: found None"),
        ({"camera_model": "OPENCV_FISHEYE"}, "camera_model .*: found OPENCV_FISHEYE"),
        ({"is_fisheye": True}, "camera_model .*: found fisheye"),
        ({"k3": 0.1}, r"k3 of images/000\.png: found 0\.1"),
        ({"applied_scale": 0}, "applied_scale: found 0"),
        ({"applied_transform": [[1, 0, 0]]}, r"applied_transform: found shape \(1, 3\)"),
    ],
)
def test_values_that_cannot_be(tmp_path, change, message):
    made.transforms(tmp_path, **change)
    with pytest.raises(DataError, match=rf"transforms\.json: {message}"):
        data.open_capture(everything(tmp_path)).cameras("train")


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
def test_fox():
    source = Source(Path(os.environ["LUMIFIELD_DATA"]) / "fox", downscale=4)
    train, test = data.open_capture(source).cameras("train"), data.open_capture(source).cameras("test")
    assert (len(train), len(test)) == (43, 7)
    assert train.size(0) == (135, 240)
    assert train.cameras.focal[0].tolist() == pytest.approx([687.76 / 4, 687.245 / 4])
    assert train.unbounded
    # What the cameras look at lies in the image of each.
    seen, depth = train.cameras.project(torch.zeros(1, 3))
    assert bool((depth > 0).all())
    assert bool(((seen[:, 0] > 0) & (seen[:, 0] < train.cameras.size)).all())
