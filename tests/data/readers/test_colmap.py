import math
import os
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch

import made_reconstructions as sfm
import made_scenes as made
from lumifield import data
from lumifield.data import Source, colmap_model
from lumifield.data.readers import colmap
from lumifield.errors import DataError

EXACT = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")


def cameras(root: Path, split: str = "train", **options):
    return data.open_capture(Source(root, **options)).cameras(split)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("place", ["sparse/0", "sparse", "dense/sparse", "dense/sparse/0"])
def test_poses_are_those_of_the_model(tmp_path, text, place):
    poses = made.ring(9, target=(3, 1, -2))
    sfm.colmap(tmp_path, poses, text=text, place=place)
    assert data.detect_format(tmp_path) == "colmap"
    assert data.open_capture(Source(tmp_path)).splits == ("train", "test")
    for split, rows in (("train", range(1, 8)), ("test", (0, 8))):
        scene = data.read_scene(Source(tmp_path), split)
        assert scene.names == tuple(f"{row:03d}.png" for row in rows)
        world = scene.frame.poses_to_world(scene.cameras.c2w)
        torch.testing.assert_close(world, poses[list(rows)].float(), atol=1e-5, rtol=1e-5)
        assert np.array_equal(scene.images.image(0, sfm.SIZE).numpy(), made.image(rows[0], sfm.SIZE, 3))


def test_poses_are_kept_to_a_millionth(tmp_path):
    poses = made.ring(9, target=(3, 1, -2))
    taken = colmap.load_colmap(sfm.colmap(tmp_path, poses))
    torch.testing.assert_close(taken.c2w, poses, atol=1e-12, rtol=0)


def test_binary_and_text_are_the_same(tmp_path):
    one, two = (sfm.colmap(tmp_path / str(text), made.ring(4), text=text, tracks=3) for text in (False, True))
    binary, text = colmap.load_colmap(one), colmap.load_colmap(two)
    assert binary.names == text.names
    assert all(np.array_equal(a, b) for a, b in zip(binary.seen, text.seen, strict=True))
    assert np.allclose(binary.points, text.points, atol=1e-12)


@pytest.mark.parametrize("model", sfm.PARAMS)
def test_points_appear_where_colmap_projects_them_whatever_the_lens(tmp_path, model):
    """Where an image is resampled, a mark at COLMAP's projection moves to ours."""
    scene = cameras(sfm.colmap(tmp_path, made.ring(9), camera=model), hold_out="none")
    truth = pycolmap.Reconstruction(tmp_path / "sparse/0")
    points = sfm.cloud()[:20] * 0.7
    ours, _ = scene.cameras.project(scene.frame.to_scene(torch.from_numpy(points).float()))
    optics = colmap.load_colmap(tmp_path).calibrations[0].intrinsics(tmp_path, sfm.SIZE)
    assert (optics.undistortion is None) == (model in EXACT)
    for row in (0, 4):
        image = truth.find_image_with_name(f"{row:03d}.png")
        theirs = np.array([image.project_point(point) for point in points])
        found = ours[row].numpy()
        if optics.undistortion is not None:
            found = optics.undistortion.lens.pixels((found - optics.undistortion.center) / optics.undistortion.focal)
        assert np.abs(found - theirs).max() < 2e-4


@pytest.mark.parametrize("model", sorted(set(sfm.PARAMS) - set(EXACT)))
def test_resampled_images_show_every_place_where_it_belongs(tmp_path, model):
    """An image whose colors say their own place (to 1/8 pixel) still does when it has been resampled."""
    sfm.colmap(tmp_path, made.ring(9), camera=model)
    width, height = sfm.SIZE
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    place = np.stack([8 * x - 4, 8 * y - 4, 0 * x], -1)
    for file in (tmp_path / "images").iterdir():
        made.save(file, np.rint(place.clip(0, 255)).astype(np.uint8))
    scene = data.read_scene(Source(tmp_path), "train")
    undistortion = colmap.load_colmap(tmp_path).calibrations[0].intrinsics(tmp_path, sfm.SIZE).undistortion
    shown = scene.images.image(0, scene.size(0)).numpy().astype(float)
    assert scene.size(0) == undistortion.size
    v, u = np.mgrid[: undistortion.size[1], : undistortion.size[0]] + 0.5
    points = np.stack(
        [(u - undistortion.center[0]) / undistortion.focal[0], (v - undistortion.center[1]) / undistortion.focal[1]], -1
    )
    source = undistortion.lens.pixels(points.reshape(-1, 2)).reshape(*v.shape, 2)
    inside = ((source > 1) & (source < np.array(sfm.SIZE) - 1)).all(-1)
    assert inside.mean() > 0.8
    assert np.abs(shown[..., :2] - (8 * source - 4))[inside].max() < 0.8


def test_rays_begin_halfway_to_the_nearest_point_that_is_seen_and_do_not_end(tmp_path):
    points = np.concatenate([np.linspace(-1, 1, 2001)[:, None] * [0, 0, 1.0], [[50.0, 0, 0]] * 2])
    scene = cameras(sfm.colmap(tmp_path, made.ring(3), points=points), hold_out="none")
    distance = np.linalg.norm(points - made.ring(3)[0, :, 3].numpy(), axis=1)
    near = np.percentile(distance, 0.1) / scene.frame.scale
    assert scene.near[0].item() == pytest.approx(0.5 * near, rel=1e-4)
    assert scene.far.tolist() == pytest.approx([100.0] * 3)


def test_the_cube_holds_the_cameras_and_its_middle_is_where_they_look(tmp_path):
    """Whatever the points: most of them may lie on a small thing in the middle, or on walls behind."""
    ring = made.ring(9, target=(3, 1, -2))
    for index, points in enumerate((0.02 * sfm.cloud(200), 30 * sfm.cloud(200))):
        root = sfm.colmap(tmp_path / str(index), ring, points=points + np.array([3, 1, -2]))
        scene = cameras(root, hold_out="none")
        assert scene.cameras.positions.norm(dim=-1).max().item() == pytest.approx(1, abs=1e-5)
        assert scene.frame.translation.tolist() == pytest.approx([3, 1, -2], abs=1e-4)
        assert (scene.unbounded, scene.background) == (True, "none")
        torch.testing.assert_close(scene.frame.rotation[:, 2], torch.tensor([0.0, 0.0, 1.0]), atol=1e-5, rtol=0)


def test_downscale_and_sizes(tmp_path):
    scene = data.read_scene(Source(sfm.colmap(tmp_path, made.ring(9)), downscale=2), "train")
    assert scene.size(0) == (16, 12)
    assert scene.cameras.focal[0].tolist() == pytest.approx([15.0, 15.25])
    assert scene.cameras.center[0].tolist() == pytest.approx([8.1, 5.95])


def test_rays_hit_the_points_that_the_images_show(tmp_path):
    poses = made.ring(5)
    scene = cameras(sfm.colmap(tmp_path, poses, camera="OPENCV"), hold_out="none")
    truth = pycolmap.Reconstruction(tmp_path / "sparse/0")
    point = np.array([0.2, -0.1, 0.3])
    at = torch.tensor(truth.find_image_with_name("002.png").project_point(point)).float()
    towards = scene.cameras.directions(torch.tensor([2]), at[:1], at[1:])[0]
    expected = scene.frame.to_scene(torch.from_numpy(point).float()) - scene.cameras.positions[2]
    assert torch.nn.functional.cosine_similarity(towards, expected, dim=0).item() == pytest.approx(1, abs=1e-6)


def spoil_model(folder: Path) -> None:
    content = bytearray((folder / "cameras.bin").read_bytes())
    content[12] = 99
    (folder / "cameras.bin").write_bytes(content)


def spoil_focal(folder: Path) -> None:
    content = bytearray((folder / "cameras.bin").read_bytes())
    content[-8:] = np.array([math.nan]).tobytes()
    (folder / "cameras.bin").write_bytes(content)


def lose(name: str):
    return lambda folder: (folder / name).unlink()


def cut(name: str, length: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def empty_images(folder: Path) -> None:
    (folder / "images.bin").write_bytes(bytes(8))


def swap_points(folder: Path) -> None:
    (folder / "points3D.bin").write_bytes(bytes(8))


def other_camera(folder: Path) -> None:
    content = bytearray((folder / "cameras.bin").read_bytes())
    content[8] = 5
    (folder / "cameras.bin").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_model, r"cameras\.bin: camera model: found 99"),
        (spoil_focal, r"cameras\.bin: PINHOLE camera: found 4 numbers .*"),
        (lose("images.bin"), r"images\.bin: file: found missing"),
        (lose("points3D.bin"), r"points3D\.bin: file: found missing"),
        (cut("cameras.bin", 20), r"cameras\.bin: file: found cut off at byte 20"),
        (cut("images.bin", 300), r"images\.bin: file: found cut off at byte 300"),
        (cut("images.bin", 77), r"images\.bin: file: found cut off at byte 77"),
        (cut("points3D.bin", 300), r"points3D\.bin: file: found cut off at byte 300"),
        (cut("points3D.bin", 0), r"points3D\.bin: file: found cut off at byte 0"),
        (empty_images, r"images\.bin: list of images: found empty"),
        (swap_points, r"images\.bin: points of 000\.png: found partly missing"),
        (other_camera, r"images\.bin: camera of 000\.png: found 7, missing in cameras\.bin"),
    ],
)
def test_models_that_cannot_be(tmp_path, spoil, message):
    spoil(sfm.colmap(tmp_path, made.ring(9)) / "sparse/0")
    with pytest.raises(DataError, match=message):
        cameras(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cameras", "7 PINHOLE", "7 BARREL", r"cameras\.txt: camera model: found BARREL"),
        ("cameras", "7 PINHOLE 32", "7 PINHOLE wide", r"cameras\.txt: line \d: found incomplete or no numbers"),
        ("cameras", " 11.9", "", r"cameras\.txt: PINHOLE camera: found 3 numbers for 32x24 pixels"),
        ("images", " 7 008.png", "", r"images\.txt: line \d+: found incomplete or no numbers"),
        ("points3D", "1 ", "one ", r"points3D\.txt: line 4: found incomplete or no numbers"),
    ],
)
def test_texts_that_cannot_be(tmp_path, name, old, new, message):
    path = sfm.colmap(tmp_path, made.ring(9), text=True) / f"sparse/0/{name}.txt"
    head, body = (part for part in path.read_text().rsplit("# Number", 1))
    first, rest = body.split("\n", 1)
    assert old in rest
    path.write_text(f"{head}# Number{first}\n{rest.replace(old, new, 1)}")
    with pytest.raises(DataError, match=message):
        cameras(tmp_path)


def test_a_pose_that_is_none(tmp_path):
    path = sfm.colmap(tmp_path, made.ring(1), text=True) / "sparse/0/images.txt"
    lines = path.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.endswith("000.png"))
    lines[row] = "100 0 0 0 0 1 2 3 7 000.png"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"pose of 000\.png: found no rotation and translation"):
        cameras(tmp_path, hold_out="none")


def test_points_that_one_photograph_sees_are_not_counted(tmp_path):
    sfm.colmap(tmp_path / "single", made.ring(9), tracks=1)
    expected = r"longest track of a point: found of length 1"
    with pytest.raises(DataError, match=expected):
        cameras(tmp_path / "single")
    whole = colmap.load_colmap(sfm.colmap(tmp_path / "double", made.ring(9), tracks=2))
    assert len(whole.without_short_tracks().points) == len(whole.points)
    assert all(np.array_equal(a, b) for a, b in zip(whole.without_short_tracks().seen, whole.seen, strict=True))


def test_too_few_points(tmp_path):
    sfm.colmap(tmp_path, made.ring(9), points=sfm.cloud(4))
    with pytest.raises(DataError, match="number of points per image: found 4"):
        cameras(tmp_path)


def test_images_of_another_size(tmp_path):
    made.save(sfm.colmap(tmp_path, made.ring(9)) / "images/001.png", made.image(0, (16, 12), 3))
    with pytest.raises(DataError, match=r"001\.png: image size: found 16x12"):
        cameras(tmp_path)


def test_a_photograph_is_missing(tmp_path):
    (sfm.colmap(tmp_path, made.ring(9)) / "images/001.png").unlink()
    with pytest.raises(DataError, match=r"001\.png: image: found missing"):
        cameras(tmp_path)


def test_panoramas():
    camera = pycolmap.Camera(model="EQUIRECTANGULAR", width=32, height=24, params=[32, 24])
    with pytest.raises(DataError, match=r"a\.jpg: camera model: found EQUIRECTANGULAR"):
        colmap.ColmapCamera(camera).intrinsics(Path("a.jpg"), (32, 24))


def test_no_model(tmp_path):
    (tmp_path / "sparse").mkdir()
    with pytest.raises(DataError, match=r"sparse model: found missing"):
        cameras(tmp_path)


def test_names_with_spaces_and_folders(tmp_path):
    path = sfm.colmap(tmp_path, made.ring(2), text=True) / "sparse/0/images.txt"
    path.write_text(path.read_text().replace("001.png", "a folder/a name.png"))
    made.save(tmp_path / "images/a folder/a name.png", made.image(1, sfm.SIZE, 3))
    assert cameras(tmp_path, hold_out="none").names == ("000.png", "a folder/a name.png")


def test_a_photograph_without_points(tmp_path):
    path = sfm.colmap(tmp_path, made.ring(3), text=True) / "sparse/0/images.txt"
    lines = path.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.endswith("000.png"))
    path.write_text("\n".join([*lines[: row + 1], "", *lines[row + 2 :]]) + "\n")
    shots = colmap_model.load_colmap_model(tmp_path / "sparse/0").shots
    assert [len(shot.points) for shot in shots] == [0, 60, 60]


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
class TestReal:
    root = Path(os.environ.get("LUMIFIELD_DATA", ""))

    @pytest.mark.parametrize(
        ("folder", "train", "test"), [("phototourism/sacre_coeur", 8, 2), ("statue_of_liberty", 105, 16)]
    )
    def test_points_fall_where_they_were_measured(self, folder, train, test):
        source = Source(self.root / folder, format="colmap")
        assert (len(data.open_capture(source).cameras("train")), len(data.open_capture(source).cameras("test"))) == (
            train,
            test,
        )
        scene = data.open_capture(source).cameras("test")
        truth = pycolmap.Reconstruction(self.root / folder / "dense/sparse")
        image = truth.find_image_with_name(scene.names[0])
        seen = [point for point in image.points2D if point.has_point3D()][:200]
        points = np.array([truth.points3D[point.point3D_id].xyz for point in seen])
        ours, _ = scene.cameras[[0]].project(scene.frame.to_scene(torch.from_numpy(points).float()))
        errors = np.linalg.norm(ours[0].numpy() - [point.xy for point in seen], axis=1)
        assert np.median(errors) < 0.6

    def test_bird(self):
        scene = data.open_capture(Source(self.root / "bird", format="colmap")).cameras("train")
        assert len(scene) == 161
        assert scene.cameras.positions.norm(dim=-1).max().item() == pytest.approx(1, abs=1e-5)
        listed = data.open_capture(Source(self.root / "bird", format="llff")).cameras("train")
        torch.testing.assert_close(scene.cameras.positions, listed.cameras.positions, atol=0.02, rtol=0)
        torch.testing.assert_close(scene.near, listed.near, atol=0.02, rtol=0.05)
