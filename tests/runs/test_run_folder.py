"""The run folder: what is saved comes back bit for bit, as plain data, whole or not at all."""

import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lumifield.data import Source
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.rays import Ndc
from lumifield.optim import Optimizer
from lumifield.optim.optimizers import build_optimizer
from lumifield.rendering.view import render_view
from lumifield.runs import checkpoint, run_folder
from lumifield.runs.run_config import RunConfig
from lumifield.runs.run_folder import TrainingSummary
from lumifield.training import Train
from lumifield.training.job import TrainingJob, run_training
from scenes import INSTANT, MIP_NERF, NERF, ball, written

CPU = torch.device("cpu")
METHODS = {
    "instant": INSTANT,
    "mip-nerf": MIP_NERF,
    "nerf": NERF,
    "occupied": replace(NERF, occupancy=True, occupancy_resolution=8),
}
PICKLE, ZIP, GZIP = b"\x80", b"PK", b"\x1f\x8b"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    return written(tmp_path_factory.mktemp("ball"))


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory) -> Path:
    return run_training(TrainingJob(INSTANT, source, Train(steps=3), tmp_path_factory.mktemp("trained") / "run"))


def begun(folder: Path, settings=INSTANT, scenes: dict[str, Scene] | None = None):
    """A run folder with a method of random weights, and that method."""
    scene = ball()
    method = settings.build(scene)
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in method.state_dict().items()
    }
    method.load_state_dict(weights)
    RunConfig.of_training(method.settings, Source(Path("photos")), "train", Train()).write(folder)
    run_folder.write_cameras(folder / run_folder.CAMERAS, scenes or {"train": scene})
    run_folder.write_tensors(folder / run_folder.WEIGHTS, method.state_dict())
    return method


@pytest.mark.parametrize("name", METHODS)
def test_a_method_comes_back_bit_for_bit(name, tmp_path):
    method = begun(tmp_path, METHODS[name])
    run = run_folder.read_run(tmp_path)
    loaded = run.method.state_dict()
    assert loaded.keys() == method.state_dict().keys()
    for key, value in method.state_dict().items():
        assert torch.equal(value, loaded[key]), key
    assert run.method.settings == method.settings
    assert not run.method.training
    shown = [render_view(m, run.scenes["train"], 0, device=CPU).rgb for m in (method.eval(), run.method)]
    assert torch.equal(shown[0], shown[1])


def scenes() -> dict[str, Scene]:
    """One scene with everything that a scene can hold, and plain ones."""
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
    plain = ball(3).without_images()
    lens = replace(plain.cameras, distortion=torch.tensor([[0.1, -1e-7, 1 / 3, 1e-30]]).repeat(3, 1))
    rich = replace(
        plain,
        cameras=replace(lens, size=torch.tensor([[16, 16], [5, 9], [1, 1]])),
        near=torch.tensor([0.1, 1e-6, 1 / 3]),
        frame=Frame(rotation, torch.tensor([1e6, -1 / 3, 0.0]), 1 / 3),
        background="none",
        unbounded=True,
        bounds_are_z_depth=True,
    )
    ndc = replace(plain, ndc=Ndc((18.5, 1 / 3), (16, 15), 2.0))
    return {"train": plain, "val": rich, "test": ndc, "none": plain.select([])}


@pytest.mark.parametrize("split", ["train", "val", "test", "none"])
def test_cameras_come_back_bit_for_bit(split, tmp_path):
    begun(tmp_path, scenes=scenes())
    meant, found = scenes()[split], run_folder.read_run(tmp_path).scenes[split]
    for tensors_with_prefix in ("c2w", "focal", "center", "size", "distortion"):
        assert torch.equal(getattr(meant.cameras, tensors_with_prefix), getattr(found.cameras, tensors_with_prefix)), (
            tensors_with_prefix
        )
    for tensors_with_prefix in ("near", "far", "box"):
        assert torch.equal(getattr(meant, tensors_with_prefix), getattr(found, tensors_with_prefix)), (
            tensors_with_prefix
        )
    assert torch.equal(meant.frame.rotation, found.frame.rotation)
    assert torch.equal(meant.frame.translation, found.frame.translation)
    assert meant.frame.scale == found.frame.scale
    assert (meant.names, meant.background, meant.unbounded, meant.bounds_are_z_depth, meant.ndc) == (
        *(found.names, found.background, found.unbounded, found.bounds_are_z_depth),
        found.ndc,
    )
    assert found.images is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_and_notes_come_back_bit_for_bit(dtype, tmp_path):
    values = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).mul(1e3).to(dtype)
    tensors = {"a.b": values, "turned": values.T, "one": values[0, 0].clone(), "empty": values[:0]}
    note = {"step": 3, "words": ["ä", None, 1e-300]}
    run_folder.write_tensors(tmp_path / "deep" / "x.safetensors", tensors, note)
    found, about = run_folder.read_tensors(tmp_path / "deep" / "x.safetensors")
    assert about == note
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], value), name


def test_numbers_that_are_not_finite_come_back(tmp_path):
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e-45, 3.4e38, -0.0])
    run_folder.write_tensors(tmp_path / "x", {"x": values})
    found = run_folder.read_tensors(tmp_path / "x")[0]["x"]
    assert torch.equal(values.view(torch.int32), found.view(torch.int32))


@pytest.mark.parametrize("kind", ["sgd", "adam", "radam", "ranger"])
def test_an_optimizer_comes_back_bit_for_bit(kind, tmp_path):
    def stepped(steps: int):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimizer = build_optimizer(Optimizer(kind=kind, lr=0.1, momentum=0.9), [{"params": [*layer.parameters()]}])
        go(layer, optimizer, steps)
        return layer, optimizer

    def go(layer, optimizer, steps: int):
        for step in range(steps):
            optimizer.zero_grad()
            (layer(torch.full((1, 3), 1.0 + step)) ** 2).sum().backward()
            optimizer.step()

    layer, optimizer = stepped(8)
    run_folder.write_tensors(tmp_path / "x", *checkpoint.flatten_optimizer_state(optimizer.state_dict()))
    other, restored = stepped(0)
    other.load_state_dict(layer.state_dict())
    restored.load_state_dict(checkpoint.unflatten_optimizer_state(*run_folder.read_tensors(tmp_path / "x")))
    go(layer, optimizer, 8)
    go(other, restored, 8)
    assert torch.equal(layer.weight, other.weight)


def test_best_and_last(tmp_path):
    method = begun(tmp_path)
    doubled = {name: (value * 2).to(value.dtype) for name, value in method.state_dict().items()}
    last = {f"weights.{name}": value for name, value in doubled.items()}
    run_folder.write_tensors(tmp_path / run_folder.STATE, last | {"generator": torch.zeros(3)})
    best, latest = (run_folder.read_run(tmp_path, which).method.state_dict() for which in ("best", "last"))
    for name, value in method.state_dict().items():
        assert torch.equal(best[name], value)
        assert torch.equal(latest[name], doubled[name])


def test_a_run_without_a_summary_has_not_trained(tmp_path):
    begun(tmp_path)
    assert run_folder.read_run(tmp_path).training_summary == TrainingSummary(0.0, 0, 0, 8)
    run_folder.write_json(tmp_path / run_folder.SUMMARY, {"seconds": 2.5, "steps": 7})
    assert run_folder.read_run(tmp_path).training_summary == TrainingSummary(2.5, 0, 7, 8)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_of_the_format(version, tmp_path):
    begun(tmp_path)
    config = json.loads((tmp_path / run_folder.CONFIG).read_text())
    run_folder.write_json(tmp_path / run_folder.CONFIG, config | {"format": version})
    with pytest.raises(DataError, match=rf"config.json: format: found {version!r}"):
        run_folder.read_run(tmp_path)


def damaged(method, change: str) -> dict[str, torch.Tensor]:
    weights = dict(method.state_dict())
    match change:
        case "missing":
            del weights["grid.table"]
        case "surplus":
            weights["grid.chair"] = torch.zeros(1)
        case "shape":
            weights["grid.table"] = weights["grid.table"][1:]
    return weights


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("missing", r"parameters: found a mismatch in grid\.table"),
        ("surplus", r"parameters: found a mismatch in grid\.chair"),
        ("shape", "grid.table"),
    ],
)
def test_weights_that_do_not_fit(change, name, tmp_path):
    method = begun(tmp_path)
    run_folder.write_tensors(tmp_path / run_folder.WEIGHTS, damaged(method, change))
    with pytest.raises(DataError, match=r"weights.safetensors: parameters: found a mismatch in grid\."):
        run_folder.read_run(tmp_path)


def test_the_message_names_the_file_that_was_read(tmp_path):
    method = begun(tmp_path)
    last = {f"weights.{name}": value for name, value in damaged(method, "missing").items()}
    run_folder.write_tensors(tmp_path / run_folder.STATE, last)
    with pytest.raises(DataError, match=r"last\.safetensors: parameters: found a mismatch in grid\.table"):
        run_folder.read_run(tmp_path, "last")


def test_no_file_of_a_run_is_a_pickle_or_an_archive(trained):
    seen = sorted(path for path in trained.rglob("*") if path.is_file())
    assert {run_folder.CONFIG, run_folder.CAMERAS, run_folder.WEIGHTS, run_folder.STATE, run_folder.SUMMARY} <= {
        str(path.relative_to(trained)) for path in seen
    }
    for path in seen:
        content = path.read_bytes()
        assert not content.startswith((PICKLE, ZIP, GZIP)), path
        assert not zipfile.is_zipfile(path), path
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".safetensors":
            length = int.from_bytes(content[:8], "little")
            assert json.loads(content[8 : 8 + length])
        else:
            assert "tfevents" in path.name


def test_loading_never_unpickles(trained, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    assert run_folder.read_run(trained).method is not None
    assert run_folder.read_run(trained, "last").method is not None


def test_a_pickle_in_the_place_of_the_weights_is_refused(tmp_path):
    method = begun(tmp_path)
    torch.save(method.state_dict(), tmp_path / run_folder.WEIGHTS)
    with pytest.raises(DataError, match=r"weights\.safetensors: checkpoint: found damaged .*"):
        run_folder.read_run(tmp_path)


def test_a_run_works_from_another_folder(source, trained, tmp_path):
    moved = Path(shutil.copytree(trained, tmp_path / "elsewhere"))
    here, there = run_folder.read_run(trained), run_folder.read_run(moved)
    assert there.folder == moved
    assert str(trained) not in "".join(path.read_text() for path in moved.rglob("*.json"))
    shown = [render_view(run.method, run.scenes["test"], 0, device=CPU).rgb for run in (here, there)]
    assert torch.equal(shown[0], shown[1])
    run_training(TrainingJob(INSTANT, source, Train(steps=4), moved), resume=True)
    assert run_folder.read_run(moved).training_summary.steps == 4
    assert run_folder.read_run(trained).training_summary.steps == 3


def test_the_data_is_remembered_by_its_whole_path(source, tmp_path, monkeypatch):
    monkeypatch.chdir(source.data.parent)
    run_training(TrainingJob(INSTANT, Source(Path(source.data.name)), Train(steps=1), tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    assert run_folder.read_run(tmp_path / "run").source == Source(source.data.resolve())


class Interrupted(BaseException):
    """What a signal in the middle of a save raises."""


def test_tensors_are_for_the_same_readers_as_other_files(tmp_path):
    run_folder.write_json(tmp_path / "config.json", {})
    run_folder.write_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(3)})
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("error", [Interrupted(), OSError(28, "No space left on device")])
def test_a_save_that_is_interrupted_leaves_the_old_whole(moment, error, tmp_path, monkeypatch):
    file = tmp_path / "x.safetensors"
    run_folder.write_tensors(file, {"x": torch.zeros(3)}, {"step": 1})
    before = file.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), fail)
    with pytest.raises(Interrupted if isinstance(error, Interrupted) else DataError):
        run_folder.write_tensors(file, {"x": torch.ones(3)}, {"step": 2})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_save_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    file, synced = tmp_path / "x.safetensors", []
    fsync = os.fsync

    def watched(descriptor):
        fsync(descriptor)
        (partial,) = tmp_path.iterdir()
        synced.append(partial.read_bytes())

    monkeypatch.setattr(os, "fsync", watched)
    run_folder.write_tensors(file, {"x": torch.zeros(3)})
    assert synced == [file.read_bytes()]


def test_json_holds_no_number_that_json_has_not(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_folder.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_format_is_readable_by_safetensors_alone(tmp_path):
    method = begun(tmp_path)
    with safe_open(tmp_path / run_folder.WEIGHTS, framework="pt") as file:
        assert set(file.keys()) == set(method.state_dict())
