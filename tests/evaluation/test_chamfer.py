"""Distances between surfaces against what spheres are known to be apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from analytic import run_of
from known_surfaces import Around, built
from lumifield.data import Source
from lumifield.errors import DataError
from lumifield.evaluation.chamfer import chamfer_distance, sample_surface, surface_distance
from lumifield.export.marching_cubes import TriangleMesh
from scenes import ball


def sphere(radius: float, center: float = 0.0) -> trimesh.Trimesh:
    made = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    made.vertices[:, 0] += center
    return made


def surface(mesh: trimesh.Trimesh) -> TriangleMesh:
    return TriangleMesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))


@pytest.fixture
def run(tmp_path):
    """A run whose surface is a ball of radius 0.5 in the middle, and the place of its true mesh."""
    scene = ball(6, 24)
    method = built(scene=scene)
    method.sdf = Around(method, torch.nn.Parameter(torch.tensor(0.5)))
    (tmp_path / "ground_truth").mkdir()
    return run_of(tmp_path, method.eval(), {"train": scene}, Source(tmp_path)), tmp_path / "ground_truth/mesh.ply"


def test_spheres_are_apart_by_the_difference_of_their_radii():
    assert surface_distance(surface(sphere(1.0)), surface(sphere(1.2))) == pytest.approx(0.2, rel=0.01)
    assert surface_distance(surface(sphere(1.0)), surface(sphere(1.0))) < 0.01


def test_both_ways_count():
    two = surface(trimesh.util.concatenate([sphere(1.0), sphere(1.0, 10.0)]))
    one = surface(sphere(1.0))
    there_and_back = surface_distance(two, one)
    assert there_and_back == pytest.approx(surface_distance(one, two), rel=0.02)
    assert 2.0 < there_and_back < 2.5  # half of the points of two are some 9 away from the one


def test_points_are_spread_by_area():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [8, 0, 0], [5, 1, 0]])
    points = sample_surface(TriangleMesh(corners, np.array([[0, 1, 2], [3, 4, 5]])), 8000, 0)
    far = points[:, 0] > 2
    assert far.mean() == pytest.approx(0.75, abs=0.02)
    near = points[~far]
    assert (near >= 0).all()
    assert (near[:, 0] + near[:, 1] <= 1 + 1e-12).all()
    assert np.allclose(near.mean(0), [1 / 3, 1 / 3, 0], atol=0.02)
    assert np.array_equal(points, sample_surface(TriangleMesh(corners, np.array([[0, 1, 2], [3, 4, 5]])), 8000, 0))


@pytest.mark.parametrize("radius", [0.5, 0.6])
def test_a_surface_beside_its_truth(run, radius):
    own, place = run
    sphere(radius).export(place)
    diagonal = 2 * radius * 3**0.5
    expected = abs(radius - 0.5) / diagonal
    assert chamfer_distance(own) == pytest.approx(expected, abs=0.003)


def test_hidden_parts_of_the_truth_do_not_count(run):
    own, place = run
    trimesh.util.concatenate([sphere(0.5), sphere(0.2)]).export(place)
    assert chamfer_distance(own) < 0.004


def test_without_a_truth_or_a_surface_there_is_none(run):
    own, place = run
    assert chamfer_distance(own) is None
    assert chamfer_distance(replace(own, source=None)) is None
    sphere(0.5).export(place)
    own.method.sdf.radius.data.fill_(-5.0)
    assert chamfer_distance(own) is None


@pytest.mark.parametrize("faces", [False, True])
def test_a_mesh_that_cannot_be_read_is_named(run, faces):
    own, place = run
    place.write_text("ply\nno mesh")
    if faces:
        trimesh.PointCloud(np.eye(3)).export(place)
    with pytest.raises(DataError, match=r"mesh.ply.*write it again"):
        chamfer_distance(own)
