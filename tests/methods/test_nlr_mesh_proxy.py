"""Views of triangles and kept features are those of traced rays."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import max_pool2d, normalize

from analytic import CPU
from known_surfaces import TrueBall, built
from lumifield.methods.nlr.distance_grid import refine_grid, sample_on_grid
from lumifield.methods.nlr.mesh_proxy import extract_triangles
from lumifield.methods.nlr.method import NlrMethod
from lumifield.rendering.view import render_view
from scenes import NLR, RADIUS, ball, unbounded


def ready(size: int = 48) -> NlrMethod:
    """A method that knows the ball, and whose decoder says something."""
    method = built(NLR, ball(8, size)).eval()
    method.sdf = TrueBall(method)
    assert method.appearance_net.decoder is not None
    torch.nn.init.constant_(method.appearance_net.decoder.out.weight, 0.1)
    return method


def sphere(points):
    return points.norm(dim=-1) - 0.6


@torch.no_grad()
def test_quick_views_equal_traced_ones():
    method, between = ready(), ball(16, 48).select([1, 6])
    for index in range(2):
        traced, fast_preview = (
            render_view(method, between, index, device=CPU, fast_preview=fast_preview) for fast_preview in (False, True)
        )
        edge = traced.opacity != fast_preview.opacity
        assert float(edge.float().mean()) < 0.01
        both = traced.hit_mask & fast_preview.hit_mask
        inner = -max_pool2d(-both[None].float(), 7, 1, 3)[0] > 0.5
        assert inner.sum() > 200
        assert float((traced.depth - fast_preview.depth)[inner].abs().max()) < 2e-3 * RADIUS
        differs = (traced.rgb - fast_preview.rgb)[inner].abs().amax(-1)
        # Only where the last source that sees a place begins to be hidden a pixel may go with its neighbor.
        assert float((differs > 0.01).float().mean()) < 0.02
        assert float(differs.median()) < 1e-3
        assert torch.equal(
            traced.rgb[~traced.hit_mask & ~fast_preview.hit_mask],
            fast_preview.rgb[~traced.hit_mask & ~fast_preview.hit_mask],
        )


@torch.no_grad()
def test_views_after_the_first_ask_for_no_distance_until_the_training_goes_on(monkeypatch):
    method, between = ready(24), ball(16, 24).select([1])
    first = render_view(method, between, 0, device=CPU, fast_preview=True)
    asked = []
    monkeypatch.setattr(TrueBall, "forward", lambda self, points: asked.append(len(points)) or sphere(points))
    assert torch.equal(render_view(method, between, 0, device=CPU, fast_preview=True).rgb, first.rgb)
    assert not asked
    method.train().eval()
    again = render_view(method, between, 0, device=CPU, fast_preview=True)
    assert asked
    assert not torch.equal(again.opacity, first.opacity)


@torch.no_grad()
def test_a_source_colors_what_it_sees_alone():
    method = ready(24)
    mesh_proxy = method.mesh_proxy()
    away = normalize(mesh_proxy.vertices, dim=-1)
    for index, eye in enumerate(method.sources.cameras.positions):
        slope = (normalize(eye - mesh_proxy.vertices, dim=-1) * away).sum(-1)
        assert mesh_proxy.seen[index][slope > 0.1].all()
        assert not mesh_proxy.seen[index][slope < -0.1].any()


def test_triangles_lie_on_the_surface():
    values = sample_on_grid(sphere, 24, CPU)
    vertices, faces = extract_triangles(values)
    assert faces.max() == len(vertices) - 1
    assert float((vertices.norm(dim=-1) - 0.6).abs().max()) < 2e-3
    flat = extract_triangles(values + torch.linspace(-0.1, 0.1, 24))[0]  # x is the last axis
    assert float(flat[:, 0].mean()) < -0.02 < 0.02 > abs(float(flat[:, 1].mean()))
    for none in (values.abs() + 1, -values.abs() - 1):
        assert [len(part) for part in extract_triangles(none)] == [0, 0]


@torch.no_grad()
def test_a_finer_grid_asks_near_the_surface_and_is_cut_off_where_the_ball_ends():
    asked = []

    def wavy(points):
        asked.append(len(points))
        return points.norm(dim=-1) - 0.6 + 0.02 * torch.sin(20 * points[:, 0])

    coarse = sample_on_grid(wavy, 16, CPU)
    asked.clear()
    fine = refine_grid(wavy, coarse, 3)
    assert fine.shape == (46, 46, 46)
    assert sum(asked) < fine.numel() / 3
    exact = sample_on_grid(wavy, 46, CPU)
    near = exact.abs() < 0.05
    torch.testing.assert_close(fine[near], exact[near], atol=1e-6, rtol=0)
    assert torch.equal(fine > 0, exact > 0)
    wide = refine_grid(lambda points: points[:, 2], sample_on_grid(lambda points: points[:, 2], 16, CPU), 3)
    vertices, _ = extract_triangles(wide)
    assert float(vertices.norm(dim=-1).max()) < 1.02


@torch.no_grad()
@pytest.mark.parametrize("scene", [ball(4, 12), unbounded()], ids=["silhouettes", "open"])
def test_a_view_without_surface_is_the_backdrop(scene):
    method = built(NLR, scene).eval()
    method.sdf = replace_distance(method)
    traced, fast_preview = (
        render_view(method, scene, 0, device=CPU, fast_preview=fast_preview) for fast_preview in (False, True)
    )
    assert torch.equal(traced.rgb, fast_preview.rgb)


def replace_distance(method: NlrMethod) -> torch.nn.Module:
    """A distance from nothing near."""
    far = TrueBall(method)
    far.center = far.center + 100.0
    return far


def test_colors_alone_are_drawn_too():
    scene = ball(8, 24)
    method = built(replace(NLR, features="rgb", blending="lumigraph"), scene).eval()
    method.sdf = TrueBall(method)
    traced, fast_preview = (
        render_view(method, scene, 2, device=CPU, fast_preview=fast_preview) for fast_preview in (False, True)
    )
    both = traced.hit_mask & fast_preview.hit_mask
    assert float((traced.rgb - fast_preview.rgb)[both].abs().median()) < 1e-3
