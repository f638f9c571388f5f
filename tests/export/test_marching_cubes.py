"""Surfaces lie where the field changes its sign, are closed, and do not know in how many slabs they were made."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from lumifield.export import marching_cubes as module
from lumifield.export.marching_cubes import SamplingGrid, Surface, extract_surface, label_components, select_faces

BOX = np.array([[-1.0, -1.2, -1.1], [1.3, 1.0, 1.2]])


def ball(points):
    return 20 * (0.7 - np.linalg.norm(points - [0.1, -0.05, 0.02], axis=-1))


def blobs(seed):
    """A field with many pieces, thin walls and saddles."""
    waves = np.random.default_rng(seed).normal(0, 6, (6, 3))
    return lambda points: 3 * np.sin(points @ waves.T + np.arange(6)).sum(-1)


def solid(surface):
    return trimesh.Trimesh(surface.vertices, surface.faces, process=False)


def sorted_triangles(surface):
    corners = surface.vertices[surface.faces]
    first = np.lexsort(corners.transpose(2, 0, 1).reshape(3, -1)).argsort().reshape(-1, 3).argmin(1)
    turned = np.stack([np.roll(one, -k, axis=0) for one, k in zip(corners, first, strict=True)])
    return turned[np.lexsort(turned.reshape(-1, 9).T)]


def test_a_ball_has_its_volume_and_its_surface():
    made = extract_surface(ball, SamplingGrid.over(BOX, 40))
    assert solid(made).is_watertight
    assert solid(made).volume == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.01)
    assert np.abs(ball(made.vertices)).max() < 20 * 0.06 / 2**4


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_slabs_leave_no_seam(layers, monkeypatch):
    lattice = SamplingGrid.over(BOX, 24)
    whole = extract_surface(blobs(0), lattice)
    monkeypatch.setattr(module, "SLAB_NODES", layers * lattice.nodes[0] * lattice.nodes[1])
    sliced = extract_surface(blobs(0), lattice)
    assert solid(sliced).is_watertight
    assert len(sliced.vertices) == len(whole.vertices)
    assert np.allclose(sorted_triangles(sliced), sorted_triangles(whole), atol=1e-3 * lattice.cell)


@given(st.integers(0, 2**31))
def test_every_surface_is_closed_and_faces_outward(seed):
    made = extract_surface(blobs(seed), SamplingGrid.over(BOX, 10))
    assert solid(made).is_watertight
    assert solid(made).is_winding_consistent
    assert solid(made).volume > 0
    low, high = made.vertices.min(0), made.vertices.max(0)
    assert (low >= BOX[0] - 1e-9).all()
    assert (high <= BOX[1] + 0.24).all()


def test_a_surface_ends_at_the_border_of_its_lattice():
    made = extract_surface(lambda points: np.full(len(points), 1e30), SamplingGrid.over(BOX, 8))
    assert solid(made).is_watertight
    assert solid(made).volume == pytest.approx(np.prod(BOX[1] - BOX[0]), rel=0.4)


@pytest.mark.parametrize("value", [-1.0, -1e30, np.nan])
def test_nothing_inside_is_an_empty_surface(value):
    made = extract_surface(lambda points: np.full(len(points), value), SamplingGrid.over(BOX, 5))
    assert made.vertices.shape == made.faces.shape == (0, 3)
    assert label_components(made).shape == (0,)


def test_points_are_asked_for_some_at_a_time_and_slabs_once(monkeypatch):
    monkeypatch.setattr(module, "POINTS", 100)
    counts = []
    lattice = SamplingGrid.over(BOX, 9)
    monkeypatch.setattr(module, "SLAB_NODES", 2 * lattice.nodes[0] * lattice.nodes[1])
    seen = []
    extract_surface(
        lambda points: counts.append(len(points)) or -np.ones(len(points)), lattice, lambda *at: seen.append(at)
    )
    assert max(counts) <= 100
    assert sum(counts) == np.prod(lattice.nodes)
    assert seen[-1] == (lattice.nodes[2] - 1, lattice.nodes[2] - 1)


def test_cells_are_cubes_and_cover_the_box():
    lattice = SamplingGrid.over(BOX, 23)
    assert lattice.cell == pytest.approx(0.1)
    assert lattice.nodes == (24, 23, 24)
    assert np.allclose(lattice.layers(1, 3)[[0, 1, 24]], BOX[0] + 0.1 * np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1]]))


def test_pieces_are_numbered_by_size():
    def two(points):
        large, small = (np.linalg.norm(points - [x, 0, 0], axis=-1) for x in (0.5, -0.6))
        return 20 * np.maximum(0.5 - large, 0.2 - small)

    made = extract_surface(two, SamplingGrid.over(BOX, 30))
    piece = label_components(made)
    large, small = select_faces(made, piece == 0), select_faces(made, piece == 1)
    assert piece.max() == 1
    assert solid(large).volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.03)
    assert solid(small).bounds[1][0] < 0
    assert len(large.vertices) + len(small.vertices) == len(made.vertices)


def test_a_vertex_lies_where_the_field_itself_crosses_zero():
    """The field is steep on one side: between the nodes' values no straight line meets zero near it."""

    def wall(points):
        gap = 0.33 - points[:, 2]
        return np.where(gap > 0, 1e6 * gap, gap)

    lattice = SamplingGrid.over(BOX, 10)
    top = extract_surface(wall, lattice).vertices[:, 2].max()
    assert top == pytest.approx(0.33, abs=lattice.cell / 2**4)


def test_only_keeps_nothing_of_nothing():
    empty = select_faces(Surface(np.zeros((3, 3)), np.array([[0, 1, 2]])), np.array([False]))
    assert empty.vertices.shape == empty.faces.shape == (0, 3)
