"""Runs and outputs that cannot be used: one sentence, exit code 2, and no half-written file."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from commands import called, files, largest_file, refusal, train
from lumifield.runs import run_folder
from scenes import cut_off, written


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A trained run in `run`, of the scene in `ball`."""
    folder = tmp_path_factory.mktemp("whole")
    called(*train(written(folder / "ball").data, folder / "run"))
    return folder


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole / "run", tmp_path / "run"))


def edited(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("command", ["eval", "render"])
def test_no_run(refused, tmp_path, command):
    out = ("--out", tmp_path / "film.mp4") if command == "render" else ()
    said = refused(command, tmp_path / "nowhere", *out)
    assert "nowhere: run folder: found no config.json" in said


@pytest.mark.parametrize("name", ["config.json", "cameras.json", "log/summary.json", "log/history.json"])
def test_broken_json(refused, run, name):
    cut_off(run / name)
    said = refused("eval", run)
    assert re.search(rf"{name}: JSON: found an error in line \d+ \(.*\)", said)


@pytest.mark.parametrize("name", ["config.json", "cameras.json", "log/summary.json"])
def test_json_of_another_kind(refused, run, name):
    (run / name).write_text("[]")
    found = "format: found None" if name == "config.json" else r"content: found \[\]"
    assert re.search(f"{name}: {found}", refused("eval", run))


def test_a_run_of_another_version(refused, run):
    edited(run / "config.json", lambda content: content.update(format=2))
    for command in (("eval", run), ("render", run, "--view-index", "0"), ("train", "--resume", "--out", run)):
        assert "run/config.json: format: found 2" in refused(*command)


@pytest.mark.parametrize("key", ["source", "method"])
def test_a_config_without_a_part(refused, run, key):
    edited(run / "config.json", lambda content: content.pop(key))
    assert f"config.json: {key}: found None" in refused("eval", run)


KEYS = ("names", "c2w", "focal", "center", "size", "distortion", "near", "far", "box", "frame", "ndc")
# Without NDC is as scenes may be.
WRONG = [(key, value) for key in KEYS for value in (None, [1], "word", {}) if (key, value) != ("ndc", None)]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_cameras_of_another_kind(refused, run, key, value):
    edited(run / "cameras.json", lambda content: content["train"].update({key: value}))
    assert re.search(
        r"cameras\.json: content: found damaged \(.*\)",
        refused("eval", run),
    )


def test_cameras_without_those_of_the_training(refused, run):
    edited(run / "cameras.json", lambda content: content.pop("train"))
    assert "cameras.json: train split: found nothing" in refused("eval", run)


def test_a_file_of_the_run_is_gone(refused, run):
    (run / "cameras.json").unlink()
    assert "cameras.json: file: found nothing" in refused("eval", run)


@pytest.mark.parametrize(
    ("name", "options"), [("weights.safetensors", ()), ("state/last.safetensors", ("--checkpoint", "last"))]
)
def test_weights_that_are_cut_off_or_gone(refused, run, name, options):
    cut_off(run / name)
    said = refused("eval", run, *options)
    assert re.search(rf"{name}: checkpoint: found damaged \(.*\)", said)
    (run / name).unlink()
    assert f"{name}: file: found nothing" in refused("eval", run, *options)


def test_weights_of_another_network(refused, run):
    edited(run / "config.json", lambda content: content["method"].update(hidden_dim=16))
    said = refused("render", run, "--view-index", "0")
    assert re.search(r"weights\.safetensors: parameters: found a mismatch in", said)


def test_photographs_that_have_moved(refused, whole, run, capsys):
    edited(run / "config.json", lambda content: content["source"].update(data="/moved/away"))
    assert "/moved/away: folder: found nothing" in refused("eval", run)
    called("render", run, "--view-index", "0")
    assert "no ground truth image" in capsys.readouterr().out
    called("eval", run, "--data", whole / "ball")
    assert (run / "eval/test/metrics.json").is_file()


def test_a_damaged_photograph_of_the_test_split(refused, run, whole, tmp_path):
    moved = Path(shutil.copytree(whole / "ball", tmp_path / "ball"))
    image = next(iter(sorted((moved / "test").iterdir())))
    cut_off(image)
    assert "image: found damaged or cut off (image file is truncated)" in refused("eval", run, "--data", moved)


def test_a_split_that_is_not_there(refused, run):
    assert "split: found 'tset'" in refused("eval", run, "--split", "tset")
    said = refused("render", run, "--view-index", "0", "--split", "tset")
    assert "run: split 'tset': found no cameras" in said


def test_a_resumption_from_a_damaged_state(refused, run):
    cut_off(run / "state/last.safetensors")
    said = refused("train", "--resume", "--out", run, "--steps", "5")
    assert re.search(r"state/last\.safetensors: checkpoint: found damaged \(.*\)", said)


@pytest.mark.parametrize(
    ("taken", "command", "named"),
    [
        ("eval", (), "eval/test/000.png: output"),
        ("views", ("--view-index", "0"), "views/test/000_rgb.png: output"),
        ("film", ("--out", "film/a.mp4", "--num-frames", "1"), "film/a.mp4: output"),
        ("film", ("--out", "film", "--num-frames", "1"), "film: output: found a file"),
    ],
)
def test_outputs_that_cannot_be_written(refused, run, taken, command, named):
    (run / taken).write_text("taken")
    located = [str(run / word) if word.startswith("film") else word for word in command]
    assert named in refused("render" if command else "eval", run, *located)


@pytest.mark.parametrize("kind", ["still-life", "multiscale"])
def test_a_scene_cannot_be_made_in_the_place_of_a_file(refused, whole, tmp_path, kind):
    (tmp_path / "out").write_text("taken")
    options = {"still-life": ("--image-width", "8"), "multiscale": ("--from", whole / "ball")}[kind]
    said = refused("synthesize-data", kind, *options, "--out", tmp_path / "out")
    assert "out: output folder: found a file" in said


FULL = "is not writable ({}), expected a place to write to; free some space or choose another place"


def test_a_full_disk_at_the_start_of_a_training(whole, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said = refusal(capsys, *train(whole / "ball", tmp_path / "run"))
    assert "run/config.json: output: found an error (no space left on device)" in said
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("size", "named"), [(20_000, "weights.safetensors"), (60_000, "state/last.safetensors")], ids=["best", "last"]
)
def test_a_disk_that_fills_up_while_a_run_is_saved(whole, tmp_path, capsys, size, named):
    with largest_file(size):
        said = refusal(capsys, *train(whole / "ball", tmp_path / "run"))
    assert re.search(rf"run/{named}: output: found an error \(file too large\)", said)
    left = files(tmp_path / "run")
    assert {"config.json", "cameras.json"} <= left.keys()
    assert named not in left
    assert not [name for name in left if Path(name).name.startswith(".")]


def test_a_disk_that_fills_up_under_the_log(whole, tmp_path, capsys):
    with largest_file(2000), pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "write_json", lambda *_: None)
        patch.setattr(run_folder, "write_tensors", lambda *_: None)
        options = ("--validate-every", "1", "--steps", "9")
        said = refusal(capsys, *train(whole / "ball", tmp_path / "run", *options))
    assert "output: found an error (file too large)" in said


def test_what_was_saved_before_the_disk_filled_up_stays(run, whole, capsys):
    before, size = files(run), (run / "weights.safetensors").stat().st_size
    with largest_file(size - 1):
        refusal(capsys, "train", "--resume", "--out", run, "--steps", "4")
    after = files(run)
    kept = ("config.json", "cameras.json", "weights.safetensors", "state/last.safetensors")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert run_folder.read_tensors(run / run_folder.STATE)[1]["step"] == 2


def test_a_disk_that_fills_up_under_an_evaluation(run, capsys):
    with largest_file(3000):
        said = refusal(capsys, "eval", run)
    assert "eval/test/report.html: output: found an error (file too large)" in said
    assert not {"eval/test/report.html", "eval/test/metrics.json"} & files(run).keys()


@pytest.mark.parametrize("name", ["film.mp4", "film.gif", "film"])
def test_a_disk_that_fills_up_under_a_film(run, tmp_path, capsys, name):
    with largest_file(100):
        said = refusal(capsys, "render", run, "--out", tmp_path / name, "--num-frames", "2")
    assert re.search(r"output: found an error \(", said)
    assert not [path for path in files(tmp_path) if path.startswith((".", "film"))]


def test_a_disk_that_fills_up_under_a_made_scene(tmp_path, capsys):
    small = ("--image-width", "16", "--num-train", "1", "--num-val", "1", "--num-test", "1", "--samples-per-pixel", "1")
    with largest_file(500):
        said = refusal(capsys, "synthesize-data", "still-life", *small, "--out", tmp_path / "scene")
    assert re.search(r"scene: output folder: found an error \(File too large\)", said)
    assert list(tmp_path.iterdir()) == []
