import os
from pathlib import Path

import numpy as np
import pytest
import torch

import made_objects as objects
import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.errors import DataError


def read(root: Path, **options):
    return data.read_scene(Source(root, **options), "train")


def test_cameras_stand_about_the_unit_sphere(tmp_path):
    scene = data.open_capture(Source(objects.dtu(tmp_path))).cameras("train")
    world = objects.around(10)
    rows = [row for row in range(10) if row % 8]
    torch.testing.assert_close(scene.frame.poses_to_world(scene.cameras.c2w), world.c2w[rows].float())
    torch.testing.assert_close(scene.cameras.focal, world.focal[rows])
    torch.testing.assert_close(scene.cameras.center, world.center[rows])
    torch.testing.assert_close(scene.frame.to_world(torch.zeros(3)), torch.tensor(objects.CENTER))
    assert scene.frame.scale == pytest.approx(objects.RADIUS)
    assert scene.names == tuple(f"{row:06d}.png" for row in rows)
    distance = scene.cameras.positions.norm(dim=-1)
    assert torch.equal(scene.near, distance - 1)
    assert torch.equal(scene.far, distance + 1)
    assert scene.box.tolist() == [[-1.0] * 3, [1.0] * 3]
    assert (scene.background, scene.unbounded, scene.has_object_mask) == ("white", False, True)


def test_masks_are_the_alpha_and_scores_count_within(tmp_path):
    scene, world = read(objects.dtu(tmp_path)), objects.around(10)
    expected = objects.ball(world, 3)
    pixels = scene.images.image(2, (24, 18)).numpy()
    assert np.array_equal(pixels[..., :3], made.image(3, (24, 18), 3))
    assert np.array_equal(pixels[..., 3], expected)
    assert np.array_equal(scene.object_mask(2).numpy(), expected == 255)
    assert torch.equal(scene.valid_mask(2), scene.object_mask(2))
    assert 0 < expected.mean() < 255


def test_a_projection_may_have_any_scale_and_sign(tmp_path):
    whole = data.open_capture(Source(objects.dtu(tmp_path))).cameras("train").cameras
    matrix = objects.projection(objects.around(10), 1)
    matrix[:3] *= -2.5
    objects.edited(tmp_path / "cameras_sphere.npz", world_mat_1=matrix)
    again = data.open_capture(Source(tmp_path)).cameras("train").cameras
    torch.testing.assert_close(again.c2w, whole.c2w)
    torch.testing.assert_close(again.center, whole.center)


def test_another_file_of_cameras(tmp_path):
    objects.dtu(tmp_path)
    (tmp_path / "cameras_sphere.npz").rename(tmp_path / "cameras_large.npz")
    large = {f"scale_mat_{row}": objects.sphere(2 * objects.RADIUS) for row in range(10)}
    objects.edited(tmp_path / "cameras_large.npz", **large)
    with pytest.raises(DataError, match=r"cameras_sphere\.npz: file: found missing"):
        read(tmp_path)
    scene = data.open_capture(Source(tmp_path, cameras="cameras_large.npz")).cameras("train")
    assert scene.frame.scale == pytest.approx(2 * objects.RADIUS)
    with pytest.raises(DataError, match=r"cameras: found 'a\.npz'"):
        data.open_capture(Source(made.blender(tmp_path / "blender"), cameras="a.npz")).cameras("train")


def test_published_splits_of_49_views(tmp_path):
    source = Source(objects.dtu(tmp_path, n=50, size=(8, 6)))
    names = {
        split: [int(Path(name).stem) for name in data.open_capture(source).cameras(split).names]
        for split in data.open_capture(source).splits
    }
    assert names["train"] == [1, 9, 17, 25, 33, 41, 47]
    assert names["test"] == [12, 32, 40]
    assert sorted(names["train"] + names["val"] + names["test"]) == list(range(49))
    asked = Source(tmp_path, hold_out="every-8th")
    assert len(data.open_capture(asked).cameras("test")) == 7


def test_splits_of_a_file_go_before_all_others(tmp_path):
    objects.dtu(tmp_path)
    made.write(tmp_path / "splits.json", {"train": ["000003", "000001"], "test": ["000000"]})
    source = Source(tmp_path)
    assert data.open_capture(source).splits == ("train", "test")
    assert data.open_capture(source).cameras("train").names == ("000003.png", "000001.png")
    with pytest.raises(DataError, match="hold_out: found 'center'"):
        data.open_capture(Source(tmp_path, hold_out="center"))
    made.write(tmp_path / "splits.json", {"train": ["000003"], "test": ["9"]})
    with pytest.raises(DataError, match=r"splits\.json: image 9 of test: found missing"):
        data.open_capture(source)
    for content in ({"train": []}, [], {"train": ["000003"], "val": "000001"}):
        made.write(tmp_path / "splits.json", content)
        with pytest.raises(DataError, match=r"(train|val): found no list of names"):
            data.open_capture(source)


def test_a_sphere_is_computed_where_none_is_named(tmp_path):
    scene = data.open_capture(Source(objects.dtu(tmp_path, size=(96, 72), spheres=False))).cameras("train")
    middle = scene.frame.to_world(torch.zeros(3)) - torch.tensor(objects.CENTER)
    assert float(middle.norm()) < 0.1 * objects.RADIUS
    # The hull of seven views from above is somewhat larger than the ball.
    assert 1.0 < scene.frame.scale / (objects.BALL * objects.RADIUS) < 1.6
    assert torch.equal(scene.frame.rotation, torch.eye(3))


@pytest.mark.parametrize("masks", [True, False])
def test_without_silhouettes_the_photographs_stay_as_they_are(tmp_path, masks):
    source = Source(objects.dtu(tmp_path, masks=masks), object_masks=not masks)
    scene = data.read_scene(source, "train")
    assert scene.images.pixels.shape[-1] == 3
    assert (scene.background, scene.unbounded, scene.has_object_mask) == ("none", True, False)
    assert (scene.near.tolist(), scene.far.tolist()) == ([pytest.approx(0.05)] * 8, [100.0] * 8)
    assert bool(scene.valid_mask(0).all())
    spheres = {f"scale_mat_{row}": None for row in range(10)}
    objects.edited(tmp_path / "cameras_sphere.npz", **spheres)
    again = data.open_capture(source).cameras("train")
    torch.testing.assert_close(again.cameras.positions.norm(dim=-1), torch.full((8,), 1 / 0.7))


def test_silhouettes_are_for_objects(tmp_path):
    with pytest.raises(DataError, match="object_masks: found off"):
        data.open_capture(Source(made.blender(tmp_path), object_masks=False)).cameras("train")


def test_a_missing_matrix(tmp_path):
    objects.dtu(tmp_path)
    objects.edited(tmp_path / "cameras_sphere.npz", scale_mat_3=None)
    with pytest.raises(DataError, match=r"npz: scale_mat_3: found missing"):
        read(tmp_path)
    objects.edited(tmp_path / "cameras_sphere.npz", world_mat_2=None)
    with pytest.raises(DataError, match=r"npz: world_mat_2: found missing"):
        read(tmp_path)


SKEWED = np.array([[30, 2, 12, 0], [0, 30, 9, 0], [0, 0, 1, 4], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"world_mat_1": np.eye(3)}, r"world_mat_1: found of shape \(3, 3\)"),
        ({"world_mat_1": np.full((4, 4), np.nan)}, r"world_mat_1: found of shape \(4, 4\)"),
        ({"world_mat_1": np.zeros((4, 4))}, "world_mat_1: found singular"),
        ({"world_mat_1": SKEWED}, "lens of world_mat_1: found a skew of 2 pixels"),
        ({"scale_mat_1": np.eye(4)}, "scale_mat_1: found another than scale_mat_0"),
    ],
)
def test_matrices_that_say_nothing(tmp_path, changed, message):
    objects.dtu(tmp_path)
    objects.edited(tmp_path / "cameras_sphere.npz", **changed)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("matrix", [np.diag([1.0, 2, 3, 1]), np.diag([-1.0, -1, -1, 1]), np.diag([0.0, 0, 0, 1])])
def test_a_sphere_that_is_none(tmp_path, matrix):
    objects.dtu(tmp_path)
    objects.edited(tmp_path / "cameras_sphere.npz", **{f"scale_mat_{row}": matrix for row in range(10)})
    with pytest.raises(DataError, match="scale_mat_0: found no rotation and scale"):
        read(tmp_path)


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    objects.dtu(tmp_path)
    np.savez(tmp_path / "cameras_sphere.npz", world_mat_0=np.array({}, object))
    with pytest.raises(DataError, match=r"cameras_sphere\.npz: content: found no arrays \(Object arrays .*\)"):
        read(tmp_path)
    (tmp_path / "cameras_sphere.npz").write_bytes(b"none")
    with pytest.raises(
        DataError,
        match=r"cameras_sphere\.npz: content: found no arrays",
    ):
        read(tmp_path)


def test_masks_that_do_not_fit_the_photographs(tmp_path):
    objects.dtu(tmp_path)
    made.save(tmp_path / "mask/004.png", np.zeros((9, 12), np.uint8))
    with pytest.raises(DataError, match=r"004\.png: mask size: found 12x9"):
        read(tmp_path)
    (tmp_path / "mask/004.png").unlink()
    with pytest.raises(DataError, match="number of masks: found 9"):
        read(tmp_path)
    for image in (tmp_path / "image").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="image: folder: found missing or empty"):
        read(tmp_path)


def test_a_silhouette_outside_the_sphere(tmp_path):
    objects.dtu(tmp_path, masks=False)
    cameras = objects.around(10)
    for row in range(10):
        outside = 255 - objects.ball(cameras, row, 1.01 * objects.RADIUS)
        made.save(tmp_path / f"mask/{row:03d}.png", outside)
    expected = r"001\.png: silhouette within the unit sphere: found 0%"
    with pytest.raises(DataError, match=expected):
        read(tmp_path)


def test_rays_that_miss_the_sphere(tmp_path):
    objects.dtu(tmp_path)
    away = objects.sphere()
    away[:3, 3] += 100
    objects.edited(tmp_path / "cameras_sphere.npz", **{f"scale_mat_{row}": away for row in range(10)})
    expected = r"sphere seen by 000001\.png: found outside the image"
    with pytest.raises(DataError, match=expected):
        read(tmp_path)


def test_silhouettes_without_a_common_volume(tmp_path):
    objects.dtu(tmp_path, spheres=False)
    for row in range(10):
        corner = np.zeros((18, 24), np.uint8)
        corner[(0 if row % 2 else -1), :2] = 255
        made.save(tmp_path / f"mask/{row:03d}.png", corner)
    expected = "common volume of the silhouettes: found empty"
    with pytest.raises(DataError, match=expected):
        read(tmp_path)


def test_silhouettes_of_one_color_are_told(tmp_path, caplog):
    objects.dtu(tmp_path)
    read(tmp_path)
    assert caplog.messages == []
    made.save(tmp_path / "mask/005.png", np.zeros((18, 24), np.uint8))
    read(tmp_path)
    assert caplog.messages == [f"{tmp_path}: 1 of 8 object masks are completely black (first: 000005.png)."]
    caplog.clear()
    objects.edited(tmp_path / "cameras_sphere.npz", **{f"scale_mat_{row}": objects.sphere(8.0) for row in range(10)})
    for row in range(10):
        made.save(tmp_path / f"mask/{row:03d}.png", np.full((18, 24), 255, np.uint8))
    read(tmp_path)
    assert caplog.messages[0].startswith(f"{tmp_path}: all object masks are completely white; with --no-object-masks")


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real images")
def test_scan_65(tmp_path):
    place = Path(os.environ["LUMIFIELD_DATA"]) / "dtu/dtu_scan65"
    scenes = [data.open_capture(Source(place)).cameras(split) for split in ("train", "val", "test")]
    assert [len(scene) for scene in scenes] == [7, 39, 3]
    assert scenes[0].cameras.focal[0].tolist() == pytest.approx([723.1, 720.8], abs=0.1)
    assert scenes[0].cameras.center[0].tolist() == pytest.approx([205.9, 154.9], abs=0.1)
    # Without the matrices the sphere of the hull, which is long as the views are of one side, is about the same place.
    for folder in ("image", "mask"):
        (tmp_path / folder).symlink_to(place / folder)
    with np.load(place / "cameras_sphere.npz") as file:
        named = {name: file[name] for name in file.files if name.startswith("world_mat") and "inv" not in name}
    np.savez(tmp_path / "cameras_sphere.npz", **named)
    hull = data.open_capture(Source(tmp_path)).cameras("train").frame
    apart = (hull.translation - scenes[0].frame.translation).norm() / scenes[0].frame.scale
    assert float(apart) < hull.scale / scenes[0].frame.scale < 2.5
