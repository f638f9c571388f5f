"""Distances on a grid against what they were taken from, and the compiled march against the plain one."""

import pytest
import torch
from torch import Tensor

from lumifield.methods.nlr.distance_grid import DistanceGrid, sample_on_grid
from lumifield.methods.nlr.sphere_tracing import RaySegments, sphere_trace_forward

CPU = torch.device("cpu")


def slope(points: Tensor) -> Tensor:
    return points @ torch.tensor([0.3, -0.2, 0.5]) + 0.1


def sphere(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.5


def rays_across(generator: torch.Generator, n: int = 500) -> RaySegments:
    origins = torch.randn(n, 3, generator=generator)
    aims = torch.rand(n, 3, generator=generator) * 1.6 - 0.8
    directions = torch.nn.functional.normalize(aims - origins, dim=-1)
    return RaySegments(origins, directions, torch.zeros(n), torch.full((n,), 5.0)).within_ball(torch.zeros(3), 1.0)


def test_values_lie_linearly_between_points(generator):
    line = torch.linspace(-1, 1, 7)
    corners = torch.stack(torch.meshgrid(line, line, line, indexing="ij")[::-1], -1)
    grid = DistanceGrid(slope(corners.view(-1, 3)).view(7, 7, 7))
    points = torch.rand(200, 3, generator=generator) * 2 - 1
    torch.testing.assert_close(grid(points), slope(points))
    torch.testing.assert_close((grid + 0.25)(points), slope(points) + 0.25)
    assert grid.cell == pytest.approx(1 / 3)
    assert grid(points[:0]).shape == (0,)


@pytest.mark.parametrize("steps", [1, 3, 40])
@pytest.mark.parametrize("threshold", [5e-5, 0.02])
def test_the_compiled_march_is_the_plain_one(steps, threshold, generator):
    grid, rays = DistanceGrid(sample_on_grid(sphere, 24, CPU)), rays_across(generator)
    outside, front, met = sphere_trace_forward(grid, rays, steps, threshold)
    expected = sphere_trace_forward(lambda points: grid(points), rays, steps, threshold)
    clear = (grid(rays.at(front)) - threshold).abs() > 1e-6  # beside it rounding may decide
    assert clear.sum() > 300
    assert torch.equal(met[clear], expected[2][clear])
    torch.testing.assert_close(outside[clear], expected[0][clear], rtol=0, atol=1e-4)
    torch.testing.assert_close(front[clear], expected[1][clear], rtol=0, atol=1e-4)
    if steps == 40:
        assert 100 < met.sum() < len(met)


def test_rays_without_a_point_stay_where_they_are():
    grid = DistanceGrid(sample_on_grid(sphere, 8, CPU))
    axis = torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3)
    rays = RaySegments(2 * axis, axis, torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 2.0]))
    outside, front, met = sphere_trace_forward(grid, rays, 10, 1e-3)
    assert torch.equal(outside, rays.near)
    assert torch.equal(front, rays.near)
    assert not met.any()
    none = rays[torch.zeros(0, dtype=torch.int64)]
    assert [len(found) for found in sphere_trace_forward(grid, none, 10, 1e-3)] == [0, 0, 0]


def test_numbers_without_a_meaning_end_the_march():
    grid = DistanceGrid(torch.full((4, 4, 4), float("nan")))
    ray = RaySegments(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1), torch.ones(1))
    assert not sphere_trace_forward(grid, ray, 5, 1e-3)[2].any()
