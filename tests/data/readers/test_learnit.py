from pathlib import Path

import numpy as np
import pytest
import torch

import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.data.scene_collection import list_tasks
from lumifield.errors import DataError

FOCAL, CENTER = (9.0, 9.5), (4.1, 2.9)


def landmark(root: Path, n: int = 28) -> Path:
    """Images in learnit's layout, all with one lens; noise as images."""
    poses = made.ring(n, target=(40.0, -20.0, 10.0), radius=30.0)
    for index in range(n):
        made.save(root / f"images/{index:02d}.jpg", made.image(index, (8, 6), 3))
    np.save(root / "c2w_mats.npy", np.array([made.matrix(pose) for pose in poses]))
    matrix = np.diag([1.0, -1.0, -1.0]) @ np.linalg.inv([[FOCAL[0], 0, CENTER[0]], [0, FOCAL[1], CENTER[1]], [0, 0, 1]])
    np.save(root / "kinv_mats.npy", np.repeat(matrix[None], n, 0))
    np.save(root / "bds.npy", np.stack([20 + np.arange(n), 60 + np.arange(n)], 1).astype(float))
    return root


def test_splits_by_position(tmp_path):
    source = Source(landmark(tmp_path))
    assert data.detect_format(tmp_path) == "learnit"
    assert data.open_capture(source).splits == ("train", "val", "test")
    assert data.open_capture(source).cameras("test").names == tuple(f"{n:02d}.jpg" for n in range(20))
    assert data.open_capture(source).cameras("val").names == tuple(f"{n:02d}.jpg" for n in range(20, 25))
    assert data.open_capture(source).cameras("train").names == ("25.jpg", "26.jpg", "27.jpg")
    assert len(list_tasks(source, "train")) == 3


def test_poses_and_bounds_are_a_twentieth(tmp_path):
    scene = data.open_capture(Source(landmark(tmp_path))).cameras("train")
    poses = made.ring(28, target=(40.0, -20.0, 10.0), radius=30.0)[25:].float()
    torch.testing.assert_close(scene.cameras.positions, poses[:, :, 3] / 20)
    torch.testing.assert_close(scene.frame.poses_to_world(scene.cameras.c2w), poses)
    torch.testing.assert_close(scene.near, torch.tensor([45.0, 46.0, 47.0]) * 0.9 * 0.05)
    torch.testing.assert_close(scene.far, torch.tensor([85.0, 86.0, 87.0]) * 1.2 * 0.05)
    assert scene.unbounded


def test_rays_are_those_of_the_inverse_intrinsics(tmp_path):
    scene = data.open_capture(Source(landmark(tmp_path), bounds="depth")).cameras("val")
    matrices, inverses = (np.load(tmp_path / f"{name}.npy")[20:25] for name in ("c2w_mats", "kinv_mats"))
    for index in range(5):
        rays = scene.rays(index)
        pixel = np.array([[x + 0.5, y + 0.5, 1] for y in range(6) for x in range(8)])
        direction = pixel @ inverses[index].T @ matrices[index, :3, :3].T
        length = np.linalg.norm(direction, axis=-1, keepdims=True)
        torch.testing.assert_close(rays.directions, torch.from_numpy(direction / length).float(), atol=1e-5, rtol=0)
        # Bounds that are depths: the far end lies at that depth along the axis.
        torch.testing.assert_close(rays.far, torch.from_numpy(length[:, 0]).float() * scene.far[index])


def test_the_region_of_interest_is_what_the_photographs_look_at(tmp_path):
    box = data.open_capture(Source(landmark(tmp_path))).cameras("train").box
    torch.testing.assert_close(box.mean(0), torch.tensor([2.0, -1.0, 0.5]), atol=0.8, rtol=0)
    assert 0.5 < float((box[1] - box[0])[0]) < 4


@pytest.mark.parametrize("size", [0.02, 500.0])
def test_a_world_of_any_size_is_seen_at_a_size_that_networks_can_see(tmp_path, size):
    """Structure from motion knows no size: a twentieth of some worlds is a speck."""
    landmark(tmp_path)
    matrices = np.load(tmp_path / "c2w_mats.npy")
    matrices[:, :3, 3] *= size
    np.save(tmp_path / "c2w_mats.npy", matrices)
    np.save(tmp_path / "bds.npy", np.load(tmp_path / "bds.npy") * size)
    scene = data.open_capture(Source(tmp_path)).cameras("train")
    assert float(scene.box[1, 0] - scene.box[0, 0]) == pytest.approx(2, rel=1e-3)
    torch.testing.assert_close(
        scene.frame.poses_to_world(scene.cameras.c2w)[..., 3], torch.from_numpy(matrices[25:, :3, 3]).float()
    )
    torch.testing.assert_close(scene.near * scene.frame.scale, torch.tensor([45.0, 46.0, 47.0]) * 0.9 * size)
    rays, box = scene.rays(0), scene.box
    middle = rays.origins + rays.directions * (rays.near * rays.far).sqrt()[:, None]
    assert bool(((middle >= box[0]) & (middle <= box[1])).all(-1).any())


def test_a_list_of_splits_goes_before_positions(tmp_path):
    (landmark(tmp_path) / "place.tsv").write_text("filename\tid\tsplit\n01.jpg\t1\ttrain\n07.jpg\t2\ttest\n")
    assert data.open_capture(Source(tmp_path)).splits == ("train", "test")
    assert data.open_capture(Source(tmp_path)).cameras("test").names == ("07.jpg",)
    (tmp_path / "place.tsv").write_text("filename\tid\tsplit\nx.jpg\t1\ttrain\n")
    with pytest.raises(DataError, match=r"place\.tsv: image x\.jpg: found missing"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_few_photographs(tmp_path):
    landmark(tmp_path, 10)
    message = r"number of images: found 10"
    with pytest.raises(DataError, match=message):
        data.open_capture(Source(tmp_path)).cameras("train")
    assert data.open_capture(Source(tmp_path, hold_out="every-8th")).cameras("test").names == ("00.jpg", "08.jpg")


def turned(array):
    return array[:, :, :2]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("c2w_mats", turned, r"array: found of shape \(28, 4, 2\)"),
        ("kinv_mats", turned, r"array: found of shape \(28, 3, 2\)"),
        ("bds", lambda a: a[:, 0], r"array: found of shape \(28,\)"),
        (
            "bds",
            lambda a: a[:27],
            r"number of rows: found 27",
        ),
        ("bds", lambda a: a[:, ::-1], r"bounds in row 0: found 54 and 24"),
        ("c2w_mats", lambda a: 2 * a, r"pose of 00\.jpg: found columns that are not orthonormal and right-handed"),
        (
            "kinv_mats",
            lambda a: -a,
            r"matrix of 00\.jpg: found of another form",
        ),
        ("c2w_mats", lambda a: a.astype(str), r"array: found of shape \(28, 4, 4\)"),
    ],
)
def test_arrays_that_cannot_be(tmp_path, name, change, message):
    path = landmark(tmp_path) / f"{name}.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(DataError, match=rf"{name}\.npy: {message}"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_files_that_are_missing(tmp_path):
    (landmark(tmp_path) / "bds.npy").unlink()
    with pytest.raises(DataError, match=r"bds\.npy: file: found missing"):
        data.open_capture(Source(tmp_path)).cameras("train")
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"images: folder: found missing or empty"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_objects_in_an_array_are_refused(tmp_path):
    np.save(landmark(tmp_path) / "bds.npy", np.array([{}] * 28), allow_pickle=True)
    with pytest.raises(DataError, match=r"bds\.npy: content: found no array \(.*pickle.*\)"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_rows_that_seem_shifted_are_reported(tmp_path, caplog):
    made.save(landmark(tmp_path) / "images/26.jpg", made.image(26, (6, 8), 3))
    data.open_capture(Source(tmp_path)).cameras("train")
    assert "1 of 3 principal points lie far from the middle of the image (first: 26.jpg)" in caplog.text
