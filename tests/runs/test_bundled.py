"""Starts that come with the package: found by name, and trainable from."""

import json
from pathlib import Path

import pytest
import torch

from commands import called, refusal
from lumifield.methods import SimpleNerf
from lumifield.runs import bundled, run_folder
from lumifield.runs.run_folder import read_run
from lumifield.synthetic import ObjectCaptures, synthesize_data
from scenes import written


def test_every_start_but_that_of_networks_alone_is_a_portable_scene_of_16_bits():
    scenes = [name for name in bundled.list_initializations() if name != "features"]
    assert scenes
    for name in scenes:
        run = read_run(bundled.resolve_initialization(bundled.FOLDER / name))
        weights, _ = run_folder.read_tensors(run.folder / run_folder.WEIGHTS)
        assert {weights[key].dtype for key, _ in run.method.named_parameters()} == {torch.float16}
        assert json.loads((run.folder / run_folder.CONFIG).read_text())["source"] is None
        assert sum(file.stat().st_size for file in run.folder.iterdir()) < 2_000_000


def test_a_training_starts_from_a_name(tmp_path):
    name = bundled.list_initializations()[0]
    data = written(tmp_path / "data", views=2, size=8).data
    called("train", "--data", data, "--out", tmp_path / "run", "--init", name, "--steps", "0", "--device", "cpu")
    run = read_run(tmp_path / "run")
    assert isinstance(run.method.settings, SimpleNerf)
    expected, _ = run_folder.read_tensors(bundled.FOLDER / name / run_folder.WEIGHTS)
    for key, value in run.method.named_parameters():
        assert torch.equal(value, expected[key].float())
    assert run.config.training_settings["init"] == str(bundled.FOLDER / name)


def test_a_surface_starts_from_sculptures(tmp_path):
    data = tmp_path / "data"
    synthesize_data(ObjectCaptures(image_width=16, num_train=3, num_val=0, num_test=1, samples_per_pixel=1), data)
    called("train", "nlr", "--data", data, "--out", tmp_path / "run", "--init", "sculptures", "--steps", "0")
    own = read_run(tmp_path / "run").method.state_dict()
    shipped, _ = run_folder.read_tensors(bundled.FOLDER / "sculptures" / run_folder.WEIGHTS)
    learned = [name for name, value in shipped.items() if value.dtype == torch.float16]
    assert {name.split(".")[0] for name in learned} == {"sdf", "appearance_net"}
    for name in learned:
        assert torch.equal(own[name], shipped[name].float())


def test_a_surface_starts_from_features(tmp_path):
    data = tmp_path / "data"
    synthesize_data(ObjectCaptures(image_width=16, num_train=3, num_val=0, num_test=1, samples_per_pixel=1), data)
    called("train", "--data", data, "--out", tmp_path / "run", "--init", "features", "--steps", "0", "--device", "cpu")
    run = read_run(tmp_path / "run")
    shipped, _ = run_folder.read_tensors(bundled.FOLDER / "features" / run_folder.WEIGHTS)
    assert {value.dtype for value in shipped.values()} == {torch.float16}
    assert {".".join(name.split(".")[:2]) for name in shipped} == {"appearance_net.encoder", "appearance_net.decoder"}
    for name, value in shipped.items():
        assert torch.equal(run.method.state_dict()[name], value.float())
    assert sum(file.stat().st_size for file in (bundled.FOLDER / "features").iterdir()) < 1_200_000


def test_a_run_of_that_name_comes_first_and_other_folders_do_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = Path(bundled.list_initializations()[0])
    name.mkdir()
    assert bundled.resolve_initialization(name) == bundled.FOLDER / name
    (name / run_folder.CONFIG).write_text("{}")
    assert bundled.resolve_initialization(name).resolve() == tmp_path / name


@pytest.mark.parametrize("command", ["train", "meta-train"])
def test_a_start_that_is_not_there_is_told_with_those_that_are(tmp_path, capsys, command):
    data = written(tmp_path / "data", views=2, size=8).data
    said = refusal(capsys, command, "--data", data, "--out", tmp_path / "run", "--init", "nothing")
    assert "--init: found nothing" in said
