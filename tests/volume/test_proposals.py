import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lumifield.runtime.rng import Rng
from lumifield.volume.proposals import (
    Histogram,
    contract_distance,
    distortion_loss,
    interlevel_loss,
    resample_histogram,
    s_to_t,
    uncontract_distance,
    uniform_edges,
)

CPU = torch.device("cpu")


def rng(seed: int = 0) -> Rng:
    return Rng(torch.Generator().manual_seed(seed))


def histogram(rays: int, count: int, seed: int, power: float = 1.0) -> Histogram:
    """Random edges from 0 to 1 and random weights that sum to less than one."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.rand(rays, count - 1, generator=generator, dtype=torch.float64).sort(-1).values
    edges = torch.cat([torch.zeros(rays, 1), cuts, torch.ones(rays, 1)], -1)
    weights = torch.rand(rays, count, generator=generator, dtype=torch.float64) ** power
    return Histogram(edges, 0.9 * weights / weights.sum(-1, keepdim=True))


def slow_proposal_loss(proposal: Histogram, final: Histogram) -> float:
    """The bound by looking at every pair of intervals."""
    total = 0.0
    for ray in range(len(final.edges)):
        a, b = proposal.edges[ray].tolist(), final.edges[ray].tolist()
        for j, weight in enumerate(final.weights[ray].tolist()):
            touching = [i for i in range(len(a) - 1) if a[i] < b[j + 1] and a[i + 1] > b[j]]
            bound = sum(proposal.weights[ray, i].item() for i in touching)
            total += max(0.0, weight - bound) ** 2 / (weight + 1e-5)
    return total / len(final.edges)


def slow_distortion(h: Histogram, places: int = 100) -> float:
    """The mean distance of two places, each interval's weight spread evenly over many places in it."""
    total = 0.0
    for ray in range(len(h.edges)):
        first, last = h.edges[ray, :-1, None], h.edges[ray, 1:, None]
        x = (first + (last - first) * (torch.arange(places) + 0.5) / places).reshape(-1)
        w = (h.weights[ray, :, None].expand(-1, places) / places).reshape(-1)
        total += float(w @ (x[:, None] - x).abs() @ w)
    return total / len(h.edges)


@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(2, 7))
def test_the_proposal_loss_is_what_every_pair_of_intervals_says(seed, n, m):
    proposal, final = histogram(3, n, seed), histogram(3, m, seed + 1, 3)
    assert float(interlevel_loss(proposal, final)) == pytest.approx(slow_proposal_loss(proposal, final), abs=1e-12)


def test_a_proposal_that_covers_the_final_histogram_costs_nothing():
    final = histogram(5, 6, 0)
    assert float(interlevel_loss(final, final)) == pytest.approx(0, abs=1e-12)
    coarse = Histogram(torch.tensor([[0.0, 1.0]]).double().repeat(5, 1), torch.full((5, 1), 0.9).double())
    assert float(interlevel_loss(coarse, final)) == 0


def test_the_proposal_alone_learns_from_its_loss():
    proposal, final = histogram(3, 5, 1), histogram(3, 6, 2, 4)
    final.weights.requires_grad_()
    proposal.weights.requires_grad_()
    interlevel_loss(proposal, final).backward()
    assert final.weights.grad is None
    assert proposal.weights.grad is not None
    assert float(proposal.weights.grad.max()) == 0
    assert float(proposal.weights.grad.min()) < 0
    assert gradcheck(lambda w: interlevel_loss(Histogram(proposal.edges, w), final), proposal.weights)


@given(st.integers(0, 1000), st.integers(1, 4))
def test_distortion_is_the_mean_distance_of_two_places(seed, count):
    h = histogram(2, count + 1, seed)
    assert float(distortion_loss(h)) == pytest.approx(slow_distortion(h), rel=1e-3, abs=1e-5)


def test_distortion_is_least_for_one_thin_surface():
    edges = torch.tensor([[0.0, 0.5, 0.501, 1.0]])
    thin, fog = torch.tensor([[0.0, 1.0, 0.0]]), torch.full((1, 3), 1 / 3)
    assert float(distortion_loss(Histogram(edges, thin))) == pytest.approx(0.001 / 3, rel=1e-3)
    assert float(distortion_loss(Histogram(edges, fog))) > 0.2
    weights = histogram(2, 4, 3)
    weights.weights.requires_grad_()
    assert gradcheck(lambda w: distortion_loss(Histogram(weights.edges, w)), weights.weights)


@given(st.integers(0, 10**6), st.integers(1, 9), st.booleans())
def test_new_intervals_hold_equal_weight(seed, count, jittered):
    old = histogram(4, 6, seed, 5)
    edges = resample_histogram(old, count, rng(seed) if jittered else None)
    assert edges.shape == (4, count + 1)
    assert bool((edges[:, 1:] >= edges[:, :-1]).all())
    torch.testing.assert_close(edges[:, 0], torch.zeros(4).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(edges[:, -1], torch.ones(4).double(), rtol=0, atol=1e-9)
    share = old.weights + 0.01 / 6
    share = share / share.sum(-1, keepdim=True)
    for ray in range(4):
        held = [
            held_between(old.edges[ray], share[ray], *pair) for pair in zip(edges[ray], edges[ray, 1:], strict=False)
        ]
        inner = held[1:-1] if jittered else held
        assert inner == pytest.approx([1 / count] * len(inner), abs=1e-5)


def held_between(edges: torch.Tensor, share: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> float:
    """The share between two places of a histogram that is flat in each interval."""
    overlap = (torch.minimum(edges[1:], high) - torch.maximum(edges[:-1], low)).clamp(min=0)
    return float((share * overlap / (edges[1:] - edges[:-1])).sum())


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0], [0.0, 1e-30, 0.0], [1.0, 0.0, 0.0], [1e-38, 1e-38, 1.0]])
def test_extreme_weights_give_whole_intervals(weights):
    edges = torch.tensor([[0.0, 1e-6, 1 - 1e-6, 1.0]])
    new = resample_histogram(Histogram(edges, torch.tensor([weights])), 8, rng())
    assert bool(torch.isfinite(new).all())
    assert bool((new[:, 1:] >= new[:, :-1]).all())
    assert float(new[0, 0]) == 0
    assert float(new[0, -1]) == pytest.approx(1)


def test_even_intervals_are_moved_together():
    assert torch.equal(uniform_edges(2, 4, None, CPU), torch.tensor([[0, 0.25, 0.5, 0.75, 1.0]] * 2))
    moved = uniform_edges(50, 4, rng(), CPU)
    shift = moved[:, 1:-1] - torch.tensor([0.25, 0.5, 0.75])
    assert float(shift.abs().max()) <= 0.125
    torch.testing.assert_close(shift, shift[:, :1].expand(-1, 3), rtol=0, atol=1e-6)
    assert bool((moved[:, 0] == 0).all() & (moved[:, -1] == 1).all())
    assert float(shift.std()) > 0.05


@given(st.floats(1e-3, 5), st.floats(1.1, 1e6))
def test_edges_lie_between_near_and_far(near, ratio):
    edges = torch.linspace(0, 1, 9).double()[None]
    bounds = torch.tensor([near]).double(), torch.tensor([near * ratio]).double()
    for unbounded in (False, True):
        t = s_to_t(edges, *bounds, unbounded=unbounded)
        assert float(t[0, 0]) == pytest.approx(near)
        assert float(t[0, -1]) == pytest.approx(near * ratio)
        assert bool((t[:, 1:] > t[:, :-1]).all())


def test_half_of_an_open_ray_lies_within_the_distance_of_the_cameras():
    t = s_to_t(torch.tensor([[0.25, 0.5, 0.75]]).double(), torch.zeros(1).double(), torch.tensor([1e8]), unbounded=True)
    assert t[0].tolist() == pytest.approx([0.5, 1, 2], rel=1e-6)
    assert math.isfinite(float(s_to_t(torch.ones(1, 1), torch.zeros(1), torch.full((1,), 1e30), unbounded=True)))


@given(st.floats(0, 1e6))
def test_folding_can_be_undone(t):
    place = contract_distance(torch.tensor([t]).double())
    assert 0 <= float(place) <= 1
    assert float(uncontract_distance(place)) == pytest.approx(t, rel=1e-6, abs=1e-12)


def test_no_rays():
    assert uniform_edges(0, 3, rng(), CPU).shape == (0, 4)
    none = Histogram(torch.zeros(0, 4), torch.zeros(0, 3))
    assert resample_histogram(none, 5, rng()).shape == (0, 6)
    assert float(distortion_loss(none)) == float(interlevel_loss(none, none)) == 0
    assert s_to_t(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), unbounded=True).shape == (0, 4)
