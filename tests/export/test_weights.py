"""Portable scenes: equal pixels from a few megabytes, without the images."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from analytic import run_of
from commands import called, files, train
from lumifield.data.scene import Scene
from lumifield.export import WeightsExport
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import read_run
from refusals import refuses
from scenes import INSTANT, ball, written


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    """A folder with a run, its images, and its exports as a file, as a folder, and in half precision."""
    folder = tmp_path_factory.mktemp("exports")
    source = written(folder / "images", views=4)
    called(*train(source.data, folder / "run", "--steps", "20"))
    for name, options in {"scene.zip": (), "scene": (), "half.zip": ("--half",)}.items():
        called("export", "weights", folder / "run", "--out", folder / name, *options)
    return folder


def render_test_view(path: Path) -> torch.Tensor:
    run = read_run(path)
    return render_view(run.method, run.scenes["test"], 0, device=run.device).rgb


@pytest.mark.parametrize("name", ["scene.zip", "scene"])
def test_a_portable_scene_renders_equal_pixels_without_the_images(exports, tmp_path, name):
    portable = tmp_path / "elsewhere"
    (shutil.copytree if name == "scene" else shutil.copy)(exports / name, portable)
    moved = (exports / "images").rename(exports / "moved")
    try:
        called("render", portable, "--view-index", "0", "--out", tmp_path / "views")
    finally:
        moved.rename(exports / "images")
    called("render", exports / "run", "--view-index", "0", "--out", tmp_path / "before")
    assert files(tmp_path / "views") == files(tmp_path / "before")
    assert torch.equal(render_test_view(portable), render_test_view(exports / "run"))


def test_a_portable_scene_has_no_images_and_no_paths(exports):
    with zipfile.ZipFile(exports / "scene.zip") as archive:
        names = archive.namelist()
        texts = [archive.read(name).decode() for name in names[:2]]
    assert names == ["config.json", "cameras.json", "weights.safetensors"]
    assert sorted(file.name for file in (exports / "scene").iterdir()) == sorted(names)
    assert str(exports) not in "".join(texts)
    assert json.loads(texts[0])["source"] is None


def test_half_precision_renders_nearly_equal_pixels(exports):
    half, full = ((exports / name).stat().st_size for name in ("half.zip", "scene.zip"))
    assert half < 0.8 * full
    pixels = render_test_view(exports / "half.zip")
    torch.testing.assert_close(pixels, render_test_view(exports / "run"), rtol=0, atol=1 / 255)


def test_half_precision_is_finite_and_leaves_buffers_unchanged(tmp_path, exports):
    run = read_run(exports / "run")
    name, parameter = next(iter(run.method.named_parameters()))
    parameter.data.view(-1)[:2] = torch.tensor([1e9, -1e9])
    WeightsExport(half=True).write(run, tmp_path / "scene")
    tensors = load_file(tmp_path / "scene" / "weights.safetensors")
    assert tensors[name].flatten()[:2].tolist() == [65504, -65504]
    for buffer, value in run.method.named_buffers():
        assert torch.equal(tensors[buffer], value), buffer
    assert {tensors[key].dtype for key, _ in run.method.named_parameters()} == {torch.float16}


def test_a_portable_scene_can_be_exported_again(exports, tmp_path):
    called("export", "weights", exports / "scene.zip", "--out", tmp_path / "again")
    assert files(tmp_path / "again") == files(exports / "scene")


def test_renderings_of_a_portable_scene_are_written_next_to_it(exports, tmp_path):
    shutil.copy(exports / "scene.zip", tmp_path)
    called("render", tmp_path / "scene.zip", "--view-index", "1")
    assert any(name.endswith(".png") for name in files(tmp_path / "scene" / "views"))


def test_evaluation_of_a_portable_scene_needs_the_images(refused, exports):
    assert "data: found none (a portable scene)" in refused("eval", exports / "scene.zip")


def change_archive(exports: Path, out: Path, **changes: bytes | None) -> Path:
    """The portable scene with other contents of its `config`, `cameras` or `weights` (None: removed)."""
    with zipfile.ZipFile(exports / "scene.zip") as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = changes.get(name.split(".")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out


@pytest.mark.parametrize(
    ("changes", "path", "field", "found"),
    [
        ({"cameras": None}, "bad.zip", "content", "'cameras.json'"),
        ({"cameras": b"[]"}, "bad.zip/cameras.json", "content", "[]"),
        ({"config": b"{"}, "bad.zip/config.json", "JSON", "an error in line 1"),
        ({"config": b'{"format": 7}'}, "bad.zip/config.json", "format", "7"),
        ({"weights": b"short"}, "bad.zip/weights.safetensors", "checkpoint", "damaged"),
    ],
)
def test_a_damaged_member_is_refused(exports, tmp_path, changes, path, field, found):
    bad = change_archive(exports, tmp_path / "bad.zip", **changes)
    with refuses(field, found=found, path=tmp_path / path):
        read_run(bad)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda content: b"no zip", "damaged (File is not a zip file)"),
        (lambda content: content[: len(content) // 2], "damaged ("),
        (lambda content: content.replace(content[2000:2100], bytes(100), 1), "damaged ("),
    ],
    ids=["no zip file", "truncated", "overwritten"],
)
def test_a_damaged_archive_is_refused(exports, tmp_path, damage, found):
    bad = tmp_path / "bad.zip"
    bad.write_bytes(damage((exports / "scene.zip").read_bytes()))
    with refuses("file", found=found, path=bad):
        read_run(bad)


def test_a_damaged_archive_ends_a_command_with_one_sentence(refused, exports, tmp_path):
    bad = change_archive(exports, tmp_path / "bad.zip", cameras=b"[]")
    assert "bad.zip/cameras.json: content: found []" in refused("render", bad, "--view-index", "0")


def test_an_archive_that_unpacks_to_too_many_bytes_is_refused(exports, monkeypatch):
    monkeypatch.setattr("lumifield.runs.run_folder.MAX_PORTABLE_BYTES", 1000)
    with refuses("content", found="more than 1,000 bytes", path="scene.zip"):
        read_run(exports / "scene.zip")


@pytest.mark.parametrize(
    ("name", "field", "found"), [("scene.pt", "extension", "'.pt'"), ("taken.zip", "output", "a folder")]
)
def test_an_unusable_output_is_refused_without_a_trace(refused, exports, tmp_path, name, field, found):
    (tmp_path / "taken.zip").mkdir()
    message = refused("export", "weights", exports / "run", "--out", tmp_path / name)
    assert f"{name}: {field}: found {found}" in message


def test_a_grid_carved_by_object_masks_is_rebuilt_without_images(tmp_path):
    """The object masks of the images bound the grid of `instant`: its box is exported with the weights."""
    scene: Scene = ball()
    method = INSTANT.build(scene).eval()
    run = run_of(tmp_path / "run", method, {"train": scene.without_images()})
    WeightsExport().write(run, tmp_path / "scene.zip")
    loaded = read_run(tmp_path / "scene.zip")
    views = [render_view(each, scene, 0, device=run.device).rgb for each in (method, loaded.method)]
    assert torch.equal(*views)
