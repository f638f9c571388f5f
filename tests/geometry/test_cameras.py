import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumifield.geometry.cameras import Cameras, distort, pinhole_cameras, undistort
from lumifield.geometry.poses import look_at

# A phone, a barrel-shaped and a cushion-shaped lens, and tangential terms alone.
LENSES = [
    (0.058, -0.081, -0.00098, 0.00016),
    (-0.25, 0.06, 0.001, -0.0005),
    (0.2, 0.1, 0.0, 0.0),
    (0.0, 0.0, 0.01, -0.01),
]


def some_cameras(n: int = 3, lens: tuple[float, ...] = (0.0,) * 4) -> Cameras:
    draw = torch.Generator().manual_seed(0)
    positions = torch.randn(n, 3, generator=draw) * 2
    c2w = look_at(positions, torch.randn(n, 3, generator=draw), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras(
        c2w=c2w,
        focal=torch.tensor([[300.0, 310.0]]).repeat(n, 1) + torch.arange(n)[:, None] * 20,
        center=torch.tensor([[150.0, 110.0]]).repeat(n, 1) + torch.arange(n)[:, None],
        size=torch.tensor([[320, 240]]).repeat(n, 1),
        distortion=torch.tensor([lens]).repeat(n, 1),
    )


@pytest.mark.parametrize("lens", [(0.0,) * 4, *LENSES])
def test_projecting_along_a_direction_returns_its_pixel(lens):
    cameras = some_cameras(3, lens)
    draw = torch.Generator().manual_seed(1)
    camera = torch.arange(3).repeat_interleave(40)
    xy = torch.rand(120, 2, generator=draw) * torch.tensor([320.0, 240.0])
    points = cameras.positions[camera] + 2.5 * cameras.directions(camera, xy[:, 0], xy[:, 1])
    seen, depth = cameras.project(points)
    rows = torch.arange(120)
    torch.testing.assert_close(seen[camera, rows], xy, atol=5e-3, rtol=0)
    # Directions have length one along the optical axis, so t is the depth.
    torch.testing.assert_close(depth[camera, rows], torch.full((120,), 2.5), atol=1e-4, rtol=0)


def test_the_middle_of_the_image_looks_forward():
    cameras = pinhole_cameras(some_cameras(4).c2w, 200.0, (64, 48))
    middle = cameras.directions(torch.arange(4), torch.full((4,), 32.0), torch.full((4,), 24.0))
    torch.testing.assert_close(middle, cameras.forward)


def test_axes_are_right_and_down():
    camera = pinhole_cameras(torch.eye(3, 4)[None], 100.0, (64, 48))
    direction = camera.directions(torch.tensor([0]), torch.tensor([64.0]), torch.tensor([48.0]))
    torch.testing.assert_close(direction, torch.tensor([[0.32, 0.24, 1.0]]))


@pytest.mark.parametrize("lens", LENSES)
@settings(deadline=None, max_examples=30)
@given(x=st.floats(-0.6, 0.6), y=st.floats(-0.6, 0.6))
def test_undistort_inverts_distort(lens, x, y):
    point, k = torch.tensor([[x, y]]), torch.tensor([lens])
    torch.testing.assert_close(undistort(distort(point, k), k), point, atol=2e-6, rtol=0)


def test_undistort_reaches_the_corners_of_a_wide_image():
    corner, k = torch.tensor([[0.75, 0.75]]), torch.tensor([[0.2, 0.1, 0.0, 0.0]])
    torch.testing.assert_close(undistort(distort(corner, k), k), corner, atol=1e-5, rtol=0)


def test_distortion_of_one_point_by_hand():
    # r2 = 0.05: radial 1 + 0.05 * 0.1 + 0.0025 * 0.2 = 1.0055.
    got = distort(torch.tensor([[0.1, 0.2]]), torch.tensor([[0.1, 0.2, 0.01, 0.02]]))
    expected = [0.1 * 1.0055 + 2 * 0.01 * 0.02 + 0.02 * 0.07, 0.2 * 1.0055 + 0.01 * 0.13 + 2 * 0.02 * 0.02]
    torch.testing.assert_close(got, torch.tensor([expected]))


def test_points_behind_a_camera_have_negative_depth():
    camera = pinhole_cameras(torch.eye(3, 4)[None], 100.0, (64, 48))
    _, depth = camera.project(torch.tensor([[0.0, 0.0, -3.0], [0.0, 0.0, 0.0]]))
    assert depth.tolist() == [[-3.0, 0.0]]


def test_a_point_in_the_camera_projects_to_finite_pixels():
    seen, _ = pinhole_cameras(torch.eye(3, 4)[None], 100.0, (64, 48)).project(torch.zeros(1, 3))
    assert bool(seen.isfinite().all())


def test_resized_keeps_directions():
    cameras = some_cameras()
    small = cameras.resized(0.5)
    assert small.size.tolist() == [[160, 120]] * 3
    first = torch.tensor([0])
    whole = cameras.directions(first, torch.tensor([100.0]), torch.tensor([60.0]))
    torch.testing.assert_close(small.directions(first, torch.tensor([50.0]), torch.tensor([30.0])), whole)


def test_resized_to_an_uneven_size_keeps_the_angle_of_view():
    small = pinhole_cameras(torch.eye(3, 4)[None], 100.0, (101, 51)).resized(1 / 2)
    width, height = small.size[0].tolist()
    assert (width, height) == (50, 26)
    angle = 2 * math.atan(50.5 / 100)
    assert 2 * math.atan(0.5 * width / float(small.focal[0, 0])) == pytest.approx(angle, rel=1e-6)


def test_rows_and_no_rows():
    cameras = some_cameras(3)
    assert len(cameras[[2, 0]]) == 2
    torch.testing.assert_close(cameras[[2, 0]].positions, cameras.positions[[2, 0]])
    none = torch.zeros(0, dtype=torch.int64)
    assert cameras.directions(none, torch.zeros(0), torch.zeros(0)).shape == (0, 3)
    assert cameras.project(torch.zeros(0, 3))[0].shape == (3, 0, 2)
