"""A step of `nlr` renders the same colors as the port of the published order of operations in benchmarks/."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn.functional import normalize

from known_surfaces import Around, built
from lumifield.data.scene import Scene
from lumifield.methods.nlr.sphere_tracing import RaySegments, TracingSettings, sphere_trace
from scenes import NLR, RADIUS, ball

FILE = Path(__file__).parents[2] / "benchmarks" / "nlr_original_order.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/nlr_original_order.py."""
    spec = importlib.util.spec_from_file_location("nlr_original_order", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def frontal_pixels(scene: Scene, index: int) -> torch.Tensor:
    """Pixels of a ball that every camera of the scene sees within 60 degrees of its normal."""
    rays = scene.rays(index)
    b = (rays.origins * rays.directions).sum(-1)
    inner = b**2 - (rays.origins**2).sum(-1) + RADIUS**2
    points = rays.origins + (-b - inner.clamp_min(0).sqrt())[:, None] * rays.directions
    cosines = [(normalize(eye - points, dim=-1) * normalize(points, dim=-1)).sum(-1) for eye in scene.cameras.positions]
    return (inner > 0) & (torch.stack(cosines).amin(0) > 0.5)


def test_both_orders_render_the_same_pixels_and_losses(benchmark):
    scene = ball(24, 48).select([0, 1, 2, 3])  # close to each other, so that they see the same points
    method = benchmark.use_published_settings(built(NLR, scene), scene)
    method.sdf = Around(method, torch.nn.Parameter(torch.tensor(RADIUS)))
    plain = scene.without_images()
    port = benchmark.PublishedOrder(method, plain)
    port.maps[0][:] = 9.0  # hides everything from the first image: one source less
    one_less = port.render_image(1)[0]
    shown, hit, losses = benchmark.PublishedOrder(method, plain).render_image(1)
    own, own_losses = benchmark.our_step(method, plain, 1)
    counts = frontal_pixels(plain, 1)
    assert counts.sum() > 200
    assert hit[counts].all()
    torch.testing.assert_close(shown[counts], own[counts], atol=2e-5, rtol=0)
    assert float((one_less - own).detach()[counts].abs().amax(-1).median()) > 2e-4
    for name, slack in (("rgb", 0.05), ("eikonal", 1e-4), ("silhouette", 0.2)):  # the last is of rays drawn at random
        assert float(losses[name].detach()) == pytest.approx(float(own_losses[name].detach()), rel=slack, abs=2e-3)
    benchmark.backpropagate(method, losses)
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.sdf.parameters())
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters() if p.grad is not None)


def test_both_tracers_find_the_same_points(benchmark):
    def knots(points):
        return points.norm(dim=-1) - 0.5 + 0.05 * torch.sin(9 * points).prod(-1)

    source = torch.Generator().manual_seed(0)
    origin = torch.tensor([0.0, 0.0, -2.0]).expand(600, 3)
    direction = normalize(torch.randn(600, 3, generator=source) * 0.2 + torch.tensor([0, 0, 1.0]), dim=-1)
    rays = RaySegments(origin, direction, torch.zeros(600), torch.full((600,), 4.0)).within_ball(torch.zeros(3), 1.0)
    met = rays.near < rays.far
    near, far = torch.where(met, rays.near, 1.0), torch.where(met, rays.far, -1.0)
    (t, hit), (own, own_hit) = (
        benchmark.trace_rays(knots, origin, direction, near, far),
        sphere_trace(knots, rays, TracingSettings()),
    )
    assert float((hit != own_hit).float().mean()) < 0.01
    both = hit & own_hit
    assert both.sum() > 100
    assert float((t - own)[both].abs().quantile(0.98)) < 1e-3


def test_a_ray_that_grazes_ends_at_a_number(benchmark):
    start, direction, whole = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([True])
    bracket = torch.tensor([0.5]), torch.tensor([0.5]), torch.tensor([0.0]), torch.tensor([0.0])
    flat = benchmark.false_position(lambda points: torch.zeros(len(points)), start, direction, bracket, whole)
    assert flat.tolist() == [0.5]
