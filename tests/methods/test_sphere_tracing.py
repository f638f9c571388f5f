"""Rays against surfaces that are known in closed form, and against a march in tiny steps."""

import math

import pytest
import torch
from torch import Tensor

from lumifield.methods.nlr.distance_grid import DistanceGrid, sample_on_grid
from lumifield.methods.nlr.sphere_tracing import (
    RaySegments,
    TracingSettings,
    closest_approach,
    hit_points,
    sphere_trace,
    sphere_trace_guided,
)

TRACING = TracingSettings()


def sphere(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.5


def torus(points: Tensor) -> Tensor:
    ring = points[:, :2].norm(dim=-1) - 0.5
    return torch.stack([ring, points[:, 2]], -1).norm(dim=-1) - 0.2


def box(points: Tensor) -> Tensor:
    beyond = points.abs() - torch.tensor([0.3, 0.4, 0.5])
    return beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)


def bumpy(points: Tensor) -> Tensor:
    """No true distance: too large by a fifth on some slopes."""
    return sphere(points) + 0.04 * torch.sin(8 * points).prod(-1)


SHAPES = {"sphere": sphere, "torus": torus, "box": box, "bumpy": bumpy}


def rays_towards(generator: torch.Generator, n: int = 300, distance: float = 2.0) -> RaySegments:
    """Rays from points about the unit ball to points within it."""
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * distance
    aims = torch.rand(n, 3, generator=generator) * 1.4 - 0.7
    directions = torch.nn.functional.normalize(aims - origins, dim=-1)
    rays = RaySegments(origins, directions, torch.zeros(n), torch.full((n,), 2 * distance))
    rays = rays.within_ball(torch.zeros(3), 1.0)
    return rays[rays.near < rays.far]


def one_ray(origin: tuple[float, ...], direction: tuple[float, ...]) -> RaySegments:
    return RaySegments(torch.tensor([origin]), torch.tensor([direction]), torch.zeros(1), torch.full((1,), 2.0))


def marched(distance, rays: RaySegments) -> tuple[Tensor, Tensor, Tensor]:
    """t where each ray enters, whether it does, and its least distance, in 4,000 steps and by bisection."""
    t = rays.near[:, None] + torch.linspace(0, 1, 4000) * (rays.far - rays.near)[:, None]
    values = distance((rays.origins[:, None] + t[..., None] * rays.directions[:, None]).view(-1, 3)).view_as(t)
    index = (values <= 0).int().argmax(-1, keepdim=True)
    low, high = t.gather(1, (index - 1).clamp_min(0))[:, 0], t.gather(1, index)[:, 0]
    for _ in range(30):
        middle = (low + high) / 2
        within = distance(rays.at(middle)) <= 0
        low, high = torch.where(within, low, middle), torch.where(within, middle, high)
    return high, (values <= 0).any(-1), values.amin(-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_stop_where_a_march_in_tiny_steps_stops(shape, generator):
    distance, rays = SHAPES[shape], rays_towards(generator)
    t, hit = sphere_trace(distance, rays, TRACING)
    expected, met, least = marched(distance, rays)
    clear = least.abs() > 2e-3  # rays that only touch the surface may go either way
    assert clear.sum() > 250
    assert torch.equal(hit[clear], met[clear])
    both = hit & met & clear
    assert 50 < both.sum() < 300
    assert (distance(rays[both].at(t[both])).abs() < 1e-4).all()
    torch.testing.assert_close(t[both], expected[both], rtol=0, atol=1e-3)
    assert torch.equal(t[~hit], rays.far[~hit])


def test_a_sphere_is_hit_where_the_formula_says(generator):
    rays = rays_towards(generator)
    t, hit = sphere_trace(sphere, rays, TRACING)
    b = (rays.origins * rays.directions).sum(-1)
    inner = b**2 - (rays.origins**2).sum(-1) + 0.25
    clear = inner.abs() > 1e-3
    assert torch.equal(hit[clear], inner[clear] > 0)
    both = hit & clear
    torch.testing.assert_close(t[both], (-b - inner.clamp_min(0).sqrt())[both], rtol=0, atol=2e-3)


@pytest.mark.parametrize("factor", [0.2, 1.9])
def test_distances_that_are_too_short_or_too_long_still_lead_to_the_surface(factor, generator):
    rays = rays_towards(generator)
    t, hit = sphere_trace(lambda points: factor * box(points), rays, TRACING)
    expected, met, least = marched(box, rays)
    thick = least.abs() > 0.05
    # Steps that are too long may jump over a corner.
    assert (hit == met)[thick].float().mean() > (0.95 if factor > 1 else 0.999)
    both = hit & met & thick
    assert box(rays[both].at(t[both])).abs().max() < 5e-3
    assert ((t - expected)[both].abs() < 1e-3).float().mean() > 0.95


def test_the_order_of_the_rays_does_not_count(generator):
    rays = rays_towards(generator)
    order = torch.randperm(len(rays), generator=generator)
    t, hit = sphere_trace(torus, rays, TRACING)
    mixed, mixed_hit = sphere_trace(torus, rays[order], TRACING)
    assert torch.equal(mixed, t[order])
    assert torch.equal(mixed_hit, hit[order])


def test_fewer_points_are_asked_for_than_without_leaving_out_decided_rays(generator):
    asked = 0

    def counted(points: Tensor) -> Tensor:
        nonlocal asked
        asked += len(points)
        return sphere(points)

    rays = rays_towards(generator)
    sphere_trace(counted, rays, TRACING)
    assert asked < len(rays) * TRACING.steps


def counted(distance, asked: list[int]):
    """A distance that keeps how many points it was asked for."""

    def counting(points: Tensor) -> Tensor:
        asked.append(len(points))
        return distance(points)

    return counting


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("off", [0.0, 0.01, -0.01])
def test_a_guide_leads_to_the_same_points_with_fewer_distances(shape, off, generator):
    distance, rays = SHAPES[shape], rays_towards(generator, n=1500)
    guide = DistanceGrid(sample_on_grid(distance, 48, torch.device("cpu"))) + off
    plainly, guided = [], []
    t, hit = sphere_trace(counted(distance, plainly), rays, TRACING)
    found, met = sphere_trace_guided(counted(distance, guided), guide, rays, TRACING)
    assert sum(guided) < 0.7 * sum(plainly)
    assert (hit != met).float().mean() < 2e-3
    both = hit & met
    assert both.sum() > 300
    left = distance(rays[both].at(found[both])).abs()
    assert left.max() < 1e-3
    assert (left > 1e-4).float().mean() < 2e-3  # at edges the false position may need more steps
    assert ((found - t)[both].abs() > 1e-3).float().mean() < 0.01
    assert torch.equal(found[~met], rays.far[~met])


def test_a_guide_leaves_rays_that_miss_by_far_alone(generator):
    guide = DistanceGrid(sample_on_grid(sphere, 48, torch.device("cpu")))
    asked: list[int] = []
    rays = RaySegments(
        torch.tensor([[0.0, 0.7, -2.0]]), torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1), torch.full((1,), 3.0)
    )
    t, hit = sphere_trace_guided(counted(sphere, asked), guide, rays, TRACING)
    assert (float(t), bool(hit), sum(asked)) == (3.0, False, 0)


def test_a_guide_at_its_ends(generator):
    guide = DistanceGrid(sample_on_grid(sphere, 48, torch.device("cpu")))
    axis = torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3)
    near, far = torch.tensor([0.1, 0.7, 0.6, 0.2]), torch.tensor([2.0, 2.0, 0.4, 0.3])
    t, hit = sphere_trace_guided(sphere, guide, RaySegments(torch.zeros(4, 3), axis, near, far), TRACING)
    assert hit.tolist() == [True, False, False, True]
    assert t.tolist() == pytest.approx([0.1, 2.0, 0.4, 0.2])
    none = RaySegments(torch.empty(0, 3), torch.empty(0, 3), torch.empty(0), torch.empty(0))
    t, hit = sphere_trace_guided(sphere, guide, none, TRACING)
    assert t.shape == hit.shape == (0,)


def test_rays_that_begin_inside_stop_at_once_and_rays_without_a_point_never():
    origins = torch.zeros(3, 3)
    directions = torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3)
    rays = RaySegments(origins, directions, torch.tensor([0.1, 0.7, 0.6]), torch.tensor([2.0, 2.0, 0.4]))
    t, hit = sphere_trace(sphere, rays, TRACING)
    assert hit.tolist() == [True, False, False]
    assert t.tolist() == pytest.approx([0.1, 2.0, 0.4])


def test_thin_matter_beyond_both_fronts_is_found():
    def wall(points: Tensor) -> Tensor:
        return 0.01 * (points[:, 2].abs() - 0.02)

    rays = RaySegments(
        torch.tensor([[0.0, 0.0, -1.0]]), torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1), torch.full((1,), 2.0)
    )
    t, hit = sphere_trace(wall, rays, TracingSettings(steps=2, back_steps=2, threshold=1e-6))
    assert hit.all()
    assert float(t) == pytest.approx(0.98, abs=1e-3)


def test_no_rays():
    none = RaySegments(torch.empty(0, 3), torch.empty(0, 3), torch.empty(0), torch.empty(0))
    t, hit = sphere_trace(sphere, none, TRACING)
    assert t.shape == hit.shape == closest_approach(sphere, none, 4).shape == (0,)
    assert hit_points(sphere, none, t).shape == (0, 3)


def test_far_away_cameras(generator):
    near_by = rays_towards(generator, distance=2.0)
    far_off = RaySegments(
        near_by.origins - 1000 * near_by.directions, near_by.directions, near_by.near + 1000, near_by.far + 1000
    )
    (t, hit), (other, other_hit) = sphere_trace(box, near_by, TRACING), sphere_trace(box, far_off, TRACING)
    _, _, least = marched(box, near_by)
    clear = least.abs() > 5e-3
    assert torch.equal(hit[clear], other_hit[clear])
    torch.testing.assert_close(other[hit & clear] - 1000, t[hit & clear], rtol=0, atol=2e-3)


def test_a_ball_bounds_rays(generator):
    rays = rays_towards(generator)
    assert (rays.at(rays.near).norm(dim=-1) - 1).abs().max() < 1e-5
    assert (rays.at(rays.far).norm(dim=-1) - 1).abs().max() < 1e-5
    away = RaySegments(rays.origins, -rays.directions, rays.near, rays.far).within_ball(torch.zeros(3), 1.0)
    assert (away.near >= away.far).all()
    beside = RaySegments(rays.origins, rays.directions, rays.near, rays.far).within_ball(torch.full((3,), 50.0), 1.0)
    assert (beside.near >= beside.far).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_closest_point_is_that_of_many_samples(shape, generator):
    distance, rays = SHAPES[shape], rays_towards(generator)
    least = distance(rays.at(closest_approach(distance, rays, 32)))
    _, _, expected = marched(distance, rays)
    assert (least - expected).max() < 5e-3
    assert (least - expected).min() > -1e-3


def test_hit_points_follow_a_growing_sphere_and_a_moving_camera(generator):
    rays = rays_towards(generator)
    rays = rays[sphere_trace(sphere, rays, TRACING)[1]]
    rays = rays[(rays.near < 2.0)]
    radius = torch.tensor(0.5, requires_grad=True)
    origins = rays.origins.clone().requires_grad_()
    moved = RaySegments(origins, rays.directions, rays.near, rays.far)
    t, _ = sphere_trace(sphere, rays, TRACING)
    points = hit_points(lambda p: p.norm(dim=-1) - radius, moved, t)
    steep = ((points / points.norm(dim=-1, keepdim=True)) * rays.directions).sum(-1).detach() < -0.3
    torch.testing.assert_close(points, rays.at(t), rtol=0, atol=1e-3)

    def exact(r: float, shift: Tensor) -> Tensor:
        o = rays.origins.double() + shift
        d = rays.directions.double()
        b = (o * d).sum(-1)
        return o + (-b - (b**2 - (o**2).sum(-1) + r**2).clamp_min(0).sqrt())[:, None] * d

    probe = torch.randn(points.shape, generator=generator) * steep[:, None]
    by_radius, by_origin = torch.autograd.grad((points * probe).sum(), (radius, origins))
    zero, h = torch.zeros(3).double(), 1e-5
    slope = ((exact(0.5 + h, zero) - exact(0.5 - h, zero)) / (2 * h) * probe).sum()
    assert float(by_radius) == pytest.approx(float(slope), rel=1e-2)
    for axis in range(3):
        shift = torch.eye(3)[axis].double() * h
        slope = ((exact(0.5, shift) - exact(0.5, -shift)) / (2 * h) * probe).sum(-1).float()
        torch.testing.assert_close(by_origin[steep, axis], slope[steep], rtol=0.05, atol=0.05)


def test_a_grazing_ray_has_a_bounded_gradient():
    rays = RaySegments(
        torch.tensor([[-1.0, 0.5, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1), torch.full((1,), 2.0)
    )
    radius = torch.tensor(0.5, requires_grad=True)
    points = hit_points(lambda p: p.norm(dim=-1) - radius, rays, torch.ones(1))
    points.sum().backward()
    assert math.isfinite(float(radius.grad))
    assert abs(float(radius.grad)) <= 101
