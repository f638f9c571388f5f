import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import made_reconstructions as sfm
import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.data.readers import colmap
from lumifield.data.sparse_reconstruction import core_extent
from lumifield.errors import DataError

HEAD = "filename\tid\tsplit\tdataset\n"
ROWS = "000.png\t1\ttrain\ta\n002.png\t9\ttest\ta\n001.png\t2\ttrain\ta\n003.png\t\ttrain\ta\n004.png\t5\t\ta\n"


def scene(root: Path, text: str = HEAD + ROWS) -> Path:
    sfm.colmap(root, made.ring(6), place="dense/sparse")
    (root / "place.tsv").write_text(text)
    return root


def test_the_list_names_the_splits_by_file_name(tmp_path):
    assert data.detect_format(scene(tmp_path)) == "phototourism"
    assert data.open_capture(Source(tmp_path)).splits == ("train", "test")
    assert data.open_capture(Source(tmp_path)).cameras("train").names == ("000.png", "001.png")
    assert data.open_capture(Source(tmp_path)).cameras("test").names == ("002.png",)


def test_all_splits_share_the_frame(tmp_path):
    train, test = (
        data.open_capture(Source(scene(tmp_path)) if s == "train" else Source(tmp_path)).cameras(s)
        for s in ("train", "test")
    )
    assert train.frame.scale == test.frame.scale


def listless(root: Path, split: str = "train", views: int = 9, **kind):
    """A reconstruction without a list, all of it in one split, read as images from anywhere."""
    sfm.colmap(root, made.ring(views, target=(3, 1, -2)), place="dense/sparse", **kind)
    return data.open_capture(Source(root, format="phototourism", hold_out="none")).cameras(split)


def test_bounds_are_percentiles_of_the_distances_of_the_points_that_are_seen(tmp_path):
    points = np.concatenate([np.linspace(-1, 1, 2001)[:, None] * [0, 0, 1.0], [[50.0, 0, 0]] * 2])
    points[-2:, 1] = (0, 1)
    scene = listless(tmp_path, views=3, points=points)
    distance = np.linalg.norm(points - made.ring(3, target=(3, 1, -2))[0, :, 3].numpy(), axis=1)
    near, far = np.percentile(distance, (0.1, 99.9)) / scene.frame.scale
    assert scene.near[0].item() == pytest.approx(0.9 * near, rel=1e-4)
    assert scene.far[0].item() == pytest.approx(far, rel=1e-4)


def test_photographs_that_see_next_to_nothing_have_the_widest_bounds(tmp_path):
    sfm.colmap(tmp_path, made.ring(9), points=sfm.cloud(45), tracks=3)
    whole = colmap.load_colmap(tmp_path)
    space = core_extent(replace(whole, seen=(whole.seen[0][:3], *whole.seen[1:])))
    assert space.near[0] == space.near[1:].min()
    assert space.far[0] == space.far[1:].max()
    assert len(set(space.near.tolist())) == 8


def test_the_cube_holds_nine_tenths_of_the_points(tmp_path):
    points = sfm.cloud(200) + np.array([3, 1, -2])
    scene = listless(tmp_path, points=points)
    inside = (scene.frame.to_scene(torch.from_numpy(points).float()).abs() <= 1).all(-1)
    assert inside.float().mean().item() == pytest.approx(0.9, abs=0.006)
    assert (scene.unbounded, scene.background) == (True, "none")
    torch.testing.assert_close(scene.frame.rotation[:, 2], torch.tensor([0.0, 0.0, 1.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["auto", "phototourism"])
def test_without_a_list_every_eighth_is_held_out(tmp_path, form):
    (scene(tmp_path) / "place.tsv").unlink()
    source = Source(tmp_path, format=form)
    assert data.open_capture(source).cameras("test").names == ("000.png",)
    assert len(data.open_capture(source).cameras("train")) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename\tid\n000.png\t1\n", r"place\.tsv: column split: found missing"),
        ("", r"place\.tsv: column filename: found missing"),
        (HEAD, r"place\.tsv: column split: found without train"),
        (HEAD + "000.png\t1\t\ta\n", r"place\.tsv: column split: found without train"),
        (HEAD + "000.png\t1\n", r"place\.tsv: column split: found without train"),
        (HEAD + "000.png\t\ttrain\ta\n", r"place\.tsv: column split: found without train"),
        (
            HEAD + "x.png\t1\ttrain\ta\n",
            r"image x\.png: found not in the sparse model",
        ),
    ],
)
def test_lists_that_cannot_be(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        data.open_capture(Source(scene(tmp_path, text))).cameras("train")


def test_a_listed_photograph_is_missing(tmp_path):
    (scene(tmp_path) / "dense/images/001.png").unlink()
    with pytest.raises(DataError, match=r"place\.tsv: image 001\.png: found missing"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_two_lists(tmp_path):
    (scene(tmp_path) / "other.tsv").touch()
    with pytest.raises(DataError, match=r"list of splits: found not one \(other\.tsv, place\.tsv\)"):
        data.open_capture(Source(tmp_path))


def test_hold_outs_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"place\.tsv: hold_out: found 'center'"):
        data.open_capture(Source(scene(tmp_path), hold_out="center"))


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
def test_statue_of_liberty():
    source = Source(Path(os.environ["LUMIFIELD_DATA"]) / "statue_of_liberty")
    assert data.detect_format(source.data) == "phototourism"
    assert [len(data.open_capture(source).cameras(split)) for split in data.open_capture(source).splits] == [99, 14]
