"""Portable scenes: the same pixels from a few megabytes, wherever the images are."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from analytic import run_of
from commands import called, files, refusal, train
from lumifield.data.scene import Scene
from lumifield.export import WeightsExport
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import load_run
from lumifield.runtime.config import to_plain
from scenes import INSTANT, ball, written


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run, its images, and what was exported of it, as a file, a folder, and with half the bits."""
    folder = tmp_path_factory.mktemp("whole")
    source = written(folder / "photographs", views=4)
    called(*train(source.data, folder / "run", "--steps", "20"))
    for name, options in {"scene.zip": (), "scene": (), "half.zip": ("--half",)}.items():
        called("export", "weights", folder / "run", "--out", folder / name, *options)
    return folder


def image(path: Path) -> torch.Tensor:
    run = load_run(path)
    return render_view(run.method, run.scenes["test"], 0, device=run.device).rgb


@pytest.mark.parametrize("name", ["scene.zip", "scene"])
def test_the_pixels_are_the_same_when_the_photographs_are_gone(whole, tmp_path, name):
    here = tmp_path / "elsewhere"
    (shutil.copytree if name == "scene" else shutil.copy)(whole / name, here)
    away = (whole / "photographs").rename(whole / "away")
    try:
        called("render", here, "--view-index", "0", "--out", tmp_path / "views")
    finally:
        away.rename(whole / "photographs")
    called("render", whole / "run", "--view-index", "0", "--out", tmp_path / "before")
    assert files(tmp_path / "views") == files(tmp_path / "before")
    assert torch.equal(image(here), image(whole / "run"))


def test_only_what_rendering_needs_leaves(whole):
    with zipfile.ZipFile(whole / "scene.zip") as archive:
        names = archive.namelist()
        texts = [archive.read(name).decode() for name in names[:2]]
    assert names == ["config.json", "cameras.json", "weights.safetensors"]
    assert sorted(file.name for file in (whole / "scene").iterdir()) == sorted(names)
    assert str(whole) not in "".join(texts)
    assert json.loads(texts[0])["source"] is None


def test_half_the_bits_are_nearly_the_same_pixels(whole):
    sizes = [(whole / name).stat().st_size for name in ("half.zip", "scene.zip")]
    assert sizes[0] < 0.8 * sizes[1]
    torch.testing.assert_close(image(whole / "half.zip"), image(whole / "run"), rtol=0, atol=1 / 255)


def test_half_the_bits_stay_finite_and_leave_the_buffers(tmp_path, whole):
    run = load_run(whole / "run")
    name, parameter = next(iter(run.method.named_parameters()))
    parameter.data.view(-1)[:2] = torch.tensor([1e9, -1e9])
    WeightsExport(half=True).write(run, tmp_path / "scene")
    found = load_file(tmp_path / "scene" / "weights.safetensors")
    assert found[name].flatten()[:2].tolist() == [65504, -65504]
    for buffer, value in run.method.named_buffers():
        assert torch.equal(found[buffer], value), buffer
    assert {found[key].dtype for key, _ in run.method.named_parameters()} == {torch.float16}


def test_a_portable_scene_can_be_exported_again(whole, tmp_path):
    called("export", "weights", whole / "scene.zip", "--out", tmp_path / "again")
    assert files(tmp_path / "again") == files(whole / "scene")


def test_its_own_images_go_beside_it(whole, tmp_path):
    shutil.copy(whole / "scene.zip", tmp_path)
    called("render", tmp_path / "scene.zip", "--view-index", "1")
    assert any(name.endswith(".png") for name in files(tmp_path / "scene" / "views"))


def test_photographs_are_asked_for_where_there_are_none(refused, whole):
    assert "data: found none (a portable scene)" in refused("eval", whole / "scene.zip")


def repacked(whole: Path, out: Path, **changed: bytes | None) -> Path:
    """The portable scene with other contents (None: left out) of its `config`, `cameras` or `weights`."""
    with zipfile.ZipFile(whole / "scene.zip") as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = changed.get(name.split(".")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cameras": None}, r"bad.zip: content: found no There is no item named 'cameras\.json' in the archive"),
        ({"cameras": b"[]"}, r"bad.zip/cameras.json: content: found \[\]"),
        (
            {"config": b"{"},
            r"bad.zip/config.json: JSON: found an error in line 1 \(Expecting property name enclosed in doub",
        ),
        ({"config": b'{"format": 7}'}, r"bad.zip/config.json: format: found 7"),
        (
            {"weights": b"short"},
            r"bad.zip/weights.safetensors: checkpoint: found damaged",
        ),
    ],
)
def test_a_damaged_part_is_one_sentence(whole, tmp_path, capsys, changed, message):
    bad = repacked(whole, tmp_path / "bad.zip", **changed)
    assert re.search(message, refusal(capsys, "render", bad, "--view-index", "0"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda content: b"no zip",
            r"bad.zip: file: found damaged \(File is not a zip file\)",
        ),
        (lambda content: content[: len(content) // 2], r"bad.zip: file: found damaged \("),
        (lambda content: content.replace(content[2000:2100], bytes(100), 1), r"bad.zip.*: found damaged \("),
    ],
)
def test_a_damaged_file_is_one_sentence(whole, tmp_path, capsys, damage, message):
    bad = tmp_path / "bad.zip"
    bad.write_bytes(damage((whole / "scene.zip").read_bytes()))
    assert re.search(message, refusal(capsys, "render", bad, "--view-index", "0"))


def test_a_file_that_unpacks_to_too_much_is_one_sentence(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lumifield.runs.run_folder.MAX_PORTABLE_BYTES", 1000)
    said = refusal(capsys, "export", "weights", whole / "scene.zip", "--out", tmp_path / "out.zip")
    assert "scene.zip: content: found more than 1,000 bytes" in said


@pytest.mark.parametrize(
    ("out", "message"),
    [("scene.pt", "extension: found '.pt'"), ("taken.zip", "output: found a folder")],
)
def test_what_cannot_be_written_is_one_sentence(refused, whole, tmp_path, out, message):
    (tmp_path / "taken.zip").mkdir()
    assert message in refused("export", "weights", whole / "run", "--out", tmp_path / out)


def test_the_scene_of_a_method_that_carves_is_rebuilt_without_images(tmp_path):
    """The silhouettes of the images bound the grid of `instant`: its box has to travel with the weights."""
    scene: Scene = ball()
    method = INSTANT.build(scene).eval()
    run = run_of(tmp_path / "run", method, {"train": scene.without_images()})
    run.config.update(format=1, lumifield="0", method={"kind": "instant"} | to_plain(method.settings))
    WeightsExport().write(run, tmp_path / "scene.zip")
    again = load_run(tmp_path / "scene.zip")
    views = [render_view(m, scene, 0, device=run.device).rgb for m in (method, again.method)]
    assert torch.equal(*views)
