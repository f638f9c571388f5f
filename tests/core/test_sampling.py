import pytest
import torch

from lumifield.core.randomness import Draws
from lumifield.core.sampling import middles, resample, spaced, stratified, union


def draws(seed: int = 0, rank: int = 0, world: int = 1) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), rank, world)


@pytest.mark.parametrize("disparity", [False, True])
@pytest.mark.parametrize("count", [1, 2, 63])
def test_spaced_equals_loops(disparity: bool, count: int):
    near, far = torch.tensor([0.5, 2.0, 1e-3]), torch.tensor([1.0, 6.0, 1e4])
    found = spaced(near, far, count, disparity=disparity)
    for ray in range(3):
        a, b = float(near[ray]), float(far[ray])
        for i in range(count):
            s = i / max(count - 1, 1)
            expected = 1 / ((1 - s) / a + s / b) if disparity else a + s * (b - a)
            assert float(found[ray, i]) == pytest.approx(expected, rel=1e-5)


def test_spaced_in_disparity_has_even_inverse():
    found = spaced(torch.tensor([1.5]), torch.tensor([90.0]), 20, disparity=True)
    steps = (1 / found).diff(dim=-1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=1e-3, atol=1e-6)


def test_stratified_without_draws_leaves_points_where_they_are():
    z = spaced(torch.tensor([2.0]), torch.tensor([6.0]), 9)
    assert stratified(z, None) is z
    assert stratified(z, draws(), perturb=0.0) is z


@pytest.mark.parametrize("perturb", [0.3, 1.0])
def test_stratified_fills_each_cell_evenly(perturb: float):
    z = torch.tensor([[1.0, 2.0, 4.0, 5.0]])
    cells = [(1.0, 1.5), (1.5, 3.0), (3.0, 4.5), (4.5, 5.0)]
    found = stratified(z.expand(20_000, 4), draws(), perturb=perturb)
    for column, (low, high) in enumerate(cells):
        share = (found[:, column] - low) / (high - low)
        assert float(share.min()) >= 0
        assert float(share.max()) <= perturb
        counts = torch.histc(share, 10, 0, perturb)
        assert float((counts / 2000 - 1).abs().max()) < 0.15
    assert bool((found.diff(dim=-1) >= 0).all())


def test_two_processes_see_what_one_sees():
    z = spaced(torch.full((8,), 2.0), torch.full((8,), 6.0), 5)
    whole = stratified(z, draws(3))
    for rank in range(2):
        part = stratified(z[rank::2], draws(3, rank, 2))
        assert torch.equal(part, whole[rank::2])


def invert(t: list[float], weights: list[float], u: float) -> float:
    """Walks along the intervals until their share reaches u."""
    shares = [w + 1e-5 for w in weights]
    left = u * sum(shares)
    for i, share in enumerate(shares):
        if left < share:
            return t[i] + left / share * (t[i + 1] - t[i])
        left -= share
    return t[-1]


@pytest.mark.parametrize("intervals", [1, 2, 63])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_resample_on_a_grid_equals_a_walk(intervals: int, scale: float):
    generator = torch.Generator().manual_seed(intervals)
    t = torch.rand(4, intervals + 1, generator=generator).cumsum(-1) * scale
    weights = torch.rand(4, intervals, generator=generator) ** 4
    weights[1] = 0
    found = resample(t, weights, 17, None)
    for ray in range(4):
        for i in range(17):
            expected = invert(t[ray].tolist(), weights[ray].tolist(), i / 16)
            assert float(found[ray, i]) == pytest.approx(expected, rel=2e-4, abs=1e-6 * scale)


def test_resample_reproduces_the_weights():
    t = torch.tensor([[0.0, 1.0, 1.5, 4.0, 5.0]])
    weights = torch.tensor([[0.1, 0.0, 0.6, 0.3]])
    found = resample(t, weights, 40_000, draws(1))[0]
    for i, share in enumerate(weights[0].tolist()):
        inside = (found >= t[0, i]) & (found < t[0, i + 1])
        assert float(inside.float().mean()) == pytest.approx(share, abs=0.01)
    # even within an interval
    third = found[(found >= 1.5) & (found < 4.0)]
    counts = torch.histc(third, 5, 1.5, 4.0)
    assert float((counts / counts.mean() - 1).abs().max()) < 0.06


def test_an_empty_ray_is_resampled_evenly():
    t = torch.linspace(2, 6, 9)[None]
    found = resample(t, torch.zeros(1, 8), 9, None)
    torch.testing.assert_close(found, t, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("magnitude", [0.0, 1e-38, 1e-10, 1.0, 1e10, 1e30])
@pytest.mark.parametrize("random", [False, True])
def test_resample_stays_within_the_ray_at_any_magnitude(magnitude: float, random: bool):
    t = torch.linspace(1, 2, 12).expand(5, 12)
    weights = torch.zeros(5, 11)
    weights[:, 4] = magnitude
    found = resample(t, weights, 33, draws() if random else None)
    assert bool(torch.isfinite(found).all())
    assert float(found.min()) >= 1
    assert float(found.max()) <= 2


def test_no_gradient_flows_through_resampled_points():
    weights = torch.rand(2, 4, requires_grad=True)
    assert not resample(torch.linspace(0, 1, 5).expand(2, 5), weights, 6, None).requires_grad


def test_no_rays():
    none = torch.zeros(0)
    z = spaced(none, none, 7)
    assert stratified(z, draws()).shape == (0, 7)
    assert resample(middles(z), z[:, 1:-1], 5, draws()).shape == (0, 5)
    assert union(z, z).shape == (0, 14)


def test_union_is_sorted_and_keeps_every_point():
    a, b = torch.tensor([[1.0, 3.0, 5.0]]), torch.tensor([[4.0, 2.0]])
    assert union(a, b).tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]


def test_middles():
    assert middles(torch.tensor([[0.0, 2.0, 3.0]])).tolist() == [[1.0, 2.5]]
