"""What every method promises (see `lumifield.methods.base`), on bounded, open and NDC scenes."""

import copy
from pathlib import Path

import pytest
import torch

from lumifield.data.scene import Batch, Scene
from lumifield.methods import METHODS, SimpleNerf, method_name
from lumifield.methods.base import Method, RenderContext, TrainingContext, render_in_chunks
from lumifield.runtime.config import from_plain, to_plain
from scenes import SCENES, SMALL, pairs
from training_steps import render_step, rng, take_step

WHITE = torch.ones(3)


@pytest.fixture(scope="module", params=pairs(), ids=", ".join)
def pair(request) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def settings(pair):
    return SMALL[pair[0]]


@pytest.fixture(scope="module")
def scene(pair) -> Scene:
    return SCENES[pair[1]]()


@pytest.fixture(scope="module")
def trained(settings, scene) -> Method:
    """A method that has trained for some steps."""
    torch.manual_seed(0)
    method, source = settings.build(scene), rng(1)
    rates = [{**group, "lr": 5e-3 * min(group.get("lr_factor", 1), 1)} for group in method.param_groups()]
    optimizer = torch.optim.Adam(rates)
    for step in range(6):
        take_step(method, optimizer, scene, step, source)
    return method.eval()


@pytest.fixture
def method(trained) -> Method:
    return copy.deepcopy(trained)


def test_every_method_is_tried():
    assert {method_name(settings) for settings in SMALL.values()} == set(METHODS)


def test_a_pass_without_draws_takes_no_random_numbers(method, scene):
    before = torch.get_rng_state()
    first = method(scene.rays(0), RenderContext(WHITE))
    torch.rand(7)
    second = method(scene.rays(0), RenderContext(WHITE))
    assert torch.equal(first.rgb, second.rgb)
    assert torch.equal(first.depth, second.depth)
    torch.set_rng_state(before)
    method(scene.rays(0), RenderContext(WHITE))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_takes_random_numbers_from_the_draws_alone(method, scene):
    before = torch.get_rng_state()
    first, second, other = (render_step(method, scene, 7, rng(seed))[0].rgb for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_pieces_of_rays_give_the_same_image(method, scene):
    rays = scene.rays(1)
    whole = render_in_chunks(method, rays, RenderContext(WHITE), len(rays))
    for chunk in (7, 64, 10**6):
        parts = render_in_chunks(method, rays, RenderContext(WHITE), chunk)
        for name in ("rgb", "depth", "opacity"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=1e-5)
        assert parts.samples == whole.samples


def test_rays_do_not_see_each_other(method, scene):
    rays = scene.rays(0)
    order = torch.randperm(len(rays), generator=torch.Generator().manual_seed(3))
    straight, mixed = (method(r, RenderContext(WHITE)).rgb.detach() for r in (rays, rays[order]))
    torch.testing.assert_close(mixed, straight[order], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_is_seen_is_in_bounds(method, scene):
    rays = scene.rays(2)
    for context in (RenderContext(WHITE), TrainingContext(WHITE, 7, rng())):
        seen = method(rays, context)
        assert seen.rgb.shape == (len(rays), 3)
        assert seen.depth.shape == seen.opacity.shape == (len(rays),)
        for value in (seen.rgb, seen.opacity):
            assert float(value.min()) >= -1e-5
            # Two kinds of matter in one place both show all that they stop (NeRF-W, equation 8).
            assert float(value.max()) <= (2 if seen.channels else 1) + 1e-5
        # A sample stands for an interval whose middle may lie half an interval beyond the far bound.
        assert bool((seen.depth >= rays.near - 1e-5).all())
        assert bool((seen.depth <= 1.02 * rays.far + 1e-5).all())
        assert seen.samples > 0


@torch.no_grad()
def test_the_background_fills_what_is_left(method, scene):
    rays = scene.rays(0)
    colors = torch.rand(len(rays), 3, generator=torch.Generator().manual_seed(4))
    black, each = (method(rays, RenderContext(background)) for background in (torch.zeros(3), colors))
    expected = black.rgb + (1 - black.opacity[:, None]) * colors
    torch.testing.assert_close(each.rgb, expected, rtol=0, atol=1e-5)
    assert torch.equal(each.depth, black.depth)
    assert torch.equal(each.opacity, black.opacity)


@torch.no_grad()
def test_weights_and_settings_give_the_same_image_in_a_scene_without_images(method, scene):
    kind = METHODS[method_name(method.settings)]
    torch.manual_seed(9)
    other = from_plain(kind, to_plain(method.settings), Path("config.json")).build(scene.without_images())
    other.load_state_dict(method.state_dict())
    for index in range(2):
        first, second = (m(scene.rays(index), RenderContext(WHITE)) for m in (method, other.eval()))
        assert torch.equal(first.rgb, second.rgb)
        assert torch.equal(first.depth, second.depth)
    assert other.settings == method.settings
    assert other.rays_per_step() == method.rays_per_step()


def test_losses_are_named_scalars_with_gradients(method, scene):
    rendered, batch = render_step(method, scene, 7, rng())
    losses = method.losses(rendered, batch)
    assert losses
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert float(loss.detach()) >= 0
        assert loss.requires_grad
    perfect = Batch(batch.rays, rendered.rgb.detach(), batch.background)
    assert float(method.losses(rendered, perfect)["rgb"].detach()) == 0


def test_every_parameter_is_moved_once_and_carried_over(method):
    grouped = [parameter for group in method.param_groups() for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, method.parameters()))
    assert set(method.adaptable_parameters()) <= {name for name, _ in method.named_parameters()}
    assert method.rays_per_step() > 0


@torch.no_grad()
def test_density_is_never_negative(method, scene):
    generator = torch.Generator().manual_seed(5)
    within = scene.box[0] + torch.rand(200, 3, generator=generator) * (scene.box[1] - scene.box[0])
    for points in (within, within * 1e4, within[:0]):
        density = method.density(points)
        assert density.shape == (len(points),)
        assert bool(torch.isfinite(density).all())
        assert bool((density >= 0).all())


@torch.no_grad()
def test_colors_are_in_bounds_and_those_of_the_direction(method, scene):
    generator = torch.Generator().manual_seed(6)
    points = scene.box[0] + torch.rand(500, 3, generator=generator) * (scene.box[1] - scene.box[0])
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand_as(points)
    rgb = method.colors(points, ahead)
    assert rgb.shape == (500, 3)
    assert bool(((rgb >= 0) & (rgb <= 1)).all())
    directionless = isinstance(method.settings, SimpleNerf) or not getattr(method.settings, "viewdirs", True)
    assert torch.equal(method.colors(points, -ahead), rgb) == directionless
    torch.testing.assert_close(method.colors(points[7:9], ahead[7:9]), rgb[7:9], rtol=1e-4, atol=1e-5)
    assert method.colors(points[:0], ahead[:0]).shape == (0, 3)


@torch.no_grad()
def test_no_rays(method, scene):
    for context in (RenderContext(WHITE), TrainingContext(WHITE, 7, rng())):
        seen = method(scene.rays(0)[slice(0, 0)], context)
        assert (seen.rgb.shape, seen.depth.shape, seen.opacity.shape) == ((0, 3), (0,), (0,))
