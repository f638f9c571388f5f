"""Descriptions of how the images of a split were selected."""

from dataclasses import replace

import pytest

import made_objects as objects
import made_reconstructions as sfm
import made_scenes as made
from analytic import Ball, around, run_of, scene_of
from lumifield import data
from lumifield.data import Source
from lumifield.evaluation.protocol import describe_split_rule


def listed(folder):
    (sfm.colmap(folder, made.ring(9), place="dense/sparse") / "place.tsv").write_text(
        "filename\tid\tsplit\n000.png\t1\ttrain\n"
    )
    return folder


def named(folder):
    return made.transforms(folder, test_filenames=["images/000.png"])


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (made.blender, "the data's own transforms_test.json"),
        (made.transforms, "every-8th held out"),
        (named, "the data's own test_filenames in transforms.json"),
        (made.multicam, "the data's own metadata.json"),
        (made.shapenet, "the second half of the frames held out"),
        (lambda folder: made.llff(folder, made.row(9)), "every-8th held out"),
        (lambda folder: sfm.colmap(folder, made.ring(9)), "every-8th held out"),
        (listed, "the data's own place.tsv"),
        (lambda folder: sfm.seven_scenes(folder, made.ring(3)), "the data's own TestSplit.txt"),
        (
            lambda folder: sfm.frames_of(folder, made.ring(9)),
            "frames with depth are test where not all have it, else every 8th",
        ),
        (lambda folder: sfm.cambridge(folder, made.ring(3)), "the data's own dataset_test.txt"),
        (objects.dtu, "MetaNLR++'s views, with fewer images every 8th"),
    ],
)
def test_the_rule_is_that_of_the_layout(tmp_path, make, rule):
    source = Source(make(tmp_path / "scene"))
    assert data.open_capture(source).describe_split("test") == rule
    if rule == "every-8th held out":
        for asked in ("center", "none"):
            assert data.open_capture(replace(source, hold_out=asked)).describe_split("test") == f"{asked} held out"


def test_the_rule_is_unknown_without_the_data(tmp_path):
    run = run_of(tmp_path / "run", Ball(), {"train": scene_of(around(2))})
    for source in (None, Source(tmp_path), Source(tmp_path / "gone")):
        assert describe_split_rule(replace(run, source=source), "test") == "unknown"
