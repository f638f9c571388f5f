"""Contract of every export: it writes every method on bounded, unbounded and NDC scenes, from wherever the run is, and
refuses an unusable output before any work."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from analytic import run_of
from commands import tree
from lumifield.cli.export import ExportChoice
from lumifield.data.scene import Frame
from lumifield.export import (
    CamerasExport,
    MeshExport,
    PointsExport,
    VolumeExport,
    WebExport,
    WeightsExport,
    density_field,
    points,
    voxel_baking,
)
from lumifield.methods import METHODS, method_name
from lumifield.runs.run_folder import LoadedRun, read_run
from refusals import refuses
from scenes import SCENES, SMALL, pairs

TESTED_METHODS = ("instant", "mip-nerf", "nerf", "nerf, occupied", "nerf-w", "simple-nerf", "nlr")
FRAME = Frame(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([5.0, -6.0, 7.0]), 3.0)
# Small settings and every extension of each export.
EXPORTS = {
    MeshExport: (
        MeshExport(resolution=6, density_threshold=1e-6, components="all", color_source="field"),
        ("ply", "obj", "glb", "dae", "stl"),
    ),
    CamerasExport: (CamerasExport(), ("json", "ply", "")),
    PointsExport: (PointsExport(), ("ply",)),
    VolumeExport: (VolumeExport(resolution=6, center=(5.0, -6.0, 7.0), cube_size=9.0), ("vol", "raw", "npz")),
    WebExport: (WebExport(resolution=16, num_rays=256), ("html",)),
    WeightsExport: (WeightsExport(), ("zip", "")),
}


@pytest.fixture(autouse=True)
def exports_without_thresholds(monkeypatch):
    """Coarse bounds, and no minimum opacity, so that untrained methods have surfaces."""
    monkeypatch.setattr(density_field, "BOUNDS_RESOLUTION", 8)
    monkeypatch.setattr(voxel_baking, "MIN_HIT_OPACITY", 0.0)
    monkeypatch.setattr(points, "MIN_POINT_OPACITY", 0.0)
    monkeypatch.setattr(points, "MIN_COSINE", -2.0)


@pytest.fixture(params=pairs(TESTED_METHODS), ids=", ".join)
def run(request, tmp_path) -> LoadedRun:
    """A run of an untrained method, whose scene frame differs from the world."""
    name, kind = request.param
    settings, scene = SMALL[name], replace(SCENES[kind](), frame=FRAME)
    torch.manual_seed(0)
    method = settings.build(scene).eval()
    return run_of(tmp_path / "run", method, {"train": scene.without_images()})


def test_every_export_and_every_method_is_tested():
    kinds = {get_args(kind)[0] for kind in get_args(get_args(ExportChoice)[0])}
    assert kinds == EXPORTS.keys()
    assert {method_name(SMALL[name]) for name in TESTED_METHODS} == set(METHODS)


@pytest.mark.parametrize("kind", EXPORTS)
def test_every_extension_of_every_export_writes_files_and_reports_progress(run, kind, tmp_path):
    export, extensions = EXPORTS[kind]
    for extension in extensions:
        out = tmp_path / f"new {extension}" / (f"scene.{extension}" if extension else "scene")
        calls: list[tuple[int, int]] = []
        export.write(run, out, lambda completed, total, calls=calls: calls.append((completed, total)))
        assert out.exists()
        assert all(path.stat().st_size > 0 for path in out.parent.rglob("*"))
        assert not list(out.parent.rglob(".*"))
        assert not calls or calls[-1][0] == calls[-1][1]


@pytest.mark.parametrize("kind", EXPORTS)
def test_exports_of_a_portable_scene_are_equal(run, kind, tmp_path):
    WeightsExport().write(run, tmp_path / "portable.zip")
    export, (extension, *_) = EXPORTS[kind]
    for name, source in (("run", run), ("portable", read_run(tmp_path / "portable.zip"))):
        export.write(source, tmp_path / f"from {name}" / f"scene.{extension}")
    assert tree(tmp_path / "from run") == tree(tmp_path / "from portable")


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_unusable_output_is_refused_before_any_work(run, kind, tmp_path):
    export, (extension, *_) = EXPORTS[kind]
    (tmp_path / f"taken.{extension}").mkdir()
    (tmp_path / "file").touch()

    def fail(*_):
        raise AssertionError("the method was evaluated")

    run.method.forward = run.method.density = fail
    before = tree(tmp_path)
    for name, field in (
        ("scene.doc", "extension"),
        (f"taken.{extension}", "output"),
        (f"file/scene.{extension}", "output"),
    ):
        with refuses(field, path=Path(name).name):
            export.write(run, tmp_path / name)
    assert tree(tmp_path) == before
