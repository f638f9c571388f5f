"""Meshes: in the world, of the colors that the images show, whole or not at all."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from analytic import Ball, Wall, around, photograph, run_of, scene_of
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.export import MeshExport
from lumifield.export.density_field import SURFACE_OPTICAL_DEPTH, density_field
from lumifield.geometry.poses import look_at
from lumifield.geometry.rays import Ndc, points_from_ndc, points_to_ndc
from lumifield.methods.base import Method

UP = torch.tensor([0.0, 0.0, 1.0])


class SignedBall(Method):
    """A ball of radius 0.9 as a signed distance."""

    surface_level = 0.0

    def inside(self, points):
        return 0.9 - points.norm(dim=-1)


class TwoBalls(Method):
    """A ball of radius 0.6 and one of 0.2, far apart."""

    def inside(self, points):
        large, small = ((points - torch.tensor([x, 0.0, 0.0])).norm(dim=-1) for x in (0.5, -0.9))
        return 100 * torch.exp(20 * torch.maximum(0.6 - large, 0.2 - small))


class Nothing(Ball):
    """Air."""

    def inside(self, points):
        return torch.zeros(len(points))


def all_around(n=24, size=(48, 48)):
    """Cameras all over a sphere of radius 4."""
    height = (torch.arange(n) + 0.5) / n * 1.9 - 0.95
    turn = torch.arange(n) * 2.4
    level = (1 - height**2).sqrt()
    away = 4 * torch.stack([level * turn.cos(), level * turn.sin(), height], -1)
    cameras = around(n, size)
    return replace(cameras, c2w=look_at(away, -away, UP).float())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ball")
    scene = scene_of(all_around())
    return run_of(folder / "run", Ball(), {"train": scene}, photograph(folder, scene, "train"))


def made(run, out, **settings):
    MeshExport(**{"resolution": 24, "density_threshold": 100.0} | settings).write(run, out)
    return trimesh.load(out, process=False, force="mesh")


def difference(mesh):
    """Gray levels between the colors of the vertices and those of the ball there: largest and mean."""
    truth = 255 * (0.5 + 0.5 * mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True))
    gap = np.abs(mesh.visual.vertex_colors[:, :3] - truth)
    return gap.max(), gap.mean()


def test_a_ball_comes_out_round_closed_and_colored(run, tmp_path):
    mesh = made(run, tmp_path / "ball.ply")
    assert mesh.is_watertight
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1).max() < 0.01
    assert mesh.volume == pytest.approx(4 / 3 * math.pi, rel=0.02)
    assert difference(mesh)[0] < 15
    outward = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert (mesh.vertex_normals * outward).sum(1).min() > 0.95
    assert "property float nx" in (tmp_path / "ball.ply").read_bytes()[:500].decode("ascii", "ignore")


@pytest.mark.parametrize(("colors", "most"), [("images", 4), ("radiance", 2), ("field", 4)])
def test_each_source_of_colors_tells_the_truth(run, tmp_path, colors, most):
    assert difference(made(run, tmp_path / "ball.ply", color_source=colors))[1] < most


def test_the_mesh_is_in_the_world(tmp_path):
    angle = torch.tensor(0.5)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    frame = Frame(turn, torch.tensor([10.0, -20.0, 30.0]), 5.0)
    run = run_of(tmp_path, Ball(), {"train": scene_of(all_around(), frame=frame)})
    mesh = made(run, tmp_path / "ball.ply", color_source="radiance", resolution=32)
    assert np.abs(np.linalg.norm(mesh.vertices - [10, -20, 30], axis=1) - 5).max() < 0.05
    truth = 0.5 + 0.5 * (mesh.vertices - [10, -20, 30]) / 5 @ turn.numpy()
    assert np.abs(mesh.visual.vertex_colors[:, :3] / 255 - truth).max() < 0.03


def test_a_wall_before_a_forward_facing_scene_leaves_its_warp(tmp_path):
    ndc = Ndc((30.0, 30.0), (32, 24), 1.0)
    box = torch.tensor([[-1.2, -1.2, -1.0], [1.2, 1.2, 1.0]])
    frame = Frame(torch.eye(3), torch.tensor([0.0, 0.0, 7.0]), 2.0)
    cameras = replace(around(1), c2w=torch.eye(3, 4)[None])
    scene = replace(scene_of(cameras, frame=frame, ndc=ndc), box=box)
    z = 0.5  # four near planes away
    mesh = made(run_of(tmp_path, Wall(z), {"train": scene}), tmp_path / "wall.ply", color_source="field", resolution=24)
    front = mesh.vertices[mesh.vertices[:, 2] < 2 * 4.1 + 7]
    assert len(front) > 300
    assert np.abs(front[:, 2] - (2 * 4 + 7)).max() < 0.05
    assert mesh.volume > 0
    assert np.abs(mesh.visual.vertex_colors[:, :3].astype(int) - 128).max() <= 1


def test_scene_points_leave_and_enter_normalized_device_coordinates():
    ndc = Ndc((30.0, 40.0), (32, 24), 1.5)
    points = torch.tensor([[0.3, -0.2, 1.5], [5.0, 7.0, 30.0]])
    assert torch.allclose(points_from_ndc(points_to_ndc(points, ndc), ndc), points, atol=1e-4)


def test_a_signed_distance_has_its_own_level(tmp_path):
    run = run_of(tmp_path, SignedBall(), {"train": scene_of(all_around())})
    where = density_field(run, None)
    assert where.level == 0
    points = np.array([[0.0, 0, 0.8], [0, 0, 1.0]])
    assert where.field(points) == pytest.approx([0.1, -0.1], abs=1e-6)
    assert where.bounds(None) == pytest.approx(np.array([[-0.9] * 3, [0.9] * 3]), abs=0.1)


def test_a_density_is_cut_where_five_pixels_stop_half_of_the_light(run):
    assert density_field(run, None).level == pytest.approx(SURFACE_OPTICAL_DEPTH / (4 / 48))
    assert density_field(run, 7.0).level == 7.0


def test_bounds_cut_and_resolution_refines(run, tmp_path):
    half = made(run, tmp_path / "half.ply", bounds=(0.0, -1.2, -1.2, 1.2, 1.2, 1.2), color_source="radiance")
    fine = made(run, tmp_path / "fine.ply", resolution=48, color_source="radiance")
    coarse = made(run, tmp_path / "coarse.ply", color_source="radiance")
    assert half.vertices[:, 0].min() >= 0
    assert half.volume == pytest.approx(2 / 3 * math.pi, rel=0.1)
    assert 3 < len(fine.faces) / len(coarse.faces) < 5


def test_a_lower_level_lies_further_out(run, tmp_path):
    wide = made(run, tmp_path / "wide.ply", density_threshold=100 * math.exp(-2), color_source="radiance")
    assert np.linalg.norm(wide.vertices, axis=1) == pytest.approx(1.1, abs=0.01)


@pytest.mark.parametrize(("keep", "bodies"), [("all", 2), ("largest", 1), (10, 2), (600, 1)])
def test_pieces_are_kept_by_size(tmp_path, keep, bodies):
    run = run_of(tmp_path, TwoBalls(), {"train": scene_of(all_around())})
    where = density_field(run, 100.0)
    from lumifield.export.marching_cubes import SamplingGrid, extract_surface, label_components
    from lumifield.export.mesh import select_surface

    surface = extract_surface(where.field, SamplingGrid.over(where.bounds(None), 40))
    assert label_components(select_surface(surface, MeshExport(components=keep), run)).max() + 1 == bodies


def test_hidden_faces_go_where_asked(tmp_path):
    """Cameras on one side see half of the ball."""
    scene = scene_of(all_around())
    side = scene.select([row for row in range(24) if scene.cameras.positions[row, 2] > 3])
    mesh = made(
        run_of(tmp_path, Ball(), {"train": side}), tmp_path / "half.ply", keep_unseen=False, color_source="radiance"
    )
    assert not mesh.is_watertight
    everywhere = all_around(2000).positions.numpy() / 4
    seen = (everywhere @ side.cameras.positions.numpy().T > 1).any(1).mean()
    assert 0.3 < seen < 0.7
    assert mesh.area == pytest.approx(4 * math.pi * seen, rel=0.12)


def test_simplification_keeps_the_shape(run, tmp_path):
    mesh = made(run, tmp_path / "few.ply", num_faces=300, color_source="radiance")
    assert 250 <= len(mesh.faces) <= 320
    assert mesh.volume == pytest.approx(4 / 3 * math.pi, rel=0.05)


@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb", ".dae", ".stl"])
def test_every_ending_is_read_back(run, tmp_path, ending, recwarn):
    mesh = made(run, tmp_path / f"ball{ending}", color_source="radiance")
    assert mesh.volume == pytest.approx(4 / 3 * math.pi, rel=0.02)
    if ending == ".glb":
        (alone,) = trimesh.load(tmp_path / "ball.glb").geometry.values()
        colors = alone.visual.vertex_attributes["color"][:, :3] / 255
        truth = (0.5 + 0.5 * mesh.vertices) ** 2.2
        assert np.abs(colors - truth).max() < 0.05
    elif ending in (".ply", ".obj"):
        assert difference(mesh)[0] < 15
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"ball{ending}"]


@pytest.mark.parametrize("ending", [".glb", ".obj"])
def test_a_texture_shows_the_colors_between_the_vertices(run, tmp_path, ending):
    mesh = made(run, tmp_path / f"ball{ending}", texture_size=256, num_faces=400)
    material = mesh.visual.material
    texture = np.asarray((material.baseColorTexture if ending == ".glb" else material.image).convert("RGB")) / 255
    assert texture.shape == (256, 256, 3)
    midpoints = mesh.vertices[mesh.faces].mean(1)
    uv = mesh.visual.uv[mesh.faces].mean(1)
    shown = texture[((1 - uv[:, 1]) * 256).astype(int), (uv[:, 0] * 256).astype(int)]
    truth = 0.5 + 0.5 * midpoints / np.linalg.norm(midpoints, axis=1, keepdims=True)
    assert np.abs(shown - truth).mean() < 0.03


def refusal(run, out, **settings):
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        made(run, out, **settings)
    assert sorted(out.parent.rglob("*")) == before
    return str(caught.value)


def test_what_cannot_be_made_is_said_in_a_sentence(run, tmp_path):
    assert "extension: found '.xyz'" in refusal(run, tmp_path / "a.xyz")
    assert "expected .obj or .glb for a texture" in refusal(run, tmp_path / "a.ply", texture_size=64)
    assert "density: found no value above 1e+30" in refusal(run, tmp_path / "a.ply", density_threshold=1e30)
    empty = replace(run, method=Nothing())
    assert "density: found no value above 100" in refusal(empty, tmp_path / "a.ply")
    away = refusal(run, tmp_path / "a.ply", bounds=(5.0, 5.0, 5.0, 6.0, 6.0, 6.0))
    assert "box: found 5 5 5 6 6 6" in away
    assert "upper corner" in refusal(run, tmp_path / "a.ply", bounds=(1.0, 1.0, 1.0, 0.0, 0.0, 0.0))
    corner = (1.3, 1.3, 1.3, 1.4, 1.4, 1.4)
    assert "density: found no value above" in refusal(run, tmp_path / "a.ply", bounds=corner)
    portable = replace(run, source=None)
    assert "images: found none (a portable scene)" in refusal(portable, tmp_path / "a.ply")
    moved = replace(run.source, data=tmp_path / "gone")
    assert "folder: found" in refusal(replace(run, source=moved), tmp_path / "a.ply")


def test_photographs_that_moved_are_found(run, tmp_path):
    gone = replace(run, source=replace(run.source, data=tmp_path / "gone"))
    assert difference(made(gone, tmp_path / "ball.ply", data=run.source.data))[1] < 4


@pytest.mark.parametrize("wrong", [{"resolution": 1}, {"num_faces": 3}, {"texture_size": 8}, {"components": 0}])
def test_settings_have_least_values(wrong):
    with pytest.raises(DataError, match=f"{next(iter(wrong))}: found"):
        MeshExport(**wrong)
