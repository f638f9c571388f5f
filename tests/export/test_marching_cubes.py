"""Surfaces at the zeros of fields: accurate, closed, and independent of the number of slabs."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from lumifield.export.marching_cubes import (
    NUM_BISECTIONS,
    SamplingGrid,
    TriangleMesh,
    evaluate_in_chunks,
    extract_surface,
    label_components,
    select_faces,
)

BOX = np.array([[-1.0, -1.2, -1.1], [1.3, 1.0, 1.2]])


def ball(points):
    return 20 * (0.7 - np.linalg.norm(points - [0.1, -0.05, 0.02], axis=-1))


def blobs(seed):
    """A field with many components, thin walls and saddles."""
    frequencies = np.random.default_rng(seed).normal(0, 6, (6, 3))
    return lambda points: 3 * np.sin(points @ frequencies.T + np.arange(6)).sum(-1)


def to_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def sorted_triangles(mesh):
    corners = mesh.vertices[mesh.faces]
    first = np.lexsort(corners.transpose(2, 0, 1).reshape(3, -1)).argsort().reshape(-1, 3).argmin(1)
    rolled = np.stack([np.roll(triangle, -k, axis=0) for triangle, k in zip(corners, first, strict=True)])
    return rolled[np.lexsort(rolled.reshape(-1, 9).T)]


def test_a_ball_has_its_volume_and_surface():
    mesh = extract_surface(ball, SamplingGrid.from_bounds(BOX, 40))
    assert to_trimesh(mesh).is_watertight
    assert to_trimesh(mesh).volume == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.01)
    assert np.abs(ball(mesh.vertices)).max() < 20 * 0.06 / 2 ** (NUM_BISECTIONS - 1)


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_slabs_leave_no_seam(layers):
    grid = SamplingGrid.from_bounds(BOX, 24)
    whole = extract_surface(blobs(0), grid)
    sliced = extract_surface(blobs(0), grid, max_slab_nodes=layers * grid.num_nodes[0] * grid.num_nodes[1])
    assert to_trimesh(sliced).is_watertight
    assert len(sliced.vertices) == len(whole.vertices)
    assert np.allclose(sorted_triangles(sliced), sorted_triangles(whole), atol=1e-3 * grid.cell_size)


@given(st.integers(0, 2**31))
def test_every_surface_is_closed_and_faces_outward(seed):
    mesh = extract_surface(blobs(seed), SamplingGrid.from_bounds(BOX, 10))
    assert to_trimesh(mesh).is_watertight
    assert to_trimesh(mesh).is_winding_consistent
    assert to_trimesh(mesh).volume > 0
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    assert (low >= BOX[0] - 1e-9).all()
    assert (high <= BOX[1] + 0.24).all()


def test_a_surface_is_closed_at_the_border_of_the_grid():
    mesh = extract_surface(lambda points: np.full(len(points), 1e30), SamplingGrid.from_bounds(BOX, 8))
    assert to_trimesh(mesh).is_watertight
    assert to_trimesh(mesh).volume == pytest.approx(np.prod(BOX[1] - BOX[0]), rel=0.4)


@pytest.mark.parametrize("value", [-1.0, -1e30, np.nan])
def test_a_field_without_inside_has_an_empty_surface(value):
    mesh = extract_surface(lambda points: np.full(len(points), value), SamplingGrid.from_bounds(BOX, 5))
    assert mesh.vertices.shape == mesh.faces.shape == (0, 3)
    assert label_components(mesh).shape == (0,)


def test_slabs_evaluate_every_node_once_and_report_progress():
    counts, calls = [], []
    grid = SamplingGrid.from_bounds(BOX, 9)
    extract_surface(
        lambda points: counts.append(len(points)) or -np.ones(len(points)),
        grid,
        lambda *call: calls.append(call),
        max_slab_nodes=2 * grid.num_nodes[0] * grid.num_nodes[1],
    )
    assert len(counts) > 1
    assert sum(counts) == np.prod(grid.num_nodes)
    assert calls[-1] == (grid.num_nodes[2] - 1, grid.num_nodes[2] - 1)


def test_fields_are_evaluated_in_chunks():
    counts = []

    def first_coordinate(points):
        counts.append(len(points))
        return points[:, 0]

    points = np.random.default_rng(0).normal(size=(250, 3))
    assert np.array_equal(evaluate_in_chunks(first_coordinate, points, chunk_size=100), points[:, 0])
    assert counts == [100, 100, 50]


def test_cells_are_cubes_and_cover_the_bounds():
    grid = SamplingGrid.from_bounds(BOX, 23)
    assert grid.cell_size == pytest.approx(0.1)
    assert grid.num_nodes == (24, 23, 24)
    expected = BOX[0] + 0.1 * np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1]])
    assert np.allclose(grid.layer_positions(1, 3)[[0, 1, 24]], expected)


def test_components_are_numbered_by_size():
    def two_balls(points):
        large, small = (np.linalg.norm(points - [x, 0, 0], axis=-1) for x in (0.5, -0.6))
        return 20 * np.maximum(0.5 - large, 0.2 - small)

    mesh = extract_surface(two_balls, SamplingGrid.from_bounds(BOX, 30))
    label = label_components(mesh)
    large, small = select_faces(mesh, label == 0), select_faces(mesh, label == 1)
    assert label.max() == 1
    assert to_trimesh(large).volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.03)
    assert to_trimesh(small).bounds[1][0] < 0
    assert len(large.vertices) + len(small.vertices) == len(mesh.vertices)


def test_vertices_are_refined_where_linear_interpolation_fails():
    """The field is steep on one side of its zero, far from which the interpolated node values vanish."""

    def wall(points):
        distance = 0.33 - points[:, 2]
        return np.where(distance > 0, 1e6 * distance, distance)

    grid = SamplingGrid.from_bounds(BOX, 10)
    top = extract_surface(wall, grid).vertices[:, 2].max()
    assert top == pytest.approx(0.33, abs=grid.cell_size / 2 ** (NUM_BISECTIONS - 1))


def test_selecting_no_faces_gives_an_empty_mesh():
    empty = select_faces(TriangleMesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), np.array([False]))
    assert empty.vertices.shape == empty.faces.shape == (0, 3)
