"""Scenes written in learnit's layout and as COLMAP models, and read again."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import made_objects as objects
import made_reconstructions as sfm
import made_scenes as made
from commands import called
from lumifield import data
from lumifield.data import Source
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.rays import Rays


def in_world(scene, row: int) -> Rays:
    """The rays of an image in the world of its data."""
    rays, frame = scene.rays(row), scene.frame
    moved = {"origins": frame.to_world(rays.origins), "directions": rays.directions @ frame.rotation.T}
    return Rays(**{**vars(rays), **moved, "near": rays.near * frame.scale, "far": rays.far * frame.scale})


def assert_same_rays(first: Source, second: Source, *, bounds: bool = True) -> None:
    """Splits, order, rays and images are the same."""
    assert sorted(data.open_capture(first).splits) == sorted(data.open_capture(second).splits)
    for split in data.open_capture(first).splits:
        a, b = data.open_capture(first).cameras(split), data.open_capture(second).cameras(split)
        assert len(a) == len(b)
        for row in range(len(a)):
            one, other = in_world(a, row), in_world(b, row)
            for name in ("origins", "directions", *(("near", "far") if bounds else ())):
                torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5)


def test_to_learnit_and_back(tmp_path):
    sfm.colmap(tmp_path / "a", made.ring(9), place="dense/sparse")
    (tmp_path / "a/place.tsv").write_text(
        "filename\tid\tsplit\n" + "".join(f"{n:03d}.png\t1\t{'test' if n in (3, 5) else 'train'}\n" for n in range(9))
    )
    called("synthesize-data", "converted", "--from", tmp_path / "a", "--out", tmp_path / "b")
    called("synthesize-data", "converted", "--format", "colmap", "--from", tmp_path / "b", "--out", tmp_path / "c")
    assert [data.detect_format(tmp_path / name) for name in "abc"] == ["phototourism", "learnit", "phototourism"]
    assert_same_rays(Source(tmp_path / "a"), Source(tmp_path / "b"))
    assert_same_rays(Source(tmp_path / "a"), Source(tmp_path / "c"), bounds=False)
    assert np.load(tmp_path / "b/res_mats.npy").tolist() == [[24, 32]] * 9
    assert data.open_capture(Source(tmp_path / "b")).cameras("test").names == ("00000_003.jpg", "00001_005.jpg")


def test_photographs_that_stay_are_copied(tmp_path):
    sfm.colmap(tmp_path / "a", made.ring(9))
    for number in range(9):
        name = tmp_path / f"a/images/{number:03d}.png"
        with Image.open(name) as png:
            png.save(name.with_suffix(".jpg"))
    model = sfm.model(made.ring(9), sfm.cloud())
    for image in model.images.values():
        image.name = image.name.replace(".png", ".jpg")
    model.write_binary(tmp_path / "a/sparse/0")
    called("synthesize-data", "converted", "--from", tmp_path / "a", "--out", tmp_path / "b")
    copied = {path.read_bytes() for path in (tmp_path / "b/images").iterdir()}
    assert copied == {path.read_bytes() for path in (tmp_path / "a/images").glob("*.jpg")}


def test_distorted_photographs_are_straightened(tmp_path):
    sfm.colmap(tmp_path / "a", made.ring(4), camera="OPENCV")
    for path in (tmp_path / "a/images").iterdir():
        ramp = np.broadcast_to(np.linspace(0, 250, sfm.SIZE[0])[None, :, None], (*sfm.SIZE[::-1], 3))
        made.save(path, ramp.astype(np.uint8))
    called("synthesize-data", "converted", "--from", tmp_path / "a", "--out", tmp_path / "b")
    bent, undistortion = (
        data.read_scene(Source(tmp_path / "a"), "train"),
        data.read_scene(Source(tmp_path / "b"), "train"),
    )
    assert not undistortion.cameras.distortion.any()
    width, height = undistortion.size(0)
    x, y = torch.meshgrid(torch.arange(4, width - 4) + 0.5, torch.arange(4, height - 4) + 0.5, indexing="xy")
    row = torch.zeros(x.shape, dtype=torch.int64)
    # The same direction has the same color, which in the bent image says how far right it is.
    ahead = undistortion.frame.to_world(
        undistortion.cameras.positions[row] + undistortion.cameras.directions(row, x, y)
    )
    place, _ = bent.cameras.project(bent.frame.to_scene(ahead).reshape(-1, 3))
    seen = undistortion.images.image(0, (width, height))[4:-4, 4:-4, 0].reshape(-1).float()
    torch.testing.assert_close(seen, (place[0, :, 0] - 0.5) / (sfm.SIZE[0] - 1) * 250, atol=4, rtol=0)


def test_a_scene_in_device_coordinates_is_refused(tmp_path, refused):
    made.llff(tmp_path / "a", made.row(9))
    said = refused("synthesize-data", "converted", "--from", tmp_path / "a", "--out", tmp_path / "b")
    assert "layout: found forward (normalized device)" in said


@pytest.mark.slow
@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
@pytest.mark.parametrize("scene", ["statue_of_liberty", "phototourism/sacre_coeur"])
def test_real_landmarks(tmp_path, scene):
    real = Source(Path(os.environ["LUMIFIELD_DATA"]) / scene)
    called("synthesize-data", "converted", "--from", real.data, "--out", tmp_path / "b")
    called("synthesize-data", "converted", "--format", "colmap", "--from", tmp_path / "b", "--out", tmp_path / "c")
    assert_same_rays(Source(tmp_path / "b"), Source(tmp_path / "c"), bounds=False)
    if scene == "statue_of_liberty":
        assert_same_rays(real, Source(tmp_path / "b"))


def same_images(first: Source, second: Source) -> bool:
    return all(
        torch.equal(data.read_scene(first, split).images.pixels, data.read_scene(second, split).images.pixels)
        for split in data.open_capture(first).splits
    )


def test_an_object_of_metanlr_in_the_layout_of_dtu(tmp_path):
    (tmp_path / "a").mkdir()
    first, second = Source(objects.metanlr(tmp_path / "a")), Source(tmp_path / "b")
    called("synthesize-data", "converted", "--format", "dtu", "--from", tmp_path / "a", "--out", tmp_path / "b")
    assert data.detect_format(tmp_path / "b") == "dtu"
    assert_same_rays(first, second)
    assert same_images(first, second)
    a, b = data.open_capture(first).cameras("train").frame, data.open_capture(second).cameras("train").frame
    assert a.scale == pytest.approx(b.scale)
    torch.testing.assert_close(a.translation, b.translation)


def test_a_blender_scene_in_the_layout_of_dtu(tmp_path):
    made.blender(tmp_path / "a", size=(32, 24), channels=3)
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        for index, camera in enumerate(made.ring(count)):
            path = tmp_path / f"a/{split}/r_{index}.png"
            seen = objects.ball(pinhole_cameras(camera[None], 16 / math.tan(0.4), (32, 24)), 0, 1.0, (0.0, 0.0, 0.0))
            with Image.open(path) as image:
                pixels = np.concatenate([np.asarray(image), seen[..., None]], -1)
            made.save(path, pixels)
    called("synthesize-data", "converted", "--format", "dtu", "--from", tmp_path / "a", "--out", tmp_path / "b")
    assert_same_rays(Source(tmp_path / "a"), Source(tmp_path / "b"), bounds=False)
    assert same_images(Source(tmp_path / "a"), Source(tmp_path / "b"))
    # No sphere is known: it is that of the silhouettes.
    assert 1.0 < data.open_capture(Source(tmp_path / "b")).cameras("train").frame.scale < 1.8
