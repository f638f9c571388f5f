"""What every export promises: it leaves something of every method, on bounded, open and NDC scenes, wherever it has
trained, and it says in one sentence why not."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch

from analytic import run_of
from commands import tree
from lumifield.cli.export import ExportChoice
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.export import (
    CamerasExport,
    MeshExport,
    PointsExport,
    VolumeExport,
    WebExport,
    WeightsExport,
    baking,
    density_field,
    points,
)
from lumifield.methods import METHODS, method_name
from lumifield.runs.run_folder import LoadedRun, load_run
from lumifield.runtime.config import to_plain
from scenes import SCENES, SMALL, pairs

TRIED = ("instant", "mip-nerf", "nerf", "nerf, occupied", "nerf-w", "simple-nerf", "nlr")
FRAME = Frame(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([5.0, -6.0, 7.0]), 3.0)
# Of each kind: small settings and every ending.
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
def lenient(monkeypatch):
    """Bounds are looked for with few probes, and what has not trained stops light, too."""
    monkeypatch.setattr(density_field, "PROBES", 8)
    monkeypatch.setattr(baking, "HIT", 0.0)
    monkeypatch.setattr(points, "MIN_POINT_OPACITY", 0.0)
    monkeypatch.setattr(points, "GRAZING", -2.0)


@pytest.fixture(params=pairs(TRIED), ids=", ".join)
def run(request, tmp_path) -> LoadedRun:
    """A run of a method without training, whose scene frame is not the world's."""
    name, place = request.param
    settings, scene = SMALL[name], replace(SCENES[place](), frame=FRAME)
    torch.manual_seed(0)
    method = settings.build(scene).eval()
    made = run_of(tmp_path / "run", method, {"train": scene.without_images()})
    config = {"kind": method_name(settings)} | to_plain(method.settings)
    return replace(made, config={"format": 1, "lumifield": "0", "method": config})


def test_every_export_and_every_method_is_tried():
    kinds = {get_args(kind)[0] for kind in get_args(get_args(ExportChoice)[0])}
    assert kinds == EXPORTS.keys()
    assert {method_name(SMALL[name]) for name in TRIED} == set(METHODS)


def noted(counts: list[tuple[int, int]], done: int, total: int) -> None:
    counts.append((done, total))


@pytest.mark.parametrize("kind", EXPORTS)
def test_every_ending_of_every_export_leaves_files_and_counts_to_the_end(run, kind, tmp_path):
    export, endings = EXPORTS[kind]
    for ending in endings:
        out = tmp_path / f"new {ending}" / (f"scene.{ending}" if ending else "scene")
        counts: list[tuple[int, int]] = []
        export.write(run, out, partial(noted, counts))
        assert out.exists()
        assert all(path.stat().st_size > 0 for path in out.parent.rglob("*"))
        assert not list(out.parent.rglob(".*"))
        assert not counts or counts[-1][0] == counts[-1][1]


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_scene_that_has_traveled_exports_the_same(run, kind, tmp_path):
    WeightsExport().write(run, tmp_path / "traveled.zip")
    export, (ending, *_) = EXPORTS[kind]
    for name, one in (("before", run), ("after", load_run(tmp_path / "traveled.zip"))):
        export.write(one, tmp_path / name / f"scene.{ending}")
    assert tree(tmp_path / "before") == tree(tmp_path / "after")


@pytest.mark.parametrize("kind", EXPORTS)
def test_what_cannot_be_written_is_said_before_any_work(run, kind, tmp_path):
    export, (ending, *_) = EXPORTS[kind]
    (tmp_path / f"taken.{ending}").mkdir()
    (tmp_path / "file").touch()

    def asked(*_):
        raise AssertionError("the method was asked")

    run.method.forward = run.method.inside = asked
    before = tree(tmp_path)
    for name, field in (
        ("scene.doc", "extension"),
        (f"taken.{ending}", "output"),
        (f"file/scene.{ending}", "output"),
    ):
        with pytest.raises(DataError, match=f"{Path(name).name}: {field}: found "):
            export.write(run, tmp_path / name)
    assert tree(tmp_path) == before
