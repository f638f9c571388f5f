import pytest
import torch

import made_scenes as made
from lumifield.data.pose_normalization import forward_frame, inward_frame, inward_near


@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_the_inward_frame_of_a_ring(shift):
    c2w = made.ring(7, target=(shift, -shift, 2.0))
    frame = inward_frame(c2w)
    placed = frame.poses_to_scene(c2w)
    torch.testing.assert_close(placed[:, :, 3].norm(dim=-1), torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(frame.rotation.T @ frame.rotation, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(frame.rotation)) == pytest.approx(1)
    # All look at the origin.
    towards = -placed[:, :, 3] / placed[:, :, 3].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(placed[:, :, 2], towards, atol=1e-6, rtol=0)


def test_the_inward_frame_does_not_depend_on_the_world():
    """Turning, moving and scaling the world leaves the scene as it was, up to a turn about the upright axis."""
    c2w = made.ring(7)
    turn = made.ring(5)[2, :, :3]
    moved = torch.cat([turn @ c2w[:, :, :3], 3 * (turn @ c2w[:, :, 3:]) + 2], -1)
    plain, other = (inward_frame(poses).poses_to_scene(poses)[:, :, 3] for poses in (c2w, moved))
    torch.testing.assert_close(plain[:, 2], other[:, 2])
    torch.testing.assert_close(torch.cdist(plain, plain), torch.cdist(other, other))


def test_one_camera_or_cameras_in_one_place_have_a_frame():
    for c2w in (made.ring(1), made.ring(1).repeat(3, 1, 1)):
        placed = inward_frame(c2w).poses_to_scene(c2w)
        assert bool(placed.isfinite().all())


def test_the_forward_frame_is_that_of_the_average_camera():
    c2w = made.row(5)
    frame = forward_frame(c2w, 2.0)
    placed = frame.poses_to_scene(c2w)
    torch.testing.assert_close(placed[:, :, 3].mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(placed[0, :, :3], torch.eye(3, dtype=torch.float64))
    assert float((placed[4, :, 3] - placed[0, :, 3]).norm()) == pytest.approx(
        float((c2w[4, :, 3] - c2w[0, :, 3]).norm()) / 2
    )


def test_near_is_half_the_median_of_the_neighbors():
    """Two wrong points move nothing, a whole part of the capture that comes close does."""
    poses = made.ring(40)
    nearest = torch.full((40,), 0.6, dtype=torch.float64)
    nearest[[7, 8]] = 0.1
    nearest[20:32] = 0.2
    near = inward_near(poses, nearest)
    assert near[:16].tolist() == pytest.approx([0.3] * 16)
    assert near[23:29].tolist() == pytest.approx([0.1] * 6)
    position = poses[:, :, 3]
    for row in range(40):
        order = sorted(range(40), key=lambda other, row=row: float((position[other] - position[row]).norm()))
        assert float(near[row]) == pytest.approx(0.5 * sorted(nearest[order[:9]].tolist())[4])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_near_of_few_photographs(count):
    near = inward_near(made.ring(9)[:count], torch.full((count,), 4.0, dtype=torch.float64))
    assert near.tolist() == [2.0] * count
