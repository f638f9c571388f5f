import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumifield.data.scene import Batch, Scene, sample_batch
from lumifield.errors import DataError
from lumifield.methods import NerfW
from lumifield.methods.base import Method, RenderContext, Rendered, TrainingContext
from lumifield.methods.nerf_w import transient as transient_field
from lumifield.optim.optimizers import build_optimizer
from lumifield.runtime.rng import Rng
from scenes import NERF_W, NERF_W_MLP, ball

WHITE = torch.ones(3)
BACKBONES = {"grid": NERF_W, "mlp": NERF_W_MLP}


def rng(seed: int = 0) -> Rng:
    return Rng(torch.Generator().manual_seed(seed))


def built(settings: NerfW, scene: Scene) -> Method:
    torch.manual_seed(0)
    return settings.build(scene)


def size(settings: NerfW) -> int:
    return sum(p.numel() for name, p in built(settings, ball(2, 8)).named_parameters() if name.startswith("last."))


def stepped(method: Method, scene: Scene, steps: int) -> tuple[Rendered, Batch, dict[str, torch.Tensor]]:
    source = rng(3)
    optimizer = build_optimizer(method.settings.optimizer, method.param_groups())
    optimizer.set_rate(1.0)
    for step in range(steps):
        method.before_step(step, source)
        batch = sample_batch(scene, method.rays_per_step(), source)
        rendered = method(batch.rays, TrainingContext(batch.background, step, source))
        losses = method.losses(rendered, batch)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        method.after_step(step, len(batch.rays), rendered.samples)
    return rendered, batch, losses


def test_the_networks_have_the_published_number_of_parameters():
    paper = NerfW(backbone="mlp")
    assert size(paper) == 702_473
    assert size(replace(paper, transient_dim=0)) == 617_348
    assert size(replace(paper, appearance_dim=0, transient_dim=0)) == 611_204
    method = built(paper, ball(3, 8))
    assert method.appearance_embeddings is not None
    assert method.appearance_embeddings.shape == (3, 48 + 16)
    assert sum(p.numel() for p in method.parameters()) == 702_473 + 617_348 + 3 * 64


def by_loops(static, passed, offsets):
    """Weights of the two kinds of matter, and what they stop together, one sample after the other in double."""
    found = []
    for ray in range(len(offsets) - 1):
        light = 1.0
        for row in range(offsets[ray], offsets[ray + 1]):
            a, b = float(static[row]), float(passed[row])
            found.append((light * -math.expm1(-a), light * -math.expm1(-b), light * -math.expm1(-a - b)))
            light *= math.exp(-a) * math.exp(-b)
    return torch.tensor(found, dtype=torch.float64).reshape(-1, 3).T


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(-12, 6), st.integers(-12, 6), st.integers(0, 99)
)
def test_weights_of_both_kinds_are_those_of_a_loop(counts, low, high, seed):
    offsets = torch.tensor([0, *counts]).cumsum(0)
    generator = torch.Generator().manual_seed(seed)
    static, passed = (10.0**exponent * torch.rand(int(offsets[-1]), generator=generator) for exponent in (low, high))
    found = transient_field.static_and_transient_weights(static, passed, offsets)
    for ours, true in zip(found, by_loops(static, passed, offsets.tolist()), strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=1e-4, atol=1e-6)


def mixture(n: int = 6, *, density: float = 1.0, passed: float = 1.0) -> transient_field.Mixture:
    g = torch.Generator().manual_seed(1)
    own = transient_field.TransientSamples(
        passed * torch.rand(n, generator=g), torch.rand(n, 3, generator=g), torch.rand(n, generator=g)
    )
    width, offsets = torch.rand(n, generator=g), torch.tensor([0, n // 2, n // 2, n])
    return transient_field.Mixture(
        density * torch.rand(n, generator=g), torch.rand(n, 3, generator=g), own, width, offsets
    )


def plain(rays: int = 3) -> Rendered:
    return Rendered(torch.full((rays, 3), 0.5), torch.ones(rays), torch.ones(rays), penalties={"other": torch.ones(())})


def test_color_and_uncertainty_are_those_of_a_loop():
    mixed, background = mixture(), torch.tensor([0.1, 0.2, 0.3])
    seen = transient_field.composite_transient(plain(), mixed, NERF_W, TrainingContext(background, 0, rng()))
    thick, own = mixed.density * mixed.width, mixed.transient.density * mixed.width
    lasting, passed, stopped = by_loops(thick, own, mixed.offsets.tolist())
    for ray in range(3):
        rows = range(int(mixed.offsets[ray]), int(mixed.offsets[ray + 1]))
        static = sum((lasting[i] * mixed.rgb[i] for i in rows), torch.zeros(3))
        transient = sum((passed[i] * mixed.transient.rgb[i] for i in rows), torch.zeros(3))
        left = 1 - sum(float(stopped[i]) for i in rows)
        beta = NERF_W.beta_min + sum(float(passed[i] * mixed.transient.uncertainty[i]) for i in rows)
        torch.testing.assert_close(seen.rgb[ray], (static + transient + left * background).float())
        torch.testing.assert_close(seen.channels["transient"][ray], transient.float())
        assert float(seen.channels["uncertainty"][ray]) == pytest.approx(beta, abs=1e-6)
    assert torch.equal(seen.channels["static"], plain().rgb)
    assert float(seen.penalties["transient"]) == pytest.approx(
        NERF_W.transient_loss_weight * float(mixed.transient.density.mean())
    )
    assert float(seen.penalties["other"]) == 1


def test_where_nothing_passes_the_lasting_scene_is_seen():
    mixed = mixture(passed=0.0)
    seen = transient_field.composite_transient(plain(), mixed, NERF_W, TrainingContext(WHITE, 0, rng()))
    static = by_loops(mixed.density * mixed.width, mixed.width * 0, mixed.offsets.tolist())[0]
    first = (static[:3, None] * mixed.rgb[:3]).sum(0) + 1 - static[:3].sum()
    torch.testing.assert_close(seen.rgb[0], first.float())
    assert torch.equal(seen.channels["uncertainty"], torch.full((3,), NERF_W.beta_min))
    batch = Batch(ball(1, 8).rays(0)[slice(0, 3)], seen.rgb + 0.1, WHITE.expand(3, 3))
    losses = transient_field.nerf_w_losses(seen, batch, NERF_W)
    assert float(losses["rgb"]) == pytest.approx(0.01 / (2 * NERF_W.beta_min**2), rel=1e-4)
    assert float(losses["uncertainty"]) == 0
    assert float(
        transient_field.nerf_w_losses(seen, batch, replace(NERF_W, uncertainty=False))["rgb"]
    ) == pytest.approx(0.01, rel=1e-4)


def test_the_price_falls_by_half_the_squared_error_over_that_of_the_uncertainty():
    batch = Batch(ball(1, 8).rays(0)[slice(0, 3)], torch.full((3, 3), 0.7), WHITE.expand(3, 3))
    beta = torch.tensor([0.03, 0.1, 0.5])
    seen = replace(plain(), coarse=(torch.full((3, 3), 0.6),), channels={"uncertainty": beta})
    losses = transient_field.nerf_w_losses(seen, batch, NERF_W)
    assert float(losses["rgb"]) == pytest.approx(float((0.04 / (2 * beta**2)).mean()), rel=1e-4)
    assert float(losses["uncertainty"]) == pytest.approx(float((beta / 0.03).log().mean()), rel=1e-5)
    assert float(losses["coarse"]) == pytest.approx(0.005, rel=1e-4)


def test_gradients_of_the_weights_are_those_of_differences():
    static, passed = (torch.rand(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    offsets = torch.tensor([0, 2, 2, 5])
    torch.autograd.gradcheck(
        lambda a, b: transient_field.static_and_transient_weights.__wrapped__(a, b, offsets), (static, passed)
    )


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-12, 1e-3, 1e3, 1e12])
def test_gradients_are_finite_at_any_magnitude(value):
    static, passed = (torch.full((4,), value, requires_grad=True) for _ in range(2))
    weights = transient_field.static_and_transient_weights(static, passed, torch.tensor([0, 4]))
    torch.stack(weights).sum().backward()
    for each in (static, passed):
        assert each.grad is not None
        assert bool(torch.isfinite(each.grad).all())
    assert float(torch.stack(weights).detach().max()) <= 1 + 1e-6


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"appearance_dim": 0},
        {"transient_dim": 0},
        {"appearance_dim": 0, "transient_dim": 0},
        {"uncertainty": False},
        {"beta_min": 0.1, "transient_loss_weight": 0.0},
    ],
    ids=str,
)
def test_every_switch_trains_and_renders(backbone, switches):
    scene = ball(3, 10)
    settings = replace(BACKBONES[backbone], **switches)
    method = built(settings, scene)
    before = {name: value.clone() for name, value in method.named_parameters()}
    losses = stepped(method, scene, 3)[2]
    assert ("uncertainty" in losses) == (settings.transient_dim > 0 and settings.uncertainty)
    assert ("transient" in losses) == (settings.transient_dim > 0)
    assert ("coarse" in losses) == (backbone == "mlp")
    for name, value in method.named_parameters():
        assert value.numel() == 0 or not torch.equal(value, before[name]), name
    assert (method.appearance_embeddings is None) == (settings.appearance_dim + settings.transient_dim == 0)
    assert bool(method.traits.channels) == (settings.transient_dim > 0)
    with torch.no_grad():
        seen = method(scene.rays(0), RenderContext(WHITE))
    assert seen.channels == {}
    assert bool(torch.isfinite(seen.rgb).all())


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_any_number_of_fine_passes(levels):
    scene = ball(3, 10)
    method = built(replace(NERF_W_MLP, num_fine_passes=levels), scene)
    rendered, _, _ = stepped(method, scene, 2)
    assert len(rendered.coarse) == levels
    per_ray = sum(8 + 8 * level for level in range(levels + 1))
    assert rendered.samples == per_ray * NERF_W_MLP.batch_size


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_an_image_wears_the_embedding_that_is_given_and_else_the_mean(backbone):
    scene = ball(3, 10)
    method = built(BACKBONES[backbone], scene)
    table, rays = method.appearance_embeddings, scene.rays(0)
    mean = method(rays, RenderContext(WHITE)).rgb
    torch.testing.assert_close(method(rays, RenderContext(WHITE, appearance_embedding=table.mean(0))).rgb, mean)
    first, second = (method(rays, RenderContext(WHITE, appearance_embedding=table[row])).rgb for row in (0, 1))
    assert not torch.equal(first, second)
    own = table[torch.arange(len(rays)) % 2]
    each = method(rays, RenderContext(WHITE, appearance_embedding=own)).rgb
    torch.testing.assert_close(each, torch.where((torch.arange(len(rays)) % 2 == 0)[:, None], first, second))
    # What passed before an image is no part of the lasting scene.
    other = torch.cat([table[0, : method.traits.num_appearance_dims], table[1, method.traits.num_appearance_dims :]])
    assert torch.equal(method(rays, RenderContext(WHITE, appearance_embedding=other)).rgb, first)


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_channels_are_those_asked_for_and_show_what_training_saw(backbone):
    scene = ball(3, 10)
    method = built(BACKBONES[backbone], scene)
    rays = scene.rays(1)
    seen = method(
        rays,
        RenderContext(
            WHITE, appearance_embedding=method.appearance_embeddings[1], channels=("combined", "uncertainty")
        ),
    )
    assert set(seen.channels) == {"combined", "uncertainty"}
    assert not torch.equal(seen.channels["combined"], seen.rgb)
    assert bool((seen.channels["uncertainty"] >= BACKBONES[backbone].beta_min).all())
    fitting = method(rays, TrainingContext(WHITE, 0, rng(), appearance_embedding=method.appearance_embeddings[1]))
    assert fitting.channels == {}
    learning = method(rays, TrainingContext(WHITE, 0, rng()))
    assert set(learning.channels) == set(method.traits.channels)
    assert torch.equal(learning.channels["combined"], learning.rgb)


def test_no_disparity_from_the_camera_on():
    scene = ball(2, 8)
    scene = replace(scene, near=scene.near * 0)
    with pytest.raises(DataError, match=r"nerf-w: disparity: found rays that start at t = 0"):
        built(replace(NERF_W_MLP, disparity=True), scene)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"appearance_dim": -1}, "appearance_dim: found -1"),
        ({"beta_min": 0.0}, "nerf-w: beta_min: found 0"),
        ({"num_fine_passes": -1}, "num_fine_passes: found -1"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(DataError, match=message):
        NerfW(**change)
