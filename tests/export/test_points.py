"""Points lie on the surfaces that the training cameras see, in world coordinates, with normals and colors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from analytic import Ball, around, run_of, scene_of
from lumifield.data.scene import Frame
from lumifield.export import PointsExport
from lumifield.export.points import POINT_DTYPE
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered
from refusals import refuses


class EmptySpace(Method):
    """No density."""

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        zero = torch.zeros_like(rays.near)
        return Rendered(context.background.expand(len(rays), 3), rays.far, zero)

    def density(self, points: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(points))


def read_ply(path):
    """The points of a PLY file, after checking its header."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    properties = "float x, float y, float z, float nx, float ny, float nz, uchar red, uchar green, uchar blue"
    assert header.decode().splitlines()[3:] == [f"property {text}" for text in properties.split(", ")]
    assert f"element vertex {len(body) // 27}".encode() in header
    return np.frombuffer(body, POINT_DTYPE)


@pytest.fixture
def run(tmp_path):
    rotation = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    frame = Frame(rotation, torch.tensor([10.0, -20.0, 30.0]), 5.0)
    return run_of(tmp_path / "run", Ball(), {"train": scene_of(around(6), frame=frame)})


@pytest.mark.parametrize(("normals", "min_cosine"), [("density", 0.99), ("depth", 0.8)])
def test_points_normals_and_colors_are_those_of_the_ball(run, tmp_path, normals, min_cosine):
    calls = []
    PointsExport(normals=normals).write(run, tmp_path / "ball.ply", lambda *call: calls.append(call))
    points = read_ply(tmp_path / "ball.ply")
    outward = (points["position"] - [10, -20, 30]) / 5
    assert np.linalg.norm(outward, axis=1) == pytest.approx(1, abs=1e-3)
    assert (outward * points["normal"]).sum(1).min() > min_cosine
    scene_outward = outward @ run.scenes["train"].frame.rotation.numpy()
    assert np.abs(points["color"] / 255 - (0.5 + 0.5 * scene_outward)).max() < 0.01
    assert outward[:, 0].min() < -0.9 < 0.9 < outward[:, 0].max()
    assert calls == [(view, 6) for view in range(1, 7)]


def test_the_number_of_points_is_limited_and_every_view_contributes(run, tmp_path):
    PointsExport(num_points=60).write(run, tmp_path / "few.ply")
    points = read_ply(tmp_path / "few.ply")
    assert len(points) == 60
    azimuth = np.arctan2(*(points["position"] - [10, -20, 30])[:, 1::-1].T)
    assert all(np.abs(np.angle(np.exp(1j * (azimuth - view)))).min() < 0.5 for view in np.arange(6))


def test_empty_scenes_and_unknown_extensions_leave_no_file(run, tmp_path):
    with refuses("scene", found="no surface in any training view"):
        PointsExport().write(replace(run, method=EmptySpace()), tmp_path / "empty.ply")
    with refuses("extension", found="'.obj'"):
        PointsExport().write(run, tmp_path / "ball.obj")
    assert list(tmp_path.iterdir()) == []


def test_zero_points_are_refused():
    with refuses("num_points", found="0"):
        PointsExport(num_points=0)
