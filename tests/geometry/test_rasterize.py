"""The drawn triangles equal those of the benchmarks' own rasterizer, and rays cast by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from lumifield.geometry.rasterize import interpolate_attributes, rasterize


@pytest.fixture(scope="module")
def independent():
    """benchmarks/rasterizer.py."""
    file = Path(__file__).parents[2] / "benchmarks" / "rasterizer.py"
    spec = importlib.util.spec_from_file_location("rasterizer", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def soup(seed, faces=60):
    """Triangles of all sizes, some behind the camera, some beyond the image."""
    random = np.random.default_rng(seed)
    image = random.uniform(-10, 50, (faces, 1, 2)) + random.normal(0, 8, (faces, 3, 2))
    return image.reshape(-1, 2), random.uniform(-0.3, 4, 3 * faces), np.arange(3 * faces).reshape(-1, 3)


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_independent_rasterizer(independent, seed):
    image, depth, faces = soup(seed)
    drawn, other = rasterize(image, depth, faces, (40, 30)), independent.rasterize(image, depth, faces, (40, 30))
    assert np.array_equal(drawn.face, other.face)
    assert np.allclose(drawn.depth, other.depth)
    assert np.allclose(drawn.weights, other.weights)


def test_depth_and_weights_are_those_of_the_point_on_the_triangle():
    points = np.array([[-1.0, -1.0, 2.0], [3.0, -1.0, 6.0], [-1.0, 4.0, 5.0]])
    image = points[:, :2] / points[:, 2:] * 20 + [16, 12]
    drawn = rasterize(image, points[:, 2], np.array([[0, 1, 2]]), (32, 24))
    met = drawn.face >= 0
    rows, columns = np.nonzero(met)
    found = interpolate_attributes(points, np.array([[0, 1, 2]]), drawn)
    assert met.sum() > 50
    assert np.allclose(found[:, 2], drawn.depth[met])
    assert np.allclose(found[:, :2] / found[:, 2:] * 20 + [16, 12], np.stack([columns, rows], 1) + 0.5)


def test_triangles_that_share_an_edge_leave_no_gap():
    image = np.array([[1.3, 2.1], [28.7, 1.2], [30.1, 21.9], [2.2, 22.4]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    both = rasterize(image, np.ones(4), faces, (32, 24))
    assert (both.face[3:22, 3:28] >= 0).all()
    assert (both.face[0] == -1).all()


@pytest.mark.parametrize("depth", [[1.0, 1.0, 0.0], [1.0, -2.0, 1.0], [-1.0, -1.0, -1.0]])
def test_faces_that_reach_behind_the_camera_are_left_out(depth):
    image = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    drawn = rasterize(image, np.array(depth), np.array([[0, 1, 2]]), (8, 8))
    assert (drawn.face == -1).all()
    assert np.isinf(drawn.depth).all()


def test_no_faces_and_broken_corners_draw_nothing():
    empty = rasterize(np.empty((0, 2)), np.empty(0), np.empty((0, 3), np.int64), (4, 4))
    broken = rasterize(np.array([[np.nan, 0], [9, 0], [0, 1e300]]), np.ones(3), np.array([[0, 1, 2]]), (4, 4))
    assert (empty.face == -1).all()
    assert (broken.face == -1).all()
    assert interpolate_attributes(np.empty((0, 3)), np.empty((0, 3), np.int64), empty).shape == (0, 3)
