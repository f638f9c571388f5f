"""Camera placement: sphere, orbit and forward-facing grid."""

from __future__ import annotations

import numpy as np
import pytest

from lumifield.synthetic import camera_placement
from lumifield.synthetic.camera_placement import (
    SyntheticView,
    forward_facing_views,
    look_at_c2w,
    orbit_views,
    sphere_views,
)

VIEWS = [*sphere_views(7, 0.4, 32), *orbit_views(5, 0.4, 32), *forward_facing_views(7, 32)]


@pytest.mark.parametrize("view", VIEWS)
def test_cameras_have_a_horizontal_x_axis_and_are_right_handed(view: SyntheticView):
    rotation = view.c2w[:, :3]
    assert rotation.T @ rotation == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert rotation[2, 0] == pytest.approx(0, abs=1e-12)
    assert rotation[2, 1] < 0


@pytest.mark.parametrize("view", VIEWS[:12])
def test_cameras_around_the_table_look_at_the_origin_from_distance_four(view: SyntheticView):
    assert np.linalg.norm(view.c2w[:, 3]) == pytest.approx(4)
    assert view.c2w[:, 2] * 4 == pytest.approx(-view.c2w[:, 3])
    assert (view.width, view.height) == (32, 32)
    assert 2 * np.arctan(16 / view.focal) == pytest.approx(0.6911112070083618)


def test_elevation_sines_are_evenly_spaced_and_mostly_positive():
    elevation_sines = np.array([view.c2w[2, 3] for view in sphere_views(60, 0.0, 8)]) / 4
    assert (elevation_sines > 0).mean() > 0.85
    assert np.diff(elevation_sines) == pytest.approx(1.06 / 60)


def test_the_orbit_oscillates_twice_between_12_and_47_degrees():
    positions = np.stack([view.c2w[:, 3] for view in orbit_views(40, 0.0, 8)])
    elevation = np.degrees(np.arcsin(positions[:, 2] / 4))
    assert (elevation.min(), elevation.max()) == pytest.approx((12, 47), abs=0.5)
    azimuth = np.unwrap(np.arctan2(positions[:, 1], positions[:, 0]))
    assert np.diff(azimuth) == pytest.approx(2 * np.pi / 40)


def test_grid_cameras_are_coplanar_and_parallel():
    grid = forward_facing_views(12, 40)
    positions = np.stack([view.c2w[:, 3] for view in grid])
    forward = grid[0].c2w[:, 2]
    assert all((view.c2w[:, :3] == grid[0].c2w[:, :3]).all() for view in grid)
    assert (positions - positions[0]) @ forward == pytest.approx(0, abs=1e-12)
    assert len(np.unique(positions.round(9), axis=0)) == 12
    assert (grid[0].width, grid[0].height) == (40, 30)
    assert np.ptp(positions @ grid[0].c2w[:, 0]) < camera_placement.GRID_EXTENT[0]


def test_zero_views_give_an_empty_list():
    assert sphere_views(0, 0.0, 8) == orbit_views(0, 0.0, 8) == forward_facing_views(0, 8) == []


def test_rays_pass_through_the_pixel_centers():
    view = SyntheticView(look_at_c2w((0.0, -2.0, 0.0), (0.0, 0.0, 0.0)), 2.0, 3, 2)
    ray_directions = view.ray_directions()
    assert ray_directions.shape == (2, 3, 3)
    assert ray_directions[0, 0] * np.sqrt(1 + 1 / 4 + 1 / 16) == pytest.approx([-0.5, 1.0, 0.25])
    assert ray_directions[1, 2] * np.sqrt(1 + 1 / 4 + 1 / 16) == pytest.approx([0.5, 1.0, -0.25])


def test_opengl_matrix_flips_y_and_z():
    view = SyntheticView(look_at_c2w((0.0, -2.0, 1.0), (0.0, 0.0, 0.0)), 2.0, 3, 2)
    matrix = view.opengl_matrix()
    assert matrix[:3, 0].tolist() == view.c2w[:, 0].tolist()
    assert matrix[:3, 1:3].tolist() == (-view.c2w[:, 1:3]).tolist()
    assert matrix[:3, 3].tolist() == view.c2w[:, 3].tolist()
    assert matrix[3].tolist() == [0, 0, 0, 1]
