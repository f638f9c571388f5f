import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.data.pose_normalization import inward_near
from lumifield.errors import DataError


def table(root: Path, change) -> None:
    """Rewrites `poses_bounds.npy` after `change(array)`, which may return another array."""
    rows = np.load(root / "poses_bounds.npy")
    changed = change(rows)
    np.save(root / "poses_bounds.npy", rows if changed is None else changed)


def put(row: int | slice, column: int | list[int], value: float | list[float]):
    def change(rows):
        rows[row, column] = value

    return change


def test_forward_facing(tmp_path):
    scene = data.read_scene(Source(made.llff(tmp_path, made.row(9))), "train")
    assert scene.names[0] == "001.png"
    assert len(scene) == 7
    assert np.array_equal(scene.images.image(0, (16, 12)).numpy(), made.image(1, (16, 12), 3))
    assert (scene.near.tolist(), scene.far.tolist()) == ([0.0] * 7, [1.0] * 7)
    assert (scene.unbounded, scene.background) == (False, "none")
    assert scene.ndc.focal == pytest.approx((14.0, 14.0))
    assert (scene.ndc.size, scene.ndc.plane) == ((16, 12), 1.0)
    assert data.open_capture(Source(tmp_path)).splits == ("train", "test")


def test_the_frame_leads_back_to_the_world_of_the_file(tmp_path):
    poses = made.row(9)
    source = Source(made.llff(tmp_path, poses), hold_out="none")
    for layout in ("forward", "inward"):
        scene = data.open_capture(Source(tmp_path, hold_out="none", layout=layout)).cameras("train")
        world = scene.frame.poses_to_world(scene.cameras.c2w)
        torch.testing.assert_close(world, poses.float(), atol=1e-4, rtol=1e-4)
    assert data.open_capture(source).cameras("train").frame.scale == pytest.approx(0.75 * 2.0)


def test_the_average_camera_is_the_origin_and_the_nearest_depth_is_four_thirds(tmp_path):
    scene = data.open_capture(Source(made.llff(tmp_path, made.row(9)), hold_out="none")).cameras("train")
    torch.testing.assert_close(scene.cameras.positions.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scene.cameras.forward.mean(0), torch.tensor([0.0, 0.0, 1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(scene.cameras.c2w[:, :, 1].mean(0), torch.tensor([0.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    assert 2.0 / scene.frame.scale == pytest.approx(4 / 3)


def test_all_rays_of_the_training_images_stay_in_the_box(tmp_path):
    scene = data.open_capture(Source(made.llff(tmp_path, made.row(9)))).cameras("train")
    lower, upper = scene.box
    for index in range(len(scene)):
        rays = scene.rays(index)
        for t in (0.0, 0.5, 1.0):
            points = rays.origins + t * rays.directions
            assert bool(((points >= lower) & (points <= upper)).all())
    assert scene.box[:, 2].tolist() == pytest.approx([-1.02, 1.02])
    assert torch.equal(scene.box, data.open_capture(Source(tmp_path)).cameras("test").box)


def test_inward_facing(tmp_path):
    scene = data.open_capture(Source(made.llff(tmp_path, made.ring(9, target=(3, 1, -2))), hold_out="none")).cameras(
        "train"
    )
    assert (scene.ndc, scene.unbounded, scene.background) == (None, True, "none")
    torch.testing.assert_close(scene.frame.to_world(torch.zeros(3)), torch.tensor([3.0, 1.0, -2.0]))
    torch.testing.assert_close(scene.frame.rotation[:, 2], torch.tensor([0.0, 0.0, 1.0]))
    assert scene.frame.scale == pytest.approx(math.hypot(4, 1.5))
    stated = np.load(tmp_path / "poses_bounds.npy")[:, 15]
    assert (2 * scene.frame.scale * scene.near).tolist() == pytest.approx([float(np.median(stated))] * 9)
    assert scene.far.tolist() == [100.0] * 9


def test_each_photograph_of_an_inward_facing_capture_has_a_near_of_its_own(tmp_path):
    """Hold-outs and training have those of the whole capture."""
    poses = made.ring(20, target=(3, 1, -2))
    folder = made.llff(tmp_path, poses)
    table = np.load(folder / "poses_bounds.npy")
    table[:, 15] = np.linspace(1.0, 2.5, 20)
    np.save(folder / "poses_bounds.npy", table)
    whole = inward_near(poses, torch.from_numpy(table[:, 15]))
    assert len(set(whole.tolist())) > 5
    for split, rows in (("train", [row for row in range(20) if row % 8]), ("test", [0, 8, 16])):
        scene = data.open_capture(Source(folder)).cameras(split)
        assert (scene.frame.scale * scene.near).tolist() == pytest.approx(whole[rows].tolist())


def test_the_layout_can_be_forced(tmp_path):
    made.llff(tmp_path / "row", made.row(9))
    assert data.open_capture(Source(tmp_path / "row", layout="inward")).cameras("train").unbounded
    made.llff(tmp_path / "ring", made.ring(9))
    with pytest.raises(DataError, match=r"layout: found forward with cameras that face sideways or back"):
        data.open_capture(Source(tmp_path / "ring", layout="forward")).cameras("train")


@pytest.mark.parametrize(
    ("folders", "downscale", "read_from", "size"),
    [
        (["images"], 1, "images", (48, 32)),
        (["images"], 4, "images", (12, 8)),
        (["images", "images_4"], 4, "images_4", (12, 8)),
        (["images", "images_4"], 2, "images", (24, 16)),
        (["images_4", "images_8"], 8, "images_8", (6, 4)),
        (["images_2", "images_4"], 8, "images_4", (6, 4)),
        (["images_2", "images_4"], 1, "images_2", (24, 16)),
        (["images_4"], 6, "images_4", (8, 5)),
    ],
)
def test_folders_by_downscale(tmp_path, folders, downscale, read_from, size):
    made.llff(tmp_path, made.row(9), size=(48, 32), focal=40.0, folders=folders)
    for folder in folders:
        if folder != read_from:
            for path in (tmp_path / folder).iterdir():
                path.write_bytes(b"")
    scene = data.read_scene(Source(tmp_path, downscale=downscale), "train")
    assert scene.size(0) == size
    assert scene.cameras.focal[0].tolist() == pytest.approx([40 * size[0] / 48, 40 * size[1] / 32])
    assert scene.ndc.size == size
    assert scene.ndc.focal == pytest.approx((40 * size[0] / 48, 40 * size[1] / 32))


def test_no_folder_is_fine_enough(tmp_path):
    made.llff(tmp_path, made.row(9), folders=["images_4"])
    with pytest.raises(DataError, match="downscale: found 2"):
        data.open_capture(Source(tmp_path, downscale=2)).cameras("train")


def test_no_images(tmp_path):
    made.llff(tmp_path, made.row(9), folders=[])
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="images: found missing or empty"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_every_row_has_its_own_size_and_focal_length(tmp_path):
    made.llff(tmp_path, made.row(9))
    made.save(tmp_path / "images/003.png", made.image(3, (20, 10), 3))
    table(tmp_path, put(3, [4, 9, 14], [10, 20, 17.5]))
    cameras = data.open_capture(Source(tmp_path, hold_out="none", downscale=2)).cameras("train").cameras
    assert cameras.size[2:5].tolist() == [[8, 6], [10, 5], [8, 6]]
    assert cameras.focal[2:5, 0].tolist() == pytest.approx([7, 8.75, 7])
    assert cameras.center[3].tolist() == [5, 2.5]


def test_images_of_another_size_than_stated(tmp_path):
    made.llff(tmp_path, made.row(9))
    table(tmp_path, put(slice(None), [4, 9], [16, 12]))
    expected = r"001\.png: image size: found 16x12"
    with pytest.raises(DataError, match=expected):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_another_number_of_images_than_poses(tmp_path):
    made.llff(tmp_path, made.row(9))
    (tmp_path / "images/004.png").unlink()
    with pytest.raises(DataError, match=r"images: number of images: found 8"):
        data.open_capture(Source(tmp_path)).cameras("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[:, :16],
            r"array: found of shape \(9, 16\)",
        ),
        (lambda rows: rows[0], r"array: found of shape \(17,\)"),
        (lambda rows: rows[:0], r"array: found of shape \(0, 17\)"),
        (lambda rows: rows.astype(str), r"array: found of shape \(9, 17\)"),
        (put(2, 0, np.nan), r"pose in row 2: found NaN or infinity"),
        (put(2, 3, np.inf), r"pose in row 2: found NaN or infinity"),
        (put(2, 0, 3.0), r"pose in row 2: found columns that are not orthonormal and right-handed"),
        (put(5, 14, 0.0), r"focal length in row 5: found 0\.0"),
        (put(5, 14, np.nan), "focal length in row 5: found nan"),
        (put(1, 4, -1.0), r"height in row 1: found -1\.0"),
        (put(1, 9, 0.0), r"width in row 1: found 0\.0"),
        (put(4, 15, -0.5), r"bounds in row 4: found -0\.5 and 19\.6"),
        (put(4, 16, 1.0), r"bounds in row 4: found 2\.4 and 1"),
        (put(4, 15, np.nan), r"bounds in row 4: found nan and 19\.6"),
    ],
)
def test_tables_that_cannot_be(tmp_path, change, message):
    made.llff(tmp_path, made.row(9))
    table(tmp_path, change)
    with pytest.raises(DataError, match=rf"poses_bounds\.npy: {message}"):
        data.open_capture(Source(tmp_path)).cameras("train")


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01"])
def test_files_that_are_no_arrays(tmp_path, content):
    (tmp_path / "poses_bounds.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"poses_bounds\.npy: content: found no array .*"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "poses_bounds.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(
        DataError, match=r"content: found no array \(Object arrays cannot be loaded when allow_pickle=False\)"
    ):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_the_forced_format_misses_its_file(tmp_path):
    made.blender(tmp_path)
    with pytest.raises(DataError, match=r"poses_bounds\.npy: file: found missing"):
        data.open_capture(Source(tmp_path, format="llff")).cameras("train")


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
class TestReal:
    root = Path(os.environ.get("LUMIFIELD_DATA", ""))

    def test_fern(self):
        source = Source(self.root / "nerf_llff_data/fern", downscale=8)
        train, test = data.open_capture(source).cameras("train"), data.open_capture(source).cameras("test")
        assert (len(train), len(test)) == (17, 3)
        assert train.ndc.size == train.size(0) == (504, 378)
        assert test.names == ("image000.png", "image008.png", "image016.png")
        assert train.cameras.focal[0].tolist() == pytest.approx([3260.526 / 8] * 2, rel=1e-5)
        assert 16.98529618 / train.frame.scale == pytest.approx(4 / 3)

    def test_fern_without_full_size_images(self):
        assert data.open_capture(Source(self.root / "nerf_llff_data/fern")).cameras("train").size(0) == (1008, 756)

    def test_bird(self):
        scene = data.open_capture(Source(self.root / "bird", downscale=8)).cameras("train")
        assert len(scene) == 161
        assert (scene.ndc, scene.unbounded) == (None, True)
        seen, depth = scene.cameras.project(torch.zeros(1, 3))
        assert bool((depth > 0).all())
        assert bool(((seen[:, 0] > 0) & (seen[:, 0] < scene.cameras.size)).all())
