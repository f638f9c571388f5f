from dataclasses import replace

import pytest
import torch

from lumifield.data.scene import median_pixel_width, pixel_widths
from lumifield.geometry.contraction import SceneBox, points_along
from lumifield.geometry.rays import Ndc
from scenes import ball

BOX = torch.tensor([[-1.0, -2.0, 0.0], [3.0, 2.0, 8.0]])


def slow_unit(point: list[float], box: list[list[float]], contracted: bool) -> list[float]:
    """One point at a time: mip-NeRF 360's equation 10 with the largest coordinate as the norm."""
    if not contracted:
        return [(p - a) / (b - a) for p, a, b in zip(point, *box, strict=True)]
    centerd = [2 * (p - a) / (b - a) - 1 for p, a, b in zip(point, *box, strict=True)]
    size = max(abs(c) for c in centerd)
    if size > 1:
        centerd = [(2 - 1 / size) * c / size for c in centerd]
    return [c / 4 + 0.5 for c in centerd]


@pytest.mark.parametrize("contracted", [False, True])
def test_unit_is_the_formula(contracted, generator):
    points = torch.randn(50, 3, generator=generator) * 5
    slow = torch.tensor([slow_unit(p, BOX.tolist(), contracted) for p in points.tolist()])
    torch.testing.assert_close(SceneBox(BOX, contracted).to_unit_cube(points), slow)


@pytest.mark.parametrize("contracted", [False, True])
def test_scene_is_the_inverse_of_unit(contracted, generator):
    space = SceneBox(BOX, contracted)
    cube = torch.rand(1000, 3, generator=generator) * 0.98 + 0.01
    torch.testing.assert_close(space.to_unit_cube(space.from_unit_cube(cube)), cube, rtol=0, atol=1e-5)
    points = torch.randn(1000, 3, generator=generator) * 3
    torch.testing.assert_close(space.from_unit_cube(space.to_unit_cube(points)), points, rtol=1e-4, atol=1e-4)


def test_contraction_leaves_the_box_in_the_middle_half_and_takes_in_everything():
    space = SceneBox(BOX, True)
    corners = space.to_unit_cube(BOX)
    torch.testing.assert_close(corners, torch.tensor([[0.25] * 3, [0.75] * 3]))
    far = space.to_unit_cube(torch.tensor([[1e6, -1e6, 1e3], [1e20, 0.0, 0.0]]))
    assert bool(((far >= 0) & (far <= 1)).all())


def test_the_inverse_stays_finite_at_the_border_of_the_cube():
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.5, 0.5]])
    assert bool(SceneBox(BOX, True).from_unit_cube(corners).isfinite().all())


def test_no_points_are_no_points():
    for contracted in (False, True):
        space = SceneBox(BOX, contracted)
        assert space.to_unit_cube(torch.zeros(0, 3)).shape == (0, 3)
        assert space.from_unit_cube(torch.zeros(0, 3)).shape == (0, 3)


def test_the_diameter_is_what_the_unit_cube_spans_near_the_middle():
    middle = BOX.mean(0)
    step = torch.tensor([0.0, 0.0, 0.01])
    for contracted in (False, True):
        space = SceneBox(BOX, contracted)
        moved = float((space.to_unit_cube(middle + step) - space.to_unit_cube(middle))[2])
        assert space.diameter == pytest.approx(0.01 / moved, rel=1e-3)
    assert SceneBox(BOX, True).to("cpu").contracted


@pytest.mark.parametrize("contracted", [False, True])
def test_shrinkage_is_the_cube_root_of_the_volume_of_a_small_cube(contracted, generator):
    space = SceneBox(BOX, contracted)
    points = torch.randn(40, 3, generator=generator) * torch.tensor([1.0, 5.0, 60.0])
    found = space.contraction_scale(points)
    for row, point in enumerate(points.double()):
        exact = SceneBox(BOX.double(), contracted)
        volume = torch.autograd.functional.jacobian(exact.to_unit_cube, point).det().abs()
        assert float(found[row]) == pytest.approx(float(volume ** (1 / 3)), rel=1e-4)
    assert bool(space.contraction_scale(torch.tensor([[1e20, 0.0, 0.0]])).isfinite().all())
    assert space.contraction_scale(torch.zeros(0, 3)).shape == (0,)


def test_the_footprint_is_that_of_most_pixels():
    large, small = ball(3, 32), ball(5, 4)
    parts = ("c2w", "focal", "center", "size", "distortion")
    both = {name: torch.cat([getattr(small.cameras, name), getattr(large.cameras, name)]) for name in parts}
    scene = replace(large, cameras=replace(large.cameras, **both))
    assert median_pixel_width(scene) == pytest.approx(4 / 48)
    torch.testing.assert_close(pixel_widths(scene), torch.tensor([4 / 6] * 5 + [4 / 48] * 3))


def test_the_footprint_is_the_width_of_a_pixel_at_the_middle():
    # Focal length 24 pixels, 4 from the ball's middle.
    assert median_pixel_width(ball(4, 16)) == pytest.approx(4 / 24)
    assert median_pixel_width(ball(4, 32)) == pytest.approx(4 / 48)
    ndc = replace(ball(4, 16), ndc=Ndc((24.0, 24.0), (16, 16)))
    assert median_pixel_width(ndc) == pytest.approx(2 / 16)


def test_points_on_rays():
    rays = ball(1, 2).rays(0)
    found = points_along(rays, torch.tensor([3, 0]), torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(found[0], rays.origins[3] + 2 * rays.directions[3])
    torch.testing.assert_close(found[1], rays.origins[0])
