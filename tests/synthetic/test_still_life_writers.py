"""Still life in each format, read back with only PIL, NumPy and json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumifield.synthetic import StillLife, camera_placement, still_life, synthesize_data
from lumifield.synthetic.scene_description import SyntheticScene, pack_scene
from lumifield.synthetic.scene_mesh import query_item
from refusals import refuses

SMALL = StillLife(image_width=32, num_train=3, num_val=1, num_test=2, samples_per_pixel=2)
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def blender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "blender"
    synthesize_data(replace(SMALL, ground_truth_train=True), out)
    return out


@pytest.fixture(scope="module")
def llff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "llff"
    synthesize_data(replace(SMALL, format="llff", num_train=9, num_val=1, num_test=1), out)
    return out


@pytest.fixture(scope="module")
def multicam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "multicam"
    synthesize_data(replace(SMALL, format="multicam"), out)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unproject_depth(ground_truth: Path, c2w: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Surface points at the pixel centers, unprojected by depth file and 4x4 OpenGL matrix, and their item numbers."""
    depth, item = np.load(f"{ground_truth}_depth.npy"), np.asarray(Image.open(f"{ground_truth}_mask.png"))
    height, width = depth.shape
    row, column = np.nonzero(item)
    local = np.stack([column + 0.5 - width / 2, height / 2 - row - 0.5, np.full(row.shape, -focal)], 1)
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    return local @ c2w[:3, :3].T * depth[row, column, None] + c2w[:3, 3], item[row, column]


def assert_on_items(points: np.ndarray, items: np.ndarray, scene: SyntheticScene) -> None:
    for number in np.unique(items):
        item = scene.items[number - 1]
        local = np.ascontiguousarray((points[items == number] - item.center) @ item.rotation_matrix())
        assert np.abs(query_item(pack_scene(SyntheticScene((item,))).items, local)[0]).max() < 3e-6


def blender_frames(folder: Path) -> list[tuple[str, np.ndarray, float]]:
    frames = []
    for split in ("train", "val", "test"):
        content = json.loads((folder / f"transforms_{split}.json").read_text())
        focal = 16 / np.tan(content["camera_angle_x"] / 2)
        frames += [(f["file_path"], np.array(f["transform_matrix"]), focal) for f in content["frames"]]
    return frames


def test_blender_frames_hold_the_poses_of_the_views(blender: Path):
    frames = blender_frames(blender)
    assert [name for name, _, _ in frames] == [
        f"./{split}/r_{i}" for split, n in (("train", 3), ("val", 1), ("test", 2)) for i in range(n)
    ]
    expected = [
        *camera_placement.sphere_views(3, 0.0, 32),
        *camera_placement.sphere_views(1, 1.1, 32),
        *camera_placement.orbit_views(2, 0.0, 32),
    ]
    for (_, matrix, focal), view in zip(frames, expected, strict=True):
        assert (matrix @ OPENGL)[:3] == pytest.approx(view.c2w)
        assert matrix[3] == pytest.approx([0, 0, 0, 1])
        assert focal == pytest.approx(view.focal)


def test_blender_ground_truth_lies_on_the_items_between_near_and_far(blender: Path):
    for name, matrix, focal in blender_frames(blender):
        points, items = unproject_depth(blender / "ground_truth" / name, matrix, focal)
        assert len(points) > 150
        assert_on_items(points, items, still_life.make_table_scene())
        assert np.abs(points).max() < 1.2
        depth = np.load(blender / "ground_truth" / f"{name}_depth.npy")
        assert depth.dtype == np.float32
        assert 2 < depth.min() < depth[np.isfinite(depth)].max() < 6


def test_blender_images_are_transparent_in_the_background(blender: Path):
    for name, _, _ in blender_frames(blender):
        pixels = np.asarray(Image.open(blender / f"{name}.png"))
        item = np.asarray(Image.open(blender / "ground_truth" / f"{name}_mask.png"))
        normal = np.load(blender / "ground_truth" / f"{name}_normal.npy")
        assert pixels.shape == (32, 32, 4)
        assert pixels.dtype == np.uint8
        assert (item[pixels[..., 3] == 0] == 0).mean() > 0.97
        assert (item[pixels[..., 3] == 255] > 0).mean() > 0.97
        assert pixels[item > 0][:, :3].mean() > 60
        assert np.linalg.norm(normal[item > 0], axis=-1) == pytest.approx(1, abs=1e-6)


def test_item_names_and_mesh_are_written(blender: Path):
    names = json.loads((blender / "ground_truth" / "items.json").read_text())
    assert names == [item.name for item in still_life.make_table_scene().items]
    assert (blender / "ground_truth" / "mesh.ply").read_bytes().startswith(b"ply")


def test_ground_truth_is_written_for_the_selected_splits(tmp_path: Path, llff: Path):
    synthesize_data(replace(SMALL, ground_truth=False), tmp_path / "none")
    synthesize_data(SMALL, tmp_path / "some")
    assert not (tmp_path / "none" / "ground_truth").exists()
    assert sorted(path.name for path in (tmp_path / "some" / "ground_truth").iterdir()) == [
        "items.json",
        "mesh.ply",
        "test",
        "val",
    ]
    assert {path.name[:3] for path in (llff / "ground_truth" / "images").iterdir()} == {"000", "008"}


def test_equal_settings_give_equal_files_and_another_seed_different_ones(tmp_path: Path):
    plain = replace(SMALL, ground_truth=False)
    for name, settings in (("one", plain), ("two", plain), ("three", replace(plain, seed=-1))):
        synthesize_data(settings, tmp_path / name)
    one, two, three = (files(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one.keys() == three.keys()
    assert all(one[name] != three[name] for name in one)


def test_the_seed_changes_the_noise_of_llff_but_not_its_cameras(tmp_path: Path):
    settings = StillLife(
        image_width=32, num_train=1, num_val=0, num_test=0, samples_per_pixel=1, format="llff", ground_truth=False
    )
    for seed in (0, 1):
        synthesize_data(replace(settings, seed=seed), tmp_path / str(seed))
    first, second = files(tmp_path / "0"), files(tmp_path / "1")
    assert first["poses_bounds.npy"] == second["poses_bounds.npy"]
    assert first["images/000.png"] != second["images/000.png"]


def test_progress_is_reported_per_image(tmp_path: Path):
    reports = []
    synthesize_data(
        replace(SMALL, ground_truth=False), tmp_path / "out", lambda done, total: reports.append((done, total))
    )
    assert reports == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("format_name", ["blender", "multicam", "llff"])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, format_name):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize_data(replace(SMALL, format=format_name), tmp_path / "out", stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path):
    (tmp_path / "mine").touch()
    with refuses("output folder", "a folder that is not empty"):
        synthesize_data(SMALL, tmp_path)


def test_llff_rows_follow_the_format(llff: Path):
    rows = np.load(llff / "poses_bounds.npy")
    images = sorted((llff / "images").iterdir())
    assert rows.shape == (11, 17)
    assert rows.dtype == np.float64
    assert len(images) == 11
    for row, path, view in zip(rows, images, camera_placement.forward_facing_views(11, 32), strict=True):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (32, 24))
        pose = row[:15].reshape(3, 5)
        down, right, back, position, (height, width, focal) = pose.T
        assert (height, width, focal) == pytest.approx((24, 32, view.focal))
        assert np.cross(right, -down) == pytest.approx(back)
        assert position == pytest.approx(view.c2w[:, 3])
        assert -back @ (np.array(camera_placement.GRID_TARGET) - camera_placement.GRID_CENTER) > 0
        assert down[2] < -0.9


def test_llff_ground_truth_lies_on_the_items_within_the_bounds(llff: Path):
    rows = np.load(llff / "poses_bounds.npy")
    for i in (0, 8):
        down, right, back, position, (_, _, focal) = rows[i, :15].reshape(3, 5).T
        c2w = np.stack([right, -down, back, position], 1)
        points, items = unproject_depth(llff / "ground_truth" / "images" / f"{i:03d}", c2w, focal)
        assert len(points) == 32 * 24
        assert_on_items(points, items, still_life.make_room_scene())
        depth = (points - position) @ -back
        assert rows[i, 15:] == pytest.approx(np.percentile(depth, (0.1, 99.9)), rel=1e-5)
        assert 0.5 < depth.min() < depth.max() < 10


def test_multicam_ground_truth_is_that_of_each_scale(multicam: Path):
    metadata = json.loads((multicam / "metadata.json").read_text())
    columns = metadata["test"]
    assert len(columns["file_path"]) == 8
    for row, path in enumerate(columns["file_path"]):
        ground_truth = multicam / "ground_truth" / path.removesuffix(".png")
        points, items = unproject_depth(ground_truth, np.array(columns["cam2world"][row]), columns["focal"][row])
        assert_on_items(points, items, still_life.make_table_scene())
        assert np.load(f"{ground_truth}_depth.npy").shape == (columns["height"][row], columns["width"][row])


def test_the_finest_multicam_scale_is_the_blender_scene(multicam: Path, blender: Path):
    finest = (multicam / "images_val" / "000_d0.png", blender / "val" / "r_0.png")
    assert (np.asarray(Image.open(finest[0])) == np.asarray(Image.open(finest[1]))).all()
