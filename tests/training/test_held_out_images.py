"""Images that are held out never enter a training: without them it gives the very same weights."""

import builtins
import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import made_scenes as made
from lumifield import data
from lumifield.data import Source, capture, image_files
from lumifield.runs import checkpoint, run_folder
from lumifield.training import Train
from lumifield.training.job import TrainingJob, run_training
from scenes import INSTANT, NERF, written

STEPS = 8


@pytest.fixture
def source(tmp_path) -> Source:
    return written(tmp_path / "ball")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return run_folder.read_tensors(folder / run_folder.STATE)[0]


def assert_same(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def without(source: Source, folder: Path, *, lists: bool) -> Source:
    """A copy of the data from which the images of val and test are gone, and the lists of them where asked."""
    shutil.copytree(source.data, folder)
    for split in ("val", "test"):
        shutil.rmtree(folder / split)
        if lists:
            (folder / f"transforms_{split}.json").unlink()
    return replace(source, data=folder)


@pytest.mark.parametrize("method", [INSTANT, NERF], ids=["instant", "nerf"])
@pytest.mark.parametrize(
    "validation", [{"num_validation_views": 0}, {"validate_every": 0}, {"validate_every": 3}], ids=str
)
@pytest.mark.parametrize("lists", [False, True], ids=["images gone", "lists gone, too"])
def test_removed_images_change_no_bit(method, validation, lists, source, tmp_path):
    alone = without(source, tmp_path / "alone", lists=lists)
    settings = Train(steps=STEPS, seed=4, **validation)
    run_training(TrainingJob(method, source, settings, tmp_path / "with"))
    run_training(TrainingJob(method, alone, settings, tmp_path / "without"))
    assert_same(tmp_path / "with", tmp_path / "without")


def test_images_that_vanish_while_training_change_no_bit(source, tmp_path, monkeypatch):
    settings = Train(steps=STEPS, num_validation_views=0)
    run_training(TrainingJob(INSTANT, source, settings, tmp_path / "with"))
    build = type(INSTANT).build

    def built(settings, scene):
        for split in ("val", "test"):
            shutil.rmtree(source.data / split, ignore_errors=True)
        return build(settings, scene)

    monkeypatch.setattr(type(INSTANT), "build", built)
    run_training(TrainingJob(INSTANT, source, settings, tmp_path / "without"))
    assert_same(tmp_path / "with", tmp_path / "without")


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """Every file that Python opens."""
    seen: list[Path] = []
    real = builtins.open

    def watched(file, *args, **kwargs):
        if isinstance(file, str | Path):
            seen.append(Path(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watched)
    monkeypatch.setattr(io, "open", watched)
    return seen


def held_out(files: list[Path]) -> set[str]:
    """The splits of the val and test images among some files."""
    return {file.parent.name for file in files if file.suffix == ".png"} & {"val", "test"}


def test_the_files_that_are_opened_are_seen(source, opened):
    data.read_scene(source, "val")
    assert held_out(opened) == {"val"}


def test_no_held_out_image_is_opened_between_validations(source, tmp_path, monkeypatch, opened):
    at_step: dict[int, set[str]] = {}
    real = checkpoint.CheckpointSaver.__call__

    def watched(self, state, report):
        at_step[state.step] = held_out(opened)
        opened.clear()
        real(self, state, report)

    monkeypatch.setattr(checkpoint.CheckpointSaver, "__call__", watched)
    run_training(TrainingJob(INSTANT, source, Train(steps=STEPS, validate_every=3, save_every=2), tmp_path / "run"))
    # Before the first step their headers are read, for the cameras of the job, and the validation views.
    assert at_step.pop(1) == {"val", "test"}
    assert at_step == {step: set() for step in range(2, STEPS + 1)}
    assert held_out(opened) == set()


def test_the_pixels_of_the_test_split_are_never_decoded(source, tmp_path, monkeypatch):
    decoded = []
    real = image_files.decode_images

    def watched(files, sizes):
        decoded.extend(path.parent.name for path in files.paths)
        return real(files, sizes)

    monkeypatch.setattr(capture, "decode_images", watched)
    run_training(TrainingJob(INSTANT, source, Train(steps=2), tmp_path / "run"))
    assert set(decoded) == {"train", "val"}
    decoded.clear()
    run_training(TrainingJob(INSTANT, source, Train(steps=2, num_validation_views=0), tmp_path / "blind"))
    assert set(decoded) == {"train"}


def test_the_images_of_a_hold_out_change_nothing_either(tmp_path):
    made.transforms(tmp_path / "whole", n=17, size=(12, 10))
    shutil.copytree(tmp_path / "whole", tmp_path / "painted")
    for index in (0, 8, 16):
        image = tmp_path / "painted" / "images" / f"{index:03d}.png"
        with Image.open(image) as there:
            Image.new("RGB", there.size, "red").save(image)
    for name in ("whole", "painted"):
        run_training(TrainingJob(INSTANT, Source(tmp_path / name), Train(steps=STEPS), tmp_path / f"{name} run"))
    assert_same(tmp_path / "whole run", tmp_path / "painted run")
