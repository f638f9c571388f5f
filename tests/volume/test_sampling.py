import pytest
import torch

from lumifield.runtime.rng import Rng
from lumifield.volume.sampling import (
    blur_weights,
    linspace_depths,
    merge_depths,
    midpoints,
    resample,
    resample_edges,
    sample_stratified,
)


def rng(seed: int = 0, rank: int = 0, world: int = 1) -> Rng:
    return Rng(torch.Generator().manual_seed(seed), rank, world)


@pytest.mark.parametrize("disparity", [False, True])
@pytest.mark.parametrize("count", [1, 2, 63])
def test_spaced_equals_loops(disparity: bool, count: int):
    near, far = torch.tensor([0.5, 2.0, 1e-3]), torch.tensor([1.0, 6.0, 1e4])
    found = linspace_depths(near, far, count, disparity=disparity)
    for ray in range(3):
        a, b = float(near[ray]), float(far[ray])
        for i in range(count):
            s = i / max(count - 1, 1)
            expected = 1 / ((1 - s) / a + s / b) if disparity else a + s * (b - a)
            assert float(found[ray, i]) == pytest.approx(expected, rel=1e-5)


def test_spaced_in_disparity_has_even_inverse():
    found = linspace_depths(torch.tensor([1.5]), torch.tensor([90.0]), 20, disparity=True)
    steps = (1 / found).diff(dim=-1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=1e-3, atol=1e-6)


def test_stratified_without_draws_leaves_points_where_they_are():
    z = linspace_depths(torch.tensor([2.0]), torch.tensor([6.0]), 9)
    assert sample_stratified(z, None) is z
    assert sample_stratified(z, rng(), jitter=0.0) is z


@pytest.mark.parametrize("jitter", [0.3, 1.0])
def test_stratified_fills_each_cell_evenly(jitter: float):
    z = torch.tensor([[1.0, 2.0, 4.0, 5.0]])
    cells = [(1.0, 1.5), (1.5, 3.0), (3.0, 4.5), (4.5, 5.0)]
    found = sample_stratified(z.expand(20_000, 4), rng(), jitter=jitter)
    for column, (low, high) in enumerate(cells):
        share = (found[:, column] - low) / (high - low)
        assert float(share.min()) >= 0
        assert float(share.max()) <= jitter
        counts = torch.histc(share, 10, 0, jitter)
        assert float((counts / 2000 - 1).abs().max()) < 0.15
    assert bool((found.diff(dim=-1) >= 0).all())


def test_two_processes_see_what_one_sees():
    z = linspace_depths(torch.full((8,), 2.0), torch.full((8,), 6.0), 5)
    whole = sample_stratified(z, rng(3))
    for rank in range(2):
        part = sample_stratified(z[rank::2], rng(3, rank, 2))
        assert torch.equal(part, whole[rank::2])


def invert(t: list[float], weights: list[float], u: float, *, padding: float = 1e-5) -> float:
    """Walks along the intervals until their share reaches u."""
    shares = [w + padding for w in weights]
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
    found = resample(t, weights, 40_000, rng(1))[0]
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
    found = resample(t, weights, 33, rng() if random else None)
    assert bool(torch.isfinite(found).all())
    assert float(found.min()) >= 1
    assert float(found.max()) <= 2


def test_no_gradient_flows_through_resampled_points():
    weights = torch.rand(2, 4, requires_grad=True)
    assert not resample(torch.linspace(0, 1, 5).expand(2, 5), weights, 6, None).requires_grad


def test_no_rays():
    none = torch.zeros(0)
    z = linspace_depths(none, none, 7)
    assert sample_stratified(z, rng()).shape == (0, 7)
    assert resample(midpoints(z), z[:, 1:-1], 5, rng()).shape == (0, 5)
    assert merge_depths(z, z).shape == (0, 14)


def test_union_is_sorted_and_keeps_every_point():
    a, b = torch.tensor([[1.0, 3.0, 5.0]]), torch.tensor([[4.0, 2.0]])
    assert merge_depths(a, b).tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]


def test_middles():
    assert midpoints(torch.tensor([[0.0, 2.0, 3.0]])).tolist() == [[1.0, 2.5]]


def test_blurred_weights_that_are_known():
    assert blur_weights(torch.tensor([[0.0, 0.2, 0.8, 0.0]]), 0.01)[0].tolist() == pytest.approx(
        [0.11, 0.51, 0.81, 0.41]
    )


@pytest.mark.parametrize("count", [1, 2, 7])
def test_blurred_weights_equal_loops(count: int):
    weights = torch.rand(5, count, generator=torch.Generator().manual_seed(count))
    found = blur_weights(weights, 0.02)
    for row, w in enumerate(weights.tolist()):
        for i in range(count):
            left, right = w[max(i - 1, 0)], w[min(i + 1, count - 1)]
            expected = 0.5 * (max(left, w[i]) + max(w[i], right)) + 0.02
            assert float(found[row, i]) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 4, 128])
def test_edges_by_weight_invert_the_sum(count: int):
    generator = torch.Generator().manual_seed(count)
    t = torch.rand(6, 10, generator=generator).cumsum(-1)
    weights = torch.rand(6, 9, generator=generator) ** 4 + 0.01
    found = resample_edges(t, weights, count, None)
    assert found.shape == (6, count + 1)
    for row in range(6):
        share = (weights[row] / weights[row].sum()).tolist()
        for k in range(count + 1):
            expected = invert(t[row].tolist(), share, k / count, padding=0.0)
            assert float(found[row, k]) == pytest.approx(expected, abs=1e-4)


def test_edges_are_drawn_one_in_each_stratum_evenly():
    t = torch.linspace(0, 1, 5).expand(4000, 5)
    found = resample_edges(t, torch.full((4000, 4), 0.25), 9, rng())
    strata = found * 10 - torch.arange(10)
    assert float(strata.min()) > -1e-4
    assert float(strata.max()) < 1 + 1e-4
    for column in range(10):
        counts = torch.histc(strata[:, column], 5, 0, 1)
        assert float((counts / 800 - 1).abs().max()) < 0.15


def test_edges_drawn_by_weight_are_distributed_like_it():
    weights = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).expand(3000, 4)
    found = resample_edges(torch.linspace(0, 1, 5).expand(3000, 5), weights, 7, rng())
    counts = torch.histc(found, 4, 0, 1) / found.numel()
    assert counts.tolist() == pytest.approx([0.1, 0.0, 0.6, 0.3], abs=0.01)


@pytest.mark.parametrize("jittered", [False, True])
@pytest.mark.parametrize("weights", [[0.0] * 4, [1e-38] * 4, [1e30, 0, 0, 1e-30], [0, 0, 0, 5.0], [1e-12, 1, 0, 0]])
def test_edges_of_extreme_weights_rise_from_near_to_far(weights: list[float], jittered: bool):
    t = torch.tensor([[2.0, 2.0, 3.0, 1e6, 1e7]])
    found = resample_edges(t, torch.tensor([weights]), 20, rng() if jittered else None)
    assert bool(torch.isfinite(found).all())
    assert bool((found.diff(dim=-1) >= 0).all())
    assert float(found.min()) >= 2
    assert float(found.max()) <= 1e7


def test_gradients_of_edges_and_blurring():
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    t = torch.rand(2, 6, generator=generator, dtype=torch.float64).cumsum(-1)
    assert torch.autograd.gradcheck(lambda w: blur_weights(w, 0.01), weights)

    def inner(w: torch.Tensor) -> torch.Tensor:
        return resample_edges(t, w, 6, None)[:, 1:-1]

    assert torch.autograd.gradcheck(inner, weights, atol=1e-4)


def test_edges_in_two_processes_are_those_of_one():
    t, weights = torch.linspace(0, 1, 5).expand(8, 5), torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    whole = resample_edges(t, weights, 5, rng(3))
    for rank in range(2):
        assert torch.equal(resample_edges(t[rank::2], weights[rank::2], 5, rng(3, rank, 2)), whole[rank::2])


def test_no_rays_have_no_edges():
    assert resample_edges(torch.zeros(0, 4), torch.zeros(0, 3), 5, rng()).shape == (0, 6)
    assert blur_weights(torch.zeros(0, 3), 0.1).shape == (0, 3)
