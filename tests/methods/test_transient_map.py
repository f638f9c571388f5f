"""Veils: what passed before each image, to backbone `grid` of `nerf-w`."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumifield.methods.base import RenderContext, Rendered, TrainingContext
from lumifield.methods.nerf_w import transient_map
from lumifield.methods.nerf_w.transient import TransientSamples
from lumifield.runtime.rng import Rng
from scenes import NERF_W

WHITE = torch.ones(3)


def learning() -> RenderContext:
    return TrainingContext(WHITE, 0, Rng(torch.Generator().manual_seed(0)))


def by_loops(cells, x, y):
    """Raw values of one transient map at a place, interpolated between the four nearest cells."""
    side = cells.shape[0]
    found = torch.zeros(5, dtype=torch.float64)
    for row in range(side):
        for column in range(side):
            across = min(max(x * side - 0.5, 0), side - 1) - column
            down = min(max(y * side - 0.5, 0), side - 1) - row
            found += max(0, 1 - abs(across)) * max(0, 1 - abs(down)) * cells[row, column].double()
    return found


@given(st.integers(1, 5), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_a_transient_map_is_bilinear_between_the_middles_of_its_cells(side, x, y, seed):
    maps = torch.randn(3, 5 * side**2, generator=torch.Generator().manual_seed(seed))
    own, place = torch.tensor([2, 0]), torch.tensor([[x, y], [y, x]])
    seen = transient_map.sample_transient_map(maps, own, place)
    for ray, (across, down) in enumerate(((x, y), (y, x))):
        raw = by_loops(maps[own[ray]].view(side, side, 5), across, down)
        assert float(seen.density[ray]) == pytest.approx(
            math.log1p(math.exp(float(raw[0]) + transient_map.INITIAL_RAW_DEPTH)), abs=1e-5
        )
        torch.testing.assert_close(seen.rgb[ray], torch.sigmoid(raw[1:4]).float(), atol=1e-5, rtol=1e-5)
        assert float(seen.uncertainty[ray]) == pytest.approx(math.log1p(math.exp(float(raw[4]))), abs=1e-5)


def test_gradients_of_a_transient_map_are_those_of_differences():
    maps = torch.randn(2, 20, dtype=torch.float64, requires_grad=True)
    own, place = torch.tensor([1, 0, 1]), torch.rand(3, 2, dtype=torch.float64)

    def seen(cells):
        found = transient_map.sample_transient_map.__wrapped__(cells, own, place)
        return found.density, found.rgb, found.uncertainty

    assert torch.autograd.gradcheck(seen, (maps,))


def test_no_rays_see_no_transients():
    seen = transient_map.sample_transient_map(torch.zeros(2, 20), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))
    assert (len(seen.density), len(seen.rgb), len(seen.uncertainty)) == (0, 0, 0)
    nothing = Rendered(torch.zeros(0, 3), torch.zeros(0), torch.zeros(0))
    assert float(transient_map.composite_transient_map(nothing, seen, NERF_W, learning()).penalties["transient"]) == 0


@pytest.mark.parametrize("raw", [-1e30, -1e3, 1e3, 1e30])
def test_transient_maps_of_any_magnitude_are_finite(raw):
    cells = torch.full((1, 5), raw, requires_grad=True)
    rendered = Rendered(torch.full((1, 3), 0.5), torch.ones(1), torch.ones(1))
    seen = transient_map.composite_transient_map(
        rendered,
        transient_map.sample_transient_map(cells, torch.tensor([0]), torch.full((1, 2), 0.5)),
        NERF_W,
        learning(),
    )
    assert bool(torch.isfinite(seen.rgb).all())
    (seen.rgb.sum() + seen.channels["uncertainty"].clamp(max=1e20).sum()).backward()
    assert bool(torch.isfinite(cells.grad).all())


def test_what_is_seen_through_a_transient_map():
    optical_depth, rgb, beta = torch.tensor([0.0, 0.5, 40.0]), torch.rand(3, 3), torch.tensor([1.0, 2.0, 3.0])
    rendered = Rendered(torch.rand(3, 3), torch.ones(3), torch.ones(3), penalties={"other": torch.ones(())})
    seen = transient_map.composite_transient_map(
        rendered, TransientSamples(optical_depth, rgb, beta), NERF_W, learning()
    )
    opacity = torch.tensor([0.0, 1 - math.exp(-0.5), 1.0])
    for ray in range(3):
        a = float(opacity[ray])
        torch.testing.assert_close(seen.rgb[ray], (1 - a) * rendered.rgb[ray] + a * rgb[ray])
        torch.testing.assert_close(seen.channels["transient"][ray], a * rgb[ray])
        assert float(seen.channels["uncertainty"][ray]) == pytest.approx(NERF_W.beta_min + a * float(beta[ray]))
    assert torch.equal(seen.channels["static"], rendered.rgb)
    assert torch.equal(seen.channels["combined"], seen.rgb)
    mean = 40.5 / 3
    assert float(seen.penalties["transient"]) == pytest.approx(
        NERF_W.transient_loss_weight * mean / (2 * NERF_W.beta_min**2)
    )
    assert float(seen.penalties["other"]) == 1
    plain = transient_map.composite_transient_map(
        rendered, TransientSamples(optical_depth, rgb, beta), replace(NERF_W, uncertainty=False), learning()
    )
    assert float(plain.penalties["transient"]) == pytest.approx(NERF_W.transient_loss_weight * mean)


def test_views_have_the_channels_that_are_asked_for_and_no_transients_in_their_colors():
    rendered = Rendered(torch.rand(1, 3), torch.ones(1), torch.ones(1))
    passed = TransientSamples(torch.ones(1), torch.zeros(1, 3), torch.ones(1))
    seen = transient_map.composite_transient_map(
        rendered, passed, NERF_W, RenderContext(WHITE, channels=("transient",))
    )
    assert torch.equal(seen.rgb, rendered.rgb)
    assert (set(seen.channels), seen.penalties) == ({"transient"}, {})


@torch.no_grad()
def test_a_ray_wears_its_photographs_look_while_training_a_given_one_or_the_mean():
    embeddings = transient_map.AppearanceTable(3, 4, 2)
    embeddings.transient_maps.normal_()
    image = torch.tensor([2, 0])
    assert embeddings.table.shape == (3, 4 + 20)

    def worn(context):
        appearance, maps, own = embeddings(image, context)
        return torch.cat([appearance, maps[own]], -1)

    assert torch.equal(worn(learning()), embeddings.table[image])
    assert torch.equal(worn(RenderContext(WHITE, appearance_embedding=embeddings.table[1])), embeddings.table[[1, 1]])
    assert torch.equal(
        worn(RenderContext(WHITE, appearance_embedding=embeddings.table[[1, 2]])), embeddings.table[[1, 2]]
    )
    torch.testing.assert_close(worn(RenderContext(WHITE)), embeddings.table.mean(0).expand(2, -1))
