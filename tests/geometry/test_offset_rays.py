"""Rays through parts of pixels."""

import pytest
import torch

from lumifield.geometry.cameras import Cameras, pinhole_cameras
from lumifield.geometry.rays import image_rays, offset_rays


def lens(distortion: float = 0.0) -> Cameras:
    """A camera that stands aside and looks askew."""
    turn = torch.linalg.qr(torch.tensor([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.4], [0.2, -0.1, 1.0]]))[0]
    cameras = pinhole_cameras(torch.cat([turn, torch.tensor([[1.0], [2.0], [3.0]])], -1)[None], 30.0, (24, 16))
    cameras.distortion[:, 0] = distortion
    return cameras


@pytest.mark.parametrize("distortion", [0.0, 0.05])
@pytest.mark.parametrize("step", [(0.25, -0.25), (-0.5, 0.5), (0.0, 0.0)])
def test_moved_rays_are_those_of_a_moved_camera(step: tuple[float, float], distortion: float):
    cameras, (near, far) = lens(distortion), torch.tensor([[0.5], [4.0]])
    rays = offset_rays(image_rays(cameras, 0, near, far), (16, 24), step)
    truth = image_rays(cameras.offset_pixels(step), 0, near, far)
    pixel = 1 / 30
    inner = torch.zeros(16, 24, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    error = (rays.directions - truth.directions).norm(dim=-1)
    assert float(error[inner.view(-1)].max()) < 0.03 * pixel
    assert float(error.max()) < 0.1 * pixel
    assert torch.equal(rays.origins, truth.origins)
    place = truth.place + torch.tensor(step) / cameras.size[0]
    assert torch.allclose(rays.place, place, atol=1e-6)


def test_an_image_of_one_pixel_stays():
    cameras = pinhole_cameras(torch.eye(4)[None, :3], 3.0, (1, 1))
    rays = image_rays(cameras, 0, torch.zeros(1), torch.ones(1))
    assert torch.equal(offset_rays(rays, (1, 1), (0.5, 0.5)).directions, rays.directions)
