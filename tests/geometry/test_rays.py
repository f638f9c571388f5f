import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.poses import look_at
from lumifield.geometry.rays import Ndc, Rays, camera_rays, distance_from_t, image_rays, warp_rays_to_ndc

NDC = Ndc(focal=(400.0, 400.0), size=(504, 378), plane=1.0)
FLIP = torch.tensor([1.0, -1.0, -1.0])


def one_ray(origin: list[float], direction: list[float]) -> Rays:
    """A ray given in OpenGL axes, as the paper writes them."""
    o, d = torch.tensor([origin]) * FLIP, torch.tensor([direction]) * FLIP
    one = torch.ones(1)
    return Rays(o, d, d / d.norm(), one, one, one, torch.zeros(1, dtype=torch.int64), o[:, :2])


def test_ndc_of_the_worked_example():
    warped = warp_rays_to_ndc(one_ray([0.1, -0.2, 0.3], [0.05, 0.1, -1.0]), NDC)
    torch.testing.assert_close(warped.origins, torch.tensor([[0.261905, -0.148148, -1.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(warped.directions, torch.tensor([[-0.182540, 0.359788, 2.0]]), atol=1e-6, rtol=0)
    assert (float(warped.near), float(warped.far)) == (0.0, 1.0)


def test_ndc_keeps_the_viewing_direction_of_the_scene():
    rays = one_ray([0.1, -0.2, 0.3], [0.05, 0.1, -1.0])
    torch.testing.assert_close(warp_rays_to_ndc(rays, NDC).viewdirs, rays.viewdirs)


def test_ndc_does_not_depend_on_the_length_of_the_direction():
    short, long = (warp_rays_to_ndc(one_ray([0.1, -0.2, 0.3], [0.05 * k, 0.1 * k, -k]), NDC) for k in (0.5, 7.0))
    torch.testing.assert_close(short.origins, long.origins)
    torch.testing.assert_close(short.directions, long.directions)


def test_ndc_does_not_depend_on_the_unit_of_length():
    once = warp_rays_to_ndc(one_ray([0.1, -0.2, 0.3], [0.05, 0.1, -1.0]), NDC)
    larger = Ndc(NDC.focal, NDC.size, plane=3.0)
    thrice = warp_rays_to_ndc(one_ray([0.3, -0.6, 0.9], [0.05, 0.1, -1.0]), larger)
    torch.testing.assert_close(thrice.origins, once.origins)
    torch.testing.assert_close(thrice.directions, once.directions)
    t = torch.tensor([0.7])
    depth = distance_from_t(t, one_ray([0.1, -0.2, 0.3], [0.05, 0.1, -1.0]), NDC)
    torch.testing.assert_close(distance_from_t(t, one_ray([0.3, -0.6, 0.9], [0.05, 0.1, -1.0]), larger), 3 * depth)


coordinate = st.floats(-0.5, 0.5)


@settings(deadline=None, max_examples=40)
@given(coordinate, coordinate, coordinate, coordinate, st.floats(1.5, 40.0))
def test_metric_depth_leads_to_the_point_that_ndc_shows(ox, oy, dx, dy, depth):
    """A scene point on the ray, projected by the definition of NDC, lies at the t whose metric depth leads to it."""
    rays = one_ray([ox, oy, 0.1], [dx, dy, -1.0])
    unit = Rays(rays.origins, rays.viewdirs, rays.viewdirs, rays.radius, rays.near, rays.far, rays.image, rays.place)
    point = (unit.origins + depth * unit.directions) * FLIP
    x, y, z = point[0].tolist()
    ax, ay = 2 * 400 / 504, 2 * 400 / 378
    shown = torch.tensor([-ax * x / z, -ay * y / z, 1 + 2 / z])
    warped = warp_rays_to_ndc(unit, NDC)
    t = (shown[2] - warped.origins[:, 2]) / warped.directions[:, 2]
    torch.testing.assert_close((warped.origins + t * warped.directions)[0], shown, atol=1e-4, rtol=1e-4)
    assert float(distance_from_t(t, unit, NDC)) == pytest.approx(depth, rel=1e-3)


def test_metric_depth_of_infinity_is_finite_and_far():
    rays = one_ray([0.0, 0.0, 0.0], [0.0, 0.0, -1.0])
    depth = distance_from_t(torch.ones(1), rays, NDC)
    assert torch.isfinite(depth).all()
    assert float(depth) > 1e5


def test_metric_depth_without_ndc_is_t():
    rays = one_ray([0.0, 0.0, 0.0], [0.0, 0.0, -1.0])
    assert distance_from_t(torch.tensor([2.5]), rays, None).tolist() == [2.5]


def cameras():
    positions = torch.tensor([[0.0, -4.0, 1.0], [3.0, 0.0, 2.0]])
    return pinhole_cameras(look_at(positions, -positions, torch.tensor([0.0, 0.0, 1.0])), 50.0, (6, 4))


def test_rays_pass_through_pixel_centers():
    near, far = torch.tensor([2.0, 2.5]), torch.tensor([6.0, 6.5])
    camera, pixel = torch.tensor([1, 0, 1]), torch.tensor([[0, 0], [5, 3], [2, 1]])
    rays = camera_rays(cameras(), camera, pixel, near, far)
    seen, _ = cameras().project(rays.origins + 3 * rays.directions)
    torch.testing.assert_close(seen[camera, torch.arange(3)], pixel + 0.5, atol=1e-4, rtol=0)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(3))
    assert rays.near.tolist() == [2.5, 2.0, 2.5]
    assert rays.far.tolist() == [6.5, 6.0, 6.5]
    assert rays.image.tolist() == [1, 0, 1]


def test_bounds_may_be_depths_along_the_optical_axis():
    near, far = torch.tensor([2.0, 2.5]), torch.tensor([6.0, 6.5])
    rays = image_rays(cameras(), 1, near, far, bounds_are_z_depth=True)
    for bound, depth in ((rays.near, 2.5), (rays.far, 6.5)):
        _, found = cameras().project(rays.origins + bound[:, None] * rays.directions)
        torch.testing.assert_close(found[1], torch.full((24,), depth), rtol=1e-5, atol=0)
    assert float(rays.far.max()) > 6.51


def test_radius_is_the_distance_between_neighboring_pixels_at_the_depth_of_one():
    rays = image_rays(cameras(), 0, torch.ones(2), torch.ones(2))
    at_one = (rays.origins + rays.directions).reshape(4, 6, 3)
    apart = (at_one[2, 3] - at_one[2, 2]).norm()
    assert float(rays.radius.reshape(4, 6)[2, 2]) == pytest.approx(float(apart), rel=5e-3)


def test_radius_in_ndc_is_the_distance_between_neighboring_pixels_at_the_near_plane():
    camera = pinhole_cameras(torch.eye(3, 4)[None], 50.0, (6, 4))
    rays = image_rays(camera, 0, torch.zeros(1), torch.ones(1), Ndc((50.0, 50.0), (6, 4)))
    origins = rays.origins.reshape(4, 6, 3)
    across, down = (float((origins[at] - origins[0, 0]).norm()) for at in ((0, 1), (1, 0)))
    torch.testing.assert_close(rays.radius, torch.full((24,), 0.5 * (across + down)), rtol=1e-4, atol=0)


def test_radius_in_ndc_grows_with_the_pixels_that_are_rendered():
    ndc, near, far = Ndc((50.0, 50.0), (6, 4)), torch.zeros(1), torch.ones(1)
    c2w = torch.eye(3, 4)[None].clone()
    c2w[0, :, 3] = torch.tensor([0.2, -0.1, -0.3])
    fine, coarse = (
        image_rays(pinhole_cameras(c2w, f, s), 0, near, far, ndc) for f, s in ((50.0, (6, 4)), (25.0, (3, 2)))
    )
    for rays, width in ((fine, 6), (coarse, 3)):
        apart = [float((rays.origins[at] - rays.origins[0]).norm()) for at in (1, width)]
        assert float(rays.radius[0]) == pytest.approx(0.5 * sum(apart), rel=1e-4)
    assert float(coarse.radius[0] / fine.radius[0]) == pytest.approx(2, rel=1e-3)


def test_rays_of_an_image_run_row_by_row():
    near, far = torch.ones(2), torch.full((2,), 9.0)
    whole = image_rays(cameras(), 1, near, far)
    assert len(whole) == 24
    single = camera_rays(cameras(), torch.tensor([1]), torch.tensor([[2, 3]]), near, far)
    torch.testing.assert_close(whole[3 * 6 + 2 : 3 * 6 + 3].directions, single.directions)


def test_no_rays():
    none = torch.zeros(0, dtype=torch.int64)
    rays = camera_rays(cameras(), none, torch.zeros(0, 2, dtype=torch.int64), torch.ones(2), torch.ones(2), NDC)
    assert len(rays) == 0
    assert distance_from_t(torch.zeros(0), rays, NDC).shape == (0,)
