from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analytic import CPU, Room, around, scene_of
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.poses import pose_error, se3_retract
from lumifield.localization.alignment import (
    CAUCHY,
    GAIN_RANGE,
    ImageLevel,
    SurfacePoints,
    align_pose,
    cauchy_weights,
    correlation,
    fit_gain_and_offset,
    project_points,
    projection_jacobian,
)
from lumifield.rendering.view import render_view

DISTORTED = torch.tensor([[0.1, -0.05, 0.01, -0.02]])
TWIST = torch.tensor([0.03, -0.02, 0.04, 0.05, -0.06, 0.03])


def photographed(lens=None, *, scale=1.0):
    """The level of an image of the room, and the matter that it shows, at its true pose; lengths times `scale`."""
    lens = around(1, (40, 30), 1.0) if lens is None else lens
    scene = scene_of(lens)
    view = render_view(Room(), scene, 0, device=CPU)
    rays = scene.rays(0)
    points = rays.origins + view.depth.view(-1, 1) * rays.directions
    c2w = lens.c2w[0] * torch.tensor([1.0, 1.0, 1.0, scale])
    return ImageLevel.of(lens, view.rgb, 1.0), SurfacePoints(points * scale, view.rgb.view(-1, 3)), c2w


def local_points(n=7):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, generator=generator) * torch.tensor([1.0, 1.0, 2.0]) + torch.tensor([-0.5, -0.5, 1.0])


def test_motion_is_that_of_points_before_a_camera_that_moves():
    points = local_points()
    camera = replace(pinhole_cameras(torch.eye(3, 4)[None], (50.0, 40.0), (40, 30)), distortion=DISTORTED)
    found = projection_jacobian(camera, points)
    for axis in range(6):
        twist = torch.zeros(6)
        twist[axis] = 1e-3
        ahead, behind = (replace(camera, c2w=se3_retract(camera.c2w[0], way)[None]) for way in (twist, -twist))
        difference = (ahead.project(points)[0][0] - behind.project(points)[0][0]) / 2e-3
        torch.testing.assert_close(found[..., axis], difference, atol=2e-2, rtol=1e-3)


def test_slopes_are_the_change_from_pixel_to_pixel():
    x, y = torch.meshgrid(torch.arange(8.0), torch.arange(6.0), indexing="xy")
    rgb = torch.stack([0.1 * x, 0.05 * y, 0.02 * x - 0.03 * y], -1)
    across, down = ImageLevel.of(around(1, (8, 6)), rgb, 1.0).gradients.split(3)
    torch.testing.assert_close(across, torch.tensor([0.1, 0.0, 0.02]).view(3, 1, 1).expand(3, 6, 8))
    torch.testing.assert_close(down, torch.tensor([0.0, 0.05, -0.03]).view(3, 1, 1).expand(3, 6, 8))


def test_a_smaller_level_has_a_smaller_camera_and_the_same_angle_of_view():
    level = ImageLevel.of(around(1, (40, 30)), torch.full((30, 40, 3), 0.3), 0.5)
    assert level.rgb.shape == (3, 15, 20)
    torch.testing.assert_close(level.rgb, torch.full((3, 15, 20), 0.3))
    assert level.camera.focal.tolist() == [[20.0, 20.0]]
    assert level.camera.size.tolist() == [[20, 15]]


def test_the_light_is_the_least_squares_fit_of_each_channel():
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(50, 3, generator=generator)
    own = 0.5 + 0.05 * seen + 0.01 * torch.rand(50, 3, generator=generator)
    own = own + 0.5 * seen * torch.tensor([1.0, 0.5, 2.0])
    gain, offset = fit_gain_and_offset(seen, own, torch.ones(50, dtype=torch.bool))
    for channel in range(3):
        table = torch.stack([seen[:, channel], torch.ones(50)], -1)
        best = torch.linalg.lstsq(table, own[:, channel]).solution
        torch.testing.assert_close(torch.stack([gain[channel], offset[channel]]), best, atol=1e-5, rtol=1e-5)


def test_the_light_hardly_heeds_what_stands_before_the_scene():
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(200, 3, generator=generator)
    own = 0.8 * seen + 0.1
    hidden = torch.arange(200) < 20
    gain, _ = fit_gain_and_offset(torch.where(hidden[:, None], 1 - seen, seen), own, torch.ones(200, dtype=torch.bool))
    plain, _ = fit_gain_and_offset(seen, own, ~hidden)
    torch.testing.assert_close(plain, torch.full((3,), 0.8), atol=1e-5, rtol=1e-5)
    assert bool(((gain - 0.8).abs() < 0.06).all())


def test_no_gain_turns_an_image_into_its_negative():
    seen = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    gain, _ = fit_gain_and_offset(seen, 1 - seen, torch.ones(50, dtype=torch.bool))
    assert gain.tolist() == pytest.approx([GAIN_RANGE[0]] * 3)


def test_trust_is_the_slope_of_the_cost_over_the_error():
    level, occupied_centers, truth = photographed()
    now = project_points(occupied_centers, level, se3_retract(truth, TWIST))
    free = now.error.detach().requires_grad_()
    cost = 0.5 * CAUCHY**2 * torch.log1p((free[now.within] / CAUCHY) ** 2).mean()
    assert now.cost == pytest.approx(float(cost.detach()), rel=1e-5)
    cost.backward()
    count = 3 * int(now.within.sum())
    torch.testing.assert_close(cauchy_weights(now.error) * now.error * now.within[:, None] / count, free.grad)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("distorted", [False, True])
def test_alignment_finds_the_true_pose_in_another_light(scale, distorted):
    lens = around(1, (40, 30), 1.0)
    lens = replace(lens, distortion=DISTORTED) if distorted else lens
    level, occupied_centers, truth = photographed(lens, scale=scale)
    level = replace(level, rgb=0.7 * level.rgb + 0.1, gradients=0.7 * level.gradients)
    start = se3_retract(truth, TWIST * torch.tensor([1.0, 1.0, 1.0, scale, scale, scale]))
    found = align_pose(occupied_centers, level, start)
    distance, degrees = pose_error(found.c2w, truth)
    assert float(distance) < 2e-3 * scale
    assert float(degrees) < 0.1
    assert correlation(found.rgb[found.within], occupied_centers.rgb[found.within]) > 0.999


def test_alignment_looks_past_what_the_rendering_does_not_have():
    level, occupied_centers, truth = photographed()
    before = level.rgb.clone()
    before[:, 10:20, 5:15] = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
    down, across = torch.gradient(before, dim=(1, 2))
    found = align_pose(
        occupied_centers,
        replace(level, rgb=before, gradients=torch.cat([across, down])),
        se3_retract(truth, 0.5 * TWIST),
    )
    distance, degrees = pose_error(found.c2w, truth)
    assert float(distance) < 0.02
    assert float(degrees) < 0.5


@settings(max_examples=20)
@given(st.lists(st.floats(-0.05, 0.05), min_size=6, max_size=6))
def test_alignment_never_ends_at_a_higher_cost(twist):
    level, occupied_centers, truth = photographed()
    start = se3_retract(truth, torch.tensor(twist))
    assert align_pose(occupied_centers, level, start).cost <= project_points(occupied_centers, level, start).cost


def test_a_pose_that_sees_nothing_stays_as_it_is():
    level, occupied_centers, truth = photographed()
    away = se3_retract(truth, torch.tensor([0.0, 3.1, 0.0, 0.0, 0.0, 0.0]))
    found = align_pose(occupied_centers, level, away)
    assert found.cost == torch.inf
    torch.testing.assert_close(found.c2w, away)


def test_no_matter_leaves_the_pose_as_it_is():
    level, _, truth = photographed()
    found = align_pose(SurfacePoints(torch.zeros(0, 3), torch.zeros(0, 3)), level, truth)
    torch.testing.assert_close(found.c2w, truth)
    assert correlation(found.rgb, torch.zeros(0, 3)) == 0.0


def test_an_image_of_one_color_moves_nothing():
    level, occupied_centers, truth = photographed()
    plain = replace(level, rgb=level.rgb * 0 + 0.5, gradients=level.gradients * 0)
    torch.testing.assert_close(align_pose(occupied_centers, plain, truth).c2w, truth)


def test_correlation_is_the_correlation_about_the_mean_of_each_channel():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 20, 3, generator=generator)
    centerd = [(x - x.mean(0)).flatten() for x in (a, b)]
    expected = torch.nn.functional.cosine_similarity(*centerd, dim=0)
    assert correlation(a, b) == pytest.approx(float(expected), abs=1e-6)
    assert correlation(a, 0.5 * a + torch.tensor([0.1, 0.2, 0.3])) == pytest.approx(1, abs=1e-5)
    assert correlation(a, torch.ones(20, 3)) == pytest.approx(0, abs=1e-3)
