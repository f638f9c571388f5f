import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumifield.errors import DataError
from lumifield.geometry.poses import (
    average_pose,
    estimate_up,
    focus_point,
    look_at,
    mean_camera_up,
    opengl_to_opencv,
    orthogonal_vector,
    pose_error,
    se3_retract,
    validate_number,
    validate_pose,
)

UP = torch.tensor([0.0, 0.0, 1.0])


def ring(angles, *, center=(0.0, 0.0, 0.0), height=1.0) -> torch.Tensor:
    a = torch.as_tensor(angles, dtype=torch.float32)
    offsets = torch.stack([3 * a.cos(), 3 * a.sin(), torch.full_like(a, height)], -1)
    return look_at(offsets + torch.tensor(center), -offsets, UP)


def is_rotation(matrices: torch.Tensor) -> bool:
    eye = torch.eye(3).expand_as(matrices)
    square = torch.allclose(matrices.transpose(-1, -2) @ matrices, eye, atol=1e-5)
    return square and torch.allclose(torch.linalg.det(matrices), torch.ones(len(matrices)), atol=1e-5)


coordinate = st.floats(-10, 10, width=32)


@settings(deadline=None, max_examples=50)
@given(coordinate, coordinate, coordinate)
def test_looking_gives_rotations_that_look_there(x, y, z):
    forward = torch.tensor([[x, y, z]])
    if float(forward.norm()) < 1e-3:
        return
    pose = look_at(torch.ones(1, 3), forward, UP)
    assert is_rotation(pose[:, :, :3])
    torch.testing.assert_close(pose[:, :, 2], forward / forward.norm(), atol=1e-5, rtol=0)
    # Down in the image is down in the world.
    assert float(pose[0, :, 1] @ UP) <= 1e-5


@pytest.mark.parametrize("direction", [[0.0, 0.0, 1.0], [0.0, 0.0, -2.0], [1.0, 0.0, 0.0], [0.3, -0.2, 9.0]])
def test_any_normal_is_a_unit_vector_at_right_angles(direction):
    direction = torch.tensor(direction)
    normal = orthogonal_vector(direction)
    assert float(normal @ direction) == pytest.approx(0, abs=1e-5)
    assert float(normal.norm()) == pytest.approx(1)


def test_the_focus_of_a_ring_is_its_middle():
    c2w = ring(np.linspace(0, 5, 7), center=(4.0, -2.0, 1.0))
    torch.testing.assert_close(focus_point(c2w), torch.tensor([4.0, -2.0, 1.0]), atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_no_nearby_point_is_nearer_to_the_axes_than_the_focus(seed):
    draw = torch.Generator().manual_seed(seed)
    c2w = look_at(torch.randn(5, 3, generator=draw) * 3, torch.randn(5, 3, generator=draw), UP)

    def off_axes(point):
        away = point - c2w[:, :, 3]
        along = (away * c2w[:, :, 2]).sum(-1, keepdim=True) * c2w[:, :, 2]
        return float((away - along).square().sum())

    focus = focus_point(c2w)
    se3_retract = [off_axes(focus + 0.1 * torch.randn(3, generator=draw)) for _ in range(10)]
    assert off_axes(focus) <= min(se3_retract) + 1e-4


def test_parallel_axes_focus_beside_the_mean_camera():
    positions = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.5]])
    c2w = look_at(positions, torch.tensor([[0.0, 1.0, 0.0]] * 2), UP)
    torch.testing.assert_close(focus_point(c2w), positions.mean(0), atol=1e-5, rtol=0)


def test_the_average_of_one_pose_is_itself():
    c2w = ring([0.3])
    torch.testing.assert_close(average_pose(c2w), c2w[0], atol=1e-5, rtol=0)


def test_the_average_of_poses_that_cancel_is_still_a_pose():
    c2w = ring([0.0, math.pi], height=0.0)
    assert is_rotation(average_pose(c2w)[None, :, :3])


def test_up_is_level_where_cameras_stand_unevenly_round_the_scene():
    c2w = ring([0.0, 0.1, 0.2, 0.3, 1.5, 1.7, 3.1], height=3.0)
    torch.testing.assert_close(estimate_up(c2w), UP, atol=1e-5, rtol=0)
    assert float(mean_camera_up(c2w) @ UP) < 0.99


def test_up_is_the_mean_up_where_all_look_to_one_side():
    c2w = ring([0.0, 0.1, 0.2])
    torch.testing.assert_close(estimate_up(c2w), mean_camera_up(c2w))


def test_opengl_axes_are_flipped():
    assert opengl_to_opencv(torch.eye(3, 4)[None]).tolist() == [[[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0]]]


TWISTS = st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6).map(torch.tensor)


@given(TWISTS)
def test_a_move_turns_and_shifts_in_the_axes_of_the_camera(twist):
    start = ring([0.7])[0]
    pose = se3_retract(start, twist)
    angle = float(twist[:3].norm())
    torch.testing.assert_close(pose[:, 3], start[:, 3] + start[:, :3] @ twist[3:])
    torch.testing.assert_close(pose[:, :3].T @ pose[:, :3], torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(pose[:, :3] @ twist[:3], start[:, :3] @ twist[:3], atol=1e-5, rtol=0)
    distance, degrees = pose_error(pose, start)
    assert float(distance) == pytest.approx(float(twist[3:].norm()), abs=1e-5)
    assert float(degrees) == pytest.approx(math.degrees(min(angle, 2 * math.pi - angle)), abs=1e-2)


def test_a_turn_about_the_downward_axis_looks_to_the_right():
    quarter = se3_retract(torch.eye(3, 4), torch.tensor([0.0, math.pi / 2, 0.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(quarter[:, 2], torch.tensor([1.0, 0.0, 0.0]))


def test_how_far_apart_poses_are():
    none = pose_error(torch.zeros(0, 3, 4), torch.zeros(0, 3, 4))
    assert [part.shape for part in none] == [(0,), (0,)]
    here = ring([0.0, 1.0])
    about = torch.tensor([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    there = torch.cat([here[..., :3] @ about, here[..., 3:] + torch.tensor([3.0, 4.0, 0.0])[:, None]], -1)
    distance, degrees = pose_error(here, there)
    torch.testing.assert_close(distance, torch.tensor([5.0, 5.0]))
    torch.testing.assert_close(degrees, torch.tensor([180.0, 180.0]), atol=0.05, rtol=0)


def test_checked_pose_takes_both_shapes():
    assert validate_pose(np.eye(4).tolist(), "a", "pose").shape == (3, 4)
    assert validate_pose(np.eye(4)[:3], "a", "pose").dtype == torch.float64


@pytest.mark.parametrize("value", [None, "1", True, float("nan"), float("inf"), [1]])
def test_checked_number_refuses(value):
    with pytest.raises(DataError, match=r"^a\.json: f: found .*"):
        validate_number(value, "a.json", "f")


def test_checked_number_refuses_zero_where_it_has_to_be_positive():
    assert validate_number(0, "a.json", "f") == 0.0
    with pytest.raises(DataError, match="f: found 0"):
        validate_number(0, "a.json", "f", positive=True)
