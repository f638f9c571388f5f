"""Exported meshes: geometry in world coordinates, colors and textures, selection of faces, refused settings."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from analytic import Ball, Wall, around, photograph, run_of, scene_of
from lumifield.data.scene import Frame
from lumifield.export import MeshExport
from lumifield.export.density_field import SURFACE_OPTICAL_DEPTH, build_density_field
from lumifield.export.marching_cubes import SamplingGrid, extract_surface, label_components
from lumifield.export.mesh import select_surface
from lumifield.geometry.poses import look_at
from lumifield.geometry.rays import Ndc, points_from_ndc, points_to_ndc
from lumifield.methods.base import Method, Traits
from refusals import refuses

UP = torch.tensor([0.0, 0.0, 1.0])


class SignedBall(Method):
    """Signed distance of a ball of radius 0.9."""

    traits = Traits(has_signed_distance=True)

    def signed_distance(self, points):
        return points.norm(dim=-1) - 0.9


class TwoBalls(Method):
    """A ball of radius 0.6 and one of 0.2, far apart."""

    def density(self, points):
        large, small = ((points - torch.tensor([x, 0.0, 0.0])).norm(dim=-1) for x in (0.5, -0.9))
        return 100 * torch.exp(20 * torch.maximum(0.6 - large, 0.2 - small))


class EmptySpace(Ball):
    """No density."""

    def density(self, points):
        return torch.zeros(len(points))


def sphere_cameras(n=24, size=(48, 48)):
    """Cameras all over a sphere of radius 4 that look at its center."""
    height = (torch.arange(n) + 0.5) / n * 1.9 - 0.95
    azimuth = torch.arange(n) * 2.4
    radius = (1 - height**2).sqrt()
    positions = 4 * torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), height], -1)
    cameras = around(n, size)
    return replace(cameras, c2w=look_at(positions, -positions, UP).float())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ball")
    scene = scene_of(sphere_cameras())
    return run_of(folder / "run", Ball(), {"train": scene}, photograph(folder, scene, "train"))


def export_mesh(run, out, **settings):
    MeshExport(**{"resolution": 24, "density_threshold": 100.0} | settings).write(run, out)
    return trimesh.load(out, process=False, force="mesh")


def color_errors(mesh):
    """Maximum and mean difference of the vertex colors from those of the ball [gray levels]."""
    expected = 255 * (0.5 + 0.5 * mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True))
    error = np.abs(mesh.visual.vertex_colors[:, :3] - expected)
    return error.max(), error.mean()


def test_the_mesh_of_a_ball_is_round_watertight_and_colored(run, tmp_path):
    mesh = export_mesh(run, tmp_path / "ball.ply")
    assert mesh.is_watertight
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1).max() < 0.01
    assert mesh.volume == pytest.approx(4 / 3 * math.pi, rel=0.02)
    assert color_errors(mesh)[0] < 15
    outward = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert (mesh.vertex_normals * outward).sum(1).min() > 0.95
    assert "property float nx" in (tmp_path / "ball.ply").read_bytes()[:500].decode("ascii", "ignore")


@pytest.mark.parametrize(("color_source", "max_error"), [("images", 4), ("radiance", 2), ("field", 4)])
def test_each_color_source_gives_the_colors_of_the_ball(run, tmp_path, color_source, max_error):
    assert color_errors(export_mesh(run, tmp_path / "ball.ply", color_source=color_source))[1] < max_error


def test_the_mesh_is_in_world_coordinates(tmp_path):
    angle = torch.tensor(0.5)
    rotation = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    frame = Frame(rotation, torch.tensor([10.0, -20.0, 30.0]), 5.0)
    run = run_of(tmp_path, Ball(), {"train": scene_of(sphere_cameras(), frame=frame)})
    mesh = export_mesh(run, tmp_path / "ball.ply", color_source="radiance", resolution=32)
    assert np.abs(np.linalg.norm(mesh.vertices - [10, -20, 30], axis=1) - 5).max() < 0.05
    expected = 0.5 + 0.5 * (mesh.vertices - [10, -20, 30]) / 5 @ rotation.numpy()
    assert np.abs(mesh.visual.vertex_colors[:, :3] / 255 - expected).max() < 0.03


def test_a_wall_in_ndc_is_exported_in_world_coordinates(tmp_path):
    ndc = Ndc((30.0, 30.0), (32, 24), 1.0)
    box = torch.tensor([[-1.2, -1.2, -1.0], [1.2, 1.2, 1.0]])
    frame = Frame(torch.eye(3), torch.tensor([0.0, 0.0, 7.0]), 2.0)
    cameras = replace(around(1), c2w=torch.eye(3, 4)[None])
    scene = replace(scene_of(cameras, frame=frame, ndc=ndc), box=box)
    z = 0.5  # four near planes away
    mesh = export_mesh(
        run_of(tmp_path, Wall(z), {"train": scene}), tmp_path / "wall.ply", color_source="field", resolution=24
    )
    front = mesh.vertices[mesh.vertices[:, 2] < 2 * 4.1 + 7]
    assert len(front) > 300
    assert np.abs(front[:, 2] - (2 * 4 + 7)).max() < 0.05
    assert mesh.volume > 0
    assert np.abs(mesh.visual.vertex_colors[:, :3].astype(int) - 128).max() <= 1


def test_points_from_ndc_inverts_points_to_ndc():
    ndc = Ndc((30.0, 40.0), (32, 24), 1.5)
    points = torch.tensor([[0.3, -0.2, 1.5], [5.0, 7.0, 30.0]])
    assert torch.allclose(points_from_ndc(points_to_ndc(points, ndc), ndc), points, atol=1e-4)


def test_a_signed_distance_has_its_own_surface_level(tmp_path):
    run = run_of(tmp_path, SignedBall(), {"train": scene_of(sphere_cameras())})
    field = build_density_field(run, None)
    assert field.level == 0
    points = np.array([[0.0, 0, 0.8], [0, 0, 1.0]])
    assert field.evaluate(points) == pytest.approx([0.1, -0.1], abs=1e-6)
    assert field.resolve_bounds(None) == pytest.approx(np.array([[-0.9] * 3, [0.9] * 3]), abs=0.1)


def test_at_the_default_threshold_five_pixel_widths_absorb_half_of_the_light(run):
    assert build_density_field(run, None).level == pytest.approx(SURFACE_OPTICAL_DEPTH / (4 / 48))
    assert build_density_field(run, 7.0).level == 7.0


def test_bounds_crop_and_resolution_refines(run, tmp_path):
    half = export_mesh(run, tmp_path / "half.ply", bounds=(0.0, -1.2, -1.2, 1.2, 1.2, 1.2), color_source="radiance")
    fine = export_mesh(run, tmp_path / "fine.ply", resolution=48, color_source="radiance")
    coarse = export_mesh(run, tmp_path / "coarse.ply", color_source="radiance")
    assert half.vertices[:, 0].min() >= 0
    assert half.volume == pytest.approx(2 / 3 * math.pi, rel=0.1)
    assert 3 < len(fine.faces) / len(coarse.faces) < 5


def test_a_lower_density_threshold_moves_the_surface_outward(run, tmp_path):
    wide = export_mesh(run, tmp_path / "wide.ply", density_threshold=100 * math.exp(-2), color_source="radiance")
    assert np.linalg.norm(wide.vertices, axis=1) == pytest.approx(1.1, abs=0.01)


@pytest.mark.parametrize(("components", "num_components"), [("all", 2), ("largest", 1), (10, 2), (600, 1)])
def test_components_are_kept_by_size(tmp_path, components, num_components):
    run = run_of(tmp_path, TwoBalls(), {"train": scene_of(sphere_cameras())})
    field = build_density_field(run, 100.0)
    mesh = extract_surface(field.evaluate, SamplingGrid.from_bounds(field.resolve_bounds(None), 40))
    selected = select_surface(mesh, MeshExport(components=components), run)
    assert label_components(selected).max() + 1 == num_components


def test_unseen_faces_are_removed(tmp_path):
    """Cameras on one side see half of the ball."""
    scene = scene_of(sphere_cameras())
    half = scene.select([row for row in range(24) if scene.cameras.positions[row, 2] > 3])
    mesh = export_mesh(
        run_of(tmp_path, Ball(), {"train": half}), tmp_path / "half.ply", keep_unseen=False, color_source="radiance"
    )
    assert not mesh.is_watertight
    surface_points = sphere_cameras(2000).positions.numpy() / 4
    seen = (surface_points @ half.cameras.positions.numpy().T > 1).any(1).mean()
    assert 0.3 < seen < 0.7
    assert mesh.area == pytest.approx(4 * math.pi * seen, rel=0.12)


def test_simplification_keeps_the_shape(run, tmp_path):
    mesh = export_mesh(run, tmp_path / "few.ply", num_faces=300, color_source="radiance")
    assert 250 <= len(mesh.faces) <= 320
    assert mesh.volume == pytest.approx(4 / 3 * math.pi, rel=0.05)


@pytest.mark.parametrize("extension", [".ply", ".obj", ".glb", ".dae", ".stl"])
def test_every_file_format_is_read_back(run, tmp_path, extension, recwarn):
    mesh = export_mesh(run, tmp_path / f"ball{extension}", color_source="radiance")
    assert mesh.volume == pytest.approx(4 / 3 * math.pi, rel=0.02)
    if extension == ".glb":
        (geometry,) = trimesh.load(tmp_path / "ball.glb").geometry.values()
        colors = geometry.visual.vertex_attributes["color"][:, :3] / 255
        expected = (0.5 + 0.5 * mesh.vertices) ** 2.2
        assert np.abs(colors - expected).max() < 0.05
    elif extension in (".ply", ".obj"):
        assert color_errors(mesh)[0] < 15
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"ball{extension}"]


@pytest.mark.parametrize("extension", [".glb", ".obj"])
def test_a_texture_has_the_colors_between_the_vertices(run, tmp_path, extension):
    mesh = export_mesh(run, tmp_path / f"ball{extension}", texture_size=256, num_faces=400)
    material = mesh.visual.material
    texture = np.asarray((material.baseColorTexture if extension == ".glb" else material.image).convert("RGB")) / 255
    assert texture.shape == (256, 256, 3)
    midpoints = mesh.vertices[mesh.faces].mean(1)
    uv = mesh.visual.uv[mesh.faces].mean(1)
    found = texture[((1 - uv[:, 1]) * 256).astype(int), (uv[:, 0] * 256).astype(int)]
    expected = 0.5 + 0.5 * midpoints / np.linalg.norm(midpoints, axis=1, keepdims=True)
    assert np.abs(found - expected).mean() < 0.03


@pytest.mark.parametrize(
    ("name", "settings", "field", "found"),
    [
        ("a.xyz", {}, "extension", "'.xyz'"),
        ("a.ply", {"texture_size": 64}, "extension", "'.ply'"),
        ("a.ply", {"density_threshold": 1e30}, "density", "no value above 1e+30"),
        ("a.ply", {"bounds": (5.0, 5.0, 5.0, 6.0, 6.0, 6.0)}, "bounds", "5 5 5 6 6 6, outside the scene"),
        ("a.ply", {"bounds": (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)}, "bounds", "1 1 1 0 0 0"),
        ("a.ply", {"bounds": (1.3, 1.3, 1.3, 1.4, 1.4, 1.4)}, "density", "no value above 100"),
    ],
)
def test_refused_settings_leave_no_file(run, tmp_path, name, settings, field, found):
    with refuses(field, found=found):
        export_mesh(run, tmp_path / name, **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        (lambda run: {"method": EmptySpace()}, "density", "no value above 100"),
        (lambda run: {"source": None}, "images", "none (a portable scene)"),
    ],
    ids=["empty scene", "portable scene"],
)
def test_refused_runs_leave_no_file(run, tmp_path, change, field, found):
    with refuses(field, found=found):
        export_mesh(replace(run, **change(run)), tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []


def test_images_that_moved_are_found_with_the_data_option(run, tmp_path):
    moved = replace(run, source=replace(run.source, data=tmp_path / "gone"))
    assert color_errors(export_mesh(moved, tmp_path / "ball.ply", data=run.source.data))[1] < 4


def test_a_missing_capture_is_refused(run, tmp_path):
    missing = tmp_path / "missing"
    with refuses("folder", path=missing):
        export_mesh(replace(run, source=replace(run.source, data=missing)), tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"), [("resolution", 1), ("num_faces", 3), ("texture_size", 8), ("components", 0)]
)
def test_settings_below_their_minimum_are_refused(option, value):
    with refuses(option, found=str(value)):
        MeshExport(**{option: value})
