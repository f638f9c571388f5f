import os
from pathlib import Path

import numpy as np
import pytest
import torch

import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.errors import DataError


def test_an_object_as_it_is_on_disk(tmp_path):
    scene = data.read_scene(Source(made.shapenet(tmp_path)), "train")
    assert data.detect_format(tmp_path) == "shapenet"
    assert data.open_capture(Source(tmp_path)).splits == ("train", "test")
    assert scene.names == ("000.png", "001.png", "002.png") or scene.names == ("000", "001", "002")
    assert np.array_equal(scene.images.image(2, (8, 8)).numpy(), made.image(2, (8, 8), 4))
    torch.testing.assert_close(scene.cameras.c2w, made.ring(5).float()[:3])
    assert (scene.near.tolist(), scene.far.tolist()) == ([2.0] * 3, [6.0] * 3)
    assert (scene.background, scene.unbounded) == ("white", False)


def test_the_second_half_is_held_out(tmp_path):
    source = Source(made.shapenet(tmp_path, n=6))
    assert data.open_capture(source).cameras("train").names == ("000", "001", "002")
    assert data.open_capture(source).cameras("test").names == ("003", "004", "005")


def test_other_hold_outs(tmp_path):
    made.shapenet(tmp_path)
    assert len(data.open_capture(Source(tmp_path, hold_out="none")).cameras("train")) == 5
    assert data.open_capture(Source(tmp_path, hold_out="every-8th")).cameras("test").names == ("000",)


def test_only_the_last_part_of_a_name_counts(tmp_path):
    made.shapenet(tmp_path)
    path = tmp_path / "transforms.json"
    made.edit(path, lambda c: [f.update(file_path="/home/x.y/03001627/a/" + f["file_path"]) for f in c["frames"]])
    assert data.open_capture(Source(tmp_path)).cameras("train").names == ("000", "001", "002")


def test_a_single_frame_leaves_none_to_hold_out(tmp_path):
    source = Source(made.shapenet(tmp_path, n=1))
    assert len(data.open_capture(source).cameras("train")) == 1
    with pytest.raises(DataError, match=r"transforms\.json: test split: found empty"):
        data.open_capture(source).cameras("test")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(fl_x=9.0),
        lambda content: [f.update(file_path=f["file_path"] + ".png") for f in content["frames"]],
    ],
)
def test_a_transforms_file_of_other_programs_is_none_of_an_object(tmp_path, change):
    made.edit(made.shapenet(tmp_path) / "transforms.json", change)
    assert data.detect_format(tmp_path) == "transforms"


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
def test_a_car():
    scene = data.read_scene(Source(Path(os.environ["LUMIFIELD_DATA"]) / "kenney_views/cars/taxi", downscale=2), "train")
    assert (len(scene), scene.size(0)) == (25, (64, 64))
    # The car fills the middle of every view, and a sphere of radius 1 all of it.
    for index in range(len(scene)):
        assert int(scene.images.image(index, (64, 64))[32, 32, 3]) == 255
