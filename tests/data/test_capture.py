"""A capture is opened once per command."""

import builtins
import io
from collections import Counter
from pathlib import Path

import pytest

import made_objects as objects
import made_reconstructions as sfm
import made_scenes as made
from lumifield import data
from lumifield.cli import main
from lumifield.data import Source, metadata_files
from lumifield.errors import DataError

METADATA = (".json", ".npy", ".npz", ".bin", ".txt", ".yaml", ".tsv", ".nvm")
SCENES = {
    "blender": made.blender,
    "transforms": made.transforms,
    "multicam": made.multicam,
    "shapenet": made.shapenet,
    "llff": lambda folder: made.llff(folder, made.row(9)),
    "colmap": lambda folder: sfm.colmap(folder, made.ring(9)),
    "cambridge": lambda folder: sfm.cambridge(folder, made.ring(9)),
    "dtu": objects.dtu,
}


@pytest.fixture
def opened(monkeypatch) -> Counter:
    """Number of times that each file was opened for reading."""
    counts: Counter = Counter()

    def counting(original):
        def open_counted(file, mode="r", *arguments, **options):
            if isinstance(file, str | Path) and "r" in mode:
                counts[Path(file)] += 1
            return original(file, mode, *arguments, **options)

        return open_counted

    monkeypatch.setattr(builtins, "open", counting(builtins.open))
    monkeypatch.setattr(io, "open", counting(io.open))
    return counts


def metadata_opens(opened: Counter, folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): count
        for path, count in opened.items()
        if path.is_relative_to(folder) and path.suffix in METADATA
    }


@pytest.mark.parametrize("name", SCENES)
def test_every_metadata_file_is_opened_once(tmp_path, opened, name):
    source = Source(SCENES[name](tmp_path / "scene"))
    opened.clear()
    capture = data.open_capture(source)
    for split in capture.splits:
        capture.read(split)
        capture.cameras(split)
        capture.describe_split(split)
    counts = metadata_opens(opened, source.data)
    assert counts
    assert set(counts.values()) == {1}, counts


def test_train_eval_and_export_open_every_metadata_file_once(tmp_path, opened, monkeypatch):
    scene, run = made.blender(tmp_path / "scene"), tmp_path / "run"
    detections: list[Path] = []
    find_format = data.find_format
    monkeypatch.setattr(data, "find_format", lambda path: detections.append(path) or find_format(path))
    for command in (
        f"train simple-nerf --data {scene} --out {run} --steps 1 --num-validation-views 1",
        f"eval {run}",
        f"export cameras {run} --out {tmp_path}/cameras.json",
    ):
        metadata_files._read.cache_clear()
        opened.clear()
        detections.clear()
        main.main(command.split())
        assert detections == [scene], command
        counts = metadata_opens(opened, scene)
        assert set(counts.values()) == {1}, (command, counts)


def test_an_unknown_split_is_refused(tmp_path):
    capture = data.open_capture(Source(made.blender(tmp_path / "scene")))
    with pytest.raises(DataError, match="split: found 'all', expected one of train"):
        capture.read("all")
