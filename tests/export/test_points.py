"""Points lie on the surfaces that the training cameras see, in the world, with normals and colors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from analytic import Ball, around, run_of, scene_of
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.export import PointsExport
from lumifield.export.points import LAYOUT
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered


class Air(Method):
    """Nothing to see."""

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        zero = torch.zeros_like(rays.near)
        return Rendered(context.background.expand(len(rays), 3), rays.far, zero)

    def inside(self, points: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(points))


def read(path):
    """The rows of a PLY file by its header's own words."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    listed = "float x, float y, float z, float nx, float ny, float nz, uchar red, uchar green, uchar blue"
    assert header.decode().splitlines()[3:] == [f"property {text}" for text in listed.split(", ")]
    assert f"element vertex {len(body) // 27}".encode() in header
    return np.frombuffer(body, LAYOUT)


@pytest.fixture
def run(tmp_path):
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    frame = Frame(turn, torch.tensor([10.0, -20.0, 30.0]), 5.0)
    return run_of(tmp_path / "run", Ball(), {"train": scene_of(around(6), frame=frame)})


@pytest.mark.parametrize(("normals", "least"), [("density", 0.99), ("depth", 0.8)])
def test_points_normals_and_colors_are_those_of_the_ball(run, tmp_path, normals, least):
    seen = []
    PointsExport(normals=normals).write(run, tmp_path / "ball.ply", lambda *at: seen.append(at))
    points = read(tmp_path / "ball.ply")
    away = (points["place"] - [10, -20, 30]) / 5
    assert np.linalg.norm(away, axis=1) == pytest.approx(1, abs=1e-3)
    assert (away * points["normal"]).sum(1).min() > least
    scene_axes = away @ run.scenes["train"].frame.rotation.numpy()
    assert np.abs(points["color"] / 255 - (0.5 + 0.5 * scene_axes)).max() < 0.01
    assert away[:, 0].min() < -0.9 < 0.9 < away[:, 0].max()
    assert seen == [(k, 6) for k in range(1, 7)]


def test_the_count_bounds_the_points_and_every_view_has_its_share(run, tmp_path):
    PointsExport(num_points=60).write(run, tmp_path / "few.ply")
    points = read(tmp_path / "few.ply")
    assert len(points) == 60
    turns = np.arctan2(*(points["place"] - [10, -20, 30])[:, 1::-1].T)
    assert all(np.abs(np.angle(np.exp(1j * (turns - k)))).min() < 0.5 for k in np.arange(6))


def test_a_scene_without_matter_another_ending_and_no_points_are_refused(run, tmp_path):
    with pytest.raises(DataError, match="scene: found no surface in any training view"):
        PointsExport().write(replace(run, method=Air()), tmp_path / "air.ply")
    with pytest.raises(DataError, match=r"extension: found '.obj'"):
        PointsExport().write(run, tmp_path / "ball.obj")
    with pytest.raises(DataError, match="num_points: found 0"):
        PointsExport(num_points=0)
    assert list(tmp_path.iterdir()) == []
