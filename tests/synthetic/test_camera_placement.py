"""Where the cameras stand."""

from __future__ import annotations

import numpy as np
import pytest

from lumifield.synthetic.camera_placement import SyntheticView, look_at_c2w

EVERY = [*views.sphere(7, 0.4, 32), *views.orbit(5, 0.4, 32), *views.grid(7, 32)]


@pytest.mark.parametrize("view", EVERY)
def test_cameras_are_level_and_right_handed(view: SyntheticView):
    rotation = view.c2w[:, :3]
    assert rotation.T @ rotation == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert rotation[2, 0] == pytest.approx(0, abs=1e-12)
    assert rotation[2, 1] < 0


@pytest.mark.parametrize("view", EVERY[:12])
def test_cameras_about_the_table_look_at_the_origin_from_distance_four(view: SyntheticView):
    assert np.linalg.norm(view.c2w[:, 3]) == pytest.approx(4)
    assert view.c2w[:, 2] * 4 == pytest.approx(-view.c2w[:, 3])
    assert (view.width, view.height) == (32, 32)
    assert 2 * np.arctan(16 / view.focal) == pytest.approx(0.6911112070083618)


def test_heights_are_spread_and_mostly_above():
    heights = np.array([view.c2w[2, 3] for view in views.sphere(60, 0.0, 8)]) / 4
    assert (heights > 0).mean() > 0.85
    assert np.diff(heights) == pytest.approx(1.06 / 60)


def test_the_orbit_rises_and_sinks_twice_between_12_and_47_degrees():
    positions = np.stack([view.c2w[:, 3] for view in views.orbit(40, 0.0, 8)])
    elevation = np.degrees(np.arcsin(positions[:, 2] / 4))
    assert (elevation.min(), elevation.max()) == pytest.approx((12, 47), abs=0.5)
    azimuth = np.unwrap(np.arctan2(positions[:, 1], positions[:, 0]))
    assert np.diff(azimuth) == pytest.approx(2 * np.pi / 40)


def test_the_grid_is_planar_and_its_cameras_are_parallel():
    some = views.grid(12, 40)
    positions = np.stack([view.c2w[:, 3] for view in some])
    forward = some[0].c2w[:, 2]
    assert all((view.c2w[:, :3] == some[0].c2w[:, :3]).all() for view in some)
    assert (positions - positions[0]) @ forward == pytest.approx(0, abs=1e-12)
    assert len(np.unique(positions.round(9), axis=0)) == 12
    assert (some[0].width, some[0].height) == (40, 30)
    assert np.ptp(positions @ some[0].c2w[:, 0]) < views.EXTENT[0]


def test_no_views_are_no_views():
    assert views.sphere(0, 0.0, 8) == views.orbit(0, 0.0, 8) == views.grid(0, 8) == []


def test_rays_pass_through_the_pixel_centers():
    view = SyntheticView(look_at_c2w((0.0, -2.0, 0.0), (0.0, 0.0, 0.0)), 2.0, 3, 2)
    rays = view.rays()
    assert rays.shape == (2, 3, 3)
    assert rays[0, 0] * np.sqrt(1 + 1 / 4 + 1 / 16) == pytest.approx([-0.5, 1.0, 0.25])
    assert rays[1, 2] * np.sqrt(1 + 1 / 4 + 1 / 16) == pytest.approx([0.5, 1.0, -0.25])
