"""`simple-nerf` against the mathematics of Tancik et al. 2021 and its two codes, written out slowly."""

from dataclasses import replace

import pytest
import torch

from lumifield.errors import DataError
from lumifield.methods.base import RenderContext
from lumifield.methods.simple_nerf import SimpleNerf
from lumifield.runtime.rng import Rng
from scenes import SIMPLE_NERF, bounded, forward, unbounded

WHITE = torch.ones(3)


def rng(seed=0):
    return Rng(torch.Generator().manual_seed(seed))


def built(settings=SIMPLE_NERF, scene=None, seed=0):
    torch.manual_seed(seed)
    return settings.build(scene or bounded())


def test_the_published_network_has_295172_parameters():
    network = SimpleNerf().build(bounded()).network
    assert sum(parameter.numel() for parameter in network.parameters()) == 295_172
    assert network.position.width == 120


def slow_pass(method, rays, row, z, end):
    """The color of one ray over white, sample by sample."""
    clear, color = 1.0, torch.zeros(3)
    for index, at in enumerate(z):
        point = rays.origins[row] + at * rays.directions[row]
        density = float(method.density(point[None]))
        width = (z[index + 1] if index + 1 < len(z) else end) - at
        alpha = 1 - torch.exp(torch.tensor(-density * width)).item()
        color += clear * alpha * method.colors(point[None], rays.viewdirs[row][None])[0]
        clear *= 1 - alpha
    return color + clear


@torch.no_grad()
@pytest.mark.parametrize("sampling", ["stratified", "official"])
def test_a_deterministic_pass_equals_loops(sampling):
    method = built(replace(SIMPLE_NERF, sampling=sampling))
    rays = bounded().rays(0)[slice(40, 44)]
    found = method(rays, RenderContext(WHITE))
    n = SIMPLE_NERF.num_samples
    z = [2 + 4 * i / (n - 1) for i in range(n)] if sampling == "official" else [2 + 4 * (i + 0.5) / n for i in range(n)]
    end = z[-1] + 1e-3 if sampling == "official" else 6.0
    for row in range(4):
        torch.testing.assert_close(found.rgb[row], slow_pass(method, rays, row, z, end), rtol=0, atol=1e-5)
    assert found.samples == 4 * n


def test_training_draws_one_sample_in_each_part_of_the_ray():
    method, rays = built(), bounded().rays(0)
    z, width = method.sampled(rays, rng())
    edges = 2 + 4 * torch.arange(SIMPLE_NERF.num_samples + 1) / SIMPLE_NERF.num_samples
    assert bool((z >= edges[:-1]).all())
    assert bool((z <= edges[1:]).all())
    assert float((z - 0.5 * (edges[1:] + edges[:-1])).mean()) == pytest.approx(0, abs=0.02)
    torch.testing.assert_close(z[:, 0] + width.sum(-1), torch.full((len(rays),), 6.0))


def test_official_training_moves_samples_forwards_alone():
    method, rays = built(replace(SIMPLE_NERF, sampling="official")), bounded().rays(0)
    moved = method.sampled(rays, rng())[0] - method.sampled(rays, None)[0]
    cell = 4 / SIMPLE_NERF.num_samples
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= cell + 1e-5
    assert float(moved.mean()) == pytest.approx(0.5 * cell, abs=0.01)


@torch.no_grad()
@pytest.mark.parametrize("sampling", ["stratified", "official"])
def test_empty_space_shows_the_backdrop_and_the_last_sample_of_a_photograph_is_endless(sampling):
    for scene, thin in ((bounded(), 0.0), (unbounded(), 1.0), (forward(), 1.0)):
        method = built(replace(SIMPLE_NERF, sampling=sampling), scene)
        torch.nn.init.zeros_(method.network.density.weight)
        torch.nn.init.constant_(method.network.density.bias, -16.0)
        seen = method(scene.rays(0), RenderContext(WHITE))
        torch.testing.assert_close(seen.opacity, torch.full((len(seen.opacity),), thin), rtol=0, atol=1e-4)


@torch.no_grad()
def test_an_opaque_first_sample_shows_its_own_color():
    method, rays = built(), bounded().rays(0)
    torch.nn.init.constant_(method.network.density.bias, 1e4)
    z, _ = method.sampled(rays, None)
    first = rays.origins + z[:, :1] * rays.directions
    torch.testing.assert_close(method(rays, RenderContext(WHITE)).rgb, method.colors(first, rays.viewdirs))


def test_starts():
    uniform, normal = (
        built(replace(SIMPLE_NERF, weight_init=start, hidden_dim=256)).network for start in ("uniform", "normal")
    )
    inner = uniform.trunk[1]
    assert float(inner.weight.detach().abs().max()) == pytest.approx(1 / 16, rel=1e-3)
    assert float(inner.bias.detach().abs().max()) == pytest.approx(1 / 16, rel=0.05)
    assert float(normal.trunk[1].weight.detach().std()) == pytest.approx(1 / 16, rel=0.01)
    assert float(normal.trunk[1].bias.detach().abs().max()) == 0


CHANGES = {
    "num_samples": 13,
    "sampling": "official",
    "hidden_dim": 17,
    "num_layers": 3,
    "num_position_frequencies": 5,
    "num_octaves": 3.0,
    "density_activation": "relu",
    "weight_init": "normal",
    "bf16": "on",
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_changes_the_image(name):
    rays = bounded().rays(0)
    images = [
        built(settings)(rays, RenderContext(WHITE)).rgb.detach()
        for settings in (SIMPLE_NERF, replace(SIMPLE_NERF, **{name: CHANGES[name]}))
    ]
    assert float((images[0] - images[1]).abs().max()) > 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 1}, "num_samples: found 1"),
        ({"num_position_frequencies": 0}, "num_position_frequencies: found 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        SimpleNerf(**change)
