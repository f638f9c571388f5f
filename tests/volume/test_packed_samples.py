import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays
from lumifield.runtime.rng import Rng
from lumifield.volume.occupancy import OccupancyGrid
from lumifield.volume.packed import PackedSamples, keep_visible, march_rays

SPACE = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]), False)


def rays_of(n: int, seed: int = 0, length: float = 1.0) -> Rays:
    """Rays from all round towards the cube, with directions of some length."""
    generator = torch.Generator().manual_seed(seed)
    origins = 3 * torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    targets = torch.rand(n, 3, generator=generator) * 2 - 1
    unit = torch.nn.functional.normalize(targets - origins, dim=-1)
    near, far = torch.full((n,), 0.5), torch.full((n,), 6.0)
    return Rays(
        origins,
        unit * length,
        unit,
        near * 0 + 0.01,
        near / length,
        far / length,
        torch.zeros(n).long(),
        origins[:, :2],
    )


def grid(share: float, seed: int = 0, side: int = 6) -> OccupancyGrid:
    cells = torch.rand(side, side, side, generator=torch.Generator().manual_seed(seed)) < share
    return OccupancyGrid(side, 0.1, cells)


def slow_march(rays: Rays, cells: torch.Tensor, jitter: float, step: float, cone: float) -> list[tuple]:
    """Ray by ray and step by step."""
    found, side = [], cells.shape[0]
    for ray in range(len(rays)):
        o, d = rays.origins[ray].double(), rays.directions[ray].double()
        a, b = (-1 - o) / d, (1 - o) / d
        t = max(float(torch.minimum(a, b).max()), float(rays.near[ray]))
        end = min(float(torch.maximum(a, b).min()), float(rays.far[ray]))
        t += jitter * max(cone * t, step)
        while t < end:
            width = max(cone * t, step)
            x, y, z = (((o + (t + width / 2) * d + 1) / 2) * side).floor().long().tolist()
            if max(x, y, z) < side and min(x, y, z) >= 0 and bool(cells[z, y, x]):
                found.append((ray, t, t + width))
            t += width
    return found


@pytest.mark.parametrize(("step", "cone"), [(0.13, 0.0), (0.05, 0.04)])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_march_equals_a_slow_walk(step, cone, share):
    rays, occupancy = rays_of(40), grid(share)
    packed = march_rays(rays, occupancy, SPACE, step, cone, None)
    slow = slow_march(rays, occupancy.occupied, 0.5, step, cone)
    # Rounding may put a sample on the face of a cell, or the last one before the end, to the other side.
    assert abs(len(packed) - len(slow)) <= 0.02 * len(slow)
    there = {(int(r), round(float(t), 3)) for r, t in zip(packed.ray, packed.t0, strict=True)}
    meant = {(r, round(t, 3)) for r, t, _ in slow}
    assert len(there ^ meant) <= 0.05 * len(meant)
    assert packed.offsets.tolist() == [int((packed.ray < r).sum()) for r in range(41)]
    torch.testing.assert_close(packed.t1 - packed.t0, (cone * packed.t0).clamp_min(step), rtol=1e-4, atol=1e-5)


def test_jitter_comes_from_the_draws():
    def starts(seed: int | None) -> torch.Tensor:
        rng = None if seed is None else Rng(torch.Generator().manual_seed(seed))
        packed = march_rays(rays_of(40), grid(1.0), SPACE, 0.1, 0.0, rng)
        return packed.t0[packed.offsets[:-1]]

    assert torch.equal(starts(None), starts(None))
    assert torch.equal(starts(1), starts(1))
    shift = (starts(1) - starts(None)) / 0.1
    assert float(shift.abs().max()) <= 0.5 + 1e-3
    assert float(shift.std()) > 0.2


def test_no_rays_and_no_cells():
    for packed in (
        march_rays(rays_of(0), grid(1.0), SPACE, 0.1, 0.0, None),
        march_rays(rays_of(3), grid(0.0), SPACE, 0.1, 0.0, None),
    ):
        assert len(packed) == 0
        assert set(packed.offsets.tolist()) == {0}
    few = march_rays(rays_of(3), grid(0.0), SPACE, 0.1, 0.0, None)
    kept = keep_visible(few, rays_of(3), lambda part: torch.ones(len(part)), min_weight=1e-3)
    assert (len(kept), kept.offsets.tolist()) == (0, [0, 0, 0, 0])


def test_points_and_widths_are_those_of_the_rays():
    rays = rays_of(10, length=2.5)
    packed = march_rays(rays, grid(1.0), SPACE, 0.1, 0.0, None)
    for row in (0, len(packed) // 2, len(packed) - 1):
        ray = int(packed.ray[row])
        middle = 0.5 * (packed.t0[row] + packed.t1[row])
        torch.testing.assert_close(packed.points(rays)[row], rays.origins[ray] + middle * rays.directions[ray])
    # An interval in t is as long as the direction says.
    torch.testing.assert_close(packed.lengths(rays), torch.full((len(packed),), 0.25), rtol=1e-3, atol=1e-5)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_rows_keep_their_rays(counts, data):
    offsets = torch.tensor([0, *counts]).cumsum(0)
    n = int(offsets[-1])
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).int()
    t = torch.arange(n).float()
    rows = sorted(data.draw(st.sets(st.integers(0, n - 1)))) if n else []
    kept = PackedSamples(t, t + 1, ray, offsets).select(torch.tensor(rows, dtype=torch.int64))
    assert kept.t0.tolist() == rows
    for index in range(len(counts)):
        mine = kept.ray[int(kept.offsets[index]) : int(kept.offsets[index + 1])]
        assert mine.tolist() == [index] * sum(int(ray[row]) == index for row in rows)


def slow_visible(packed: PackedSamples, optical_depth: torch.Tensor, least: float) -> list[int]:
    """The rows whose weight, by the definition, is more than `least`."""
    kept = []
    for ray in range(len(packed.offsets) - 1):
        before = 0.0
        for row in range(int(packed.offsets[ray]), int(packed.offsets[ray + 1])):
            tau = float(optical_depth[row])
            if -math.expm1(-tau) * math.exp(-before) > least:
                kept.append(row)
            before += tau
    return kept


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([1e-4, 1e-2, 0.3]), st.sampled_from([0.01, 1.0, 50.0]))
def test_visible_samples_equal_a_slow_walk(seed, least, dense):
    rays = rays_of(6, seed)
    packed = march_rays(rays, grid(0.8, seed), SPACE, 0.02, 0.0, None)
    values = dense * torch.rand(len(packed), generator=torch.Generator().manual_seed(seed))
    at = {tuple(point): float(value) for point, value in zip(packed.points(rays).tolist(), values, strict=True)}
    kept = keep_visible(
        packed, rays, lambda part: torch.tensor([at[tuple(q)] for q in part.points(rays).tolist()]), min_weight=least
    )
    optical_depth = values * packed.lengths(rays)
    slow = slow_visible(packed, optical_depth, least)
    rows = torch.searchsorted(
        packed.ray.double() * 100 + packed.t0.double(), kept.ray.double() * 100 + kept.t0.double()
    )
    # A weight that equals the limit to rounding may fall on either side.
    assert len(set(rows.tolist()) ^ set(slow)) <= 1 + 0.01 * len(slow)


def test_what_lies_behind_opaque_matter_is_not_looked_at():
    rays, looked = rays_of(5), []
    packed = march_rays(rays, grid(1.0), SPACE, 0.005, 0.0, None)

    def density(part):
        looked.append(len(part))
        return torch.full((len(part),), 1e4)

    kept = keep_visible(packed, rays, density, min_weight=1e-3)
    assert looked == [5 * 16]
    assert torch.equal(kept.t0, packed.t0[packed.offsets[:-1]])


@pytest.mark.parametrize(("value", "left"), [(0.0, 0.0), (1e-30, 0.0), (1e30, 1.0), (torch.inf, 1.0)])
def test_extreme_densities(value, left):
    rays = rays_of(5)
    packed = march_rays(rays, grid(1.0), SPACE, 0.05, 0.0, None)
    kept = keep_visible(packed, rays, lambda part: torch.full((len(part),), value), min_weight=1e-3)
    assert len(kept) == 5 * left


def test_footprints_grow_with_the_distance_but_in_cylinders():
    rays = rays_of(4)
    packed = march_rays(rays, grid(1.0), SPACE, 0.05, 0.0, None)
    for ray, t0, t1, cone, cylinder in zip(
        packed.ray.tolist(),
        packed.t0.tolist(),
        packed.t1.tolist(),
        packed.pixel_widths(rays, cylinders=False).tolist(),
        packed.pixel_widths(rays, cylinders=True).tolist(),
        strict=True,
    ):
        assert cylinder == float(rays.radius[ray])
        assert cone == pytest.approx(cylinder * (t0 + t1) / 2)


def packed_of(counts: list[int], seed: int) -> tuple[PackedSamples, torch.Tensor]:
    """Rays of so many intervals each, with gaps between some of them, and weights that sum to at most one on each."""
    generator = torch.Generator().manual_seed(seed)
    t0, t1, weights = [], [], []
    for count in counts:
        edges = (1 + 4 * torch.rand(2 * count, generator=generator)).sort().values
        t0.append(edges[::2])
        t1.append(edges[1::2])
        weight = torch.rand(count, generator=generator)
        weights.append(weight / weight.sum().clamp_min(1) if count else weight)
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    offsets = torch.tensor([0, *counts]).cumsum(0)
    return PackedSamples(torch.cat(t0), torch.cat(t1), ray, offsets), torch.cat(weights)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 999))
def test_half_of_the_weight_lies_before_the_median(counts, seed):
    packed, weights = packed_of(counts, seed)
    far = torch.full((len(counts),), 9.0)
    median = packed.median(weights, far)
    for ray, count in enumerate(counts):
        if count == 0:
            assert float(median[ray]) == 9
            continue
        rows = slice(int(packed.offsets[ray]), int(packed.offsets[ray + 1]))
        inside = ((median[ray] - packed.t0[rows]) / (packed.t1[rows] - packed.t0[rows])).clamp(0, 1)
        before = float((inside * weights[rows]).sum() / weights[rows].sum())
        assert before == pytest.approx(0.5, abs=1e-3)


def test_the_median_of_a_wall_behind_fog_is_at_the_wall():
    packed = PackedSamples(
        torch.tensor([1.0, 4.0]), torch.tensor([3.0, 4.1]), torch.tensor([0, 0]), torch.tensor([0, 2])
    )
    assert 4 <= float(packed.median(torch.tensor([0.4, 0.6]), torch.tensor([9.0]))) <= 4.1
    assert packed.median(torch.tensor([1e-9, 0.0]), torch.tensor([9.0])).tolist() == [9]


def test_medians_without_samples_are_far():
    packed, weights = packed_of([0, 0], 0)
    assert packed.median(weights, torch.tensor([3.0, 4.0])).tolist() == [3, 4]
