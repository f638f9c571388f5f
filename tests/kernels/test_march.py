from __future__ import annotations

import loops
import pytest
import torch
from loops import SLACK, Backend, Walk
from torch import Tensor

from lumifield import kernels
from lumifield.kernels import reference

BOX = torch.tensor([[-1.0, -2.0, -0.5], [1.0, 1.5, 2.0]])
Packed = tuple[Tensor, Tensor, Tensor, Tensor]


def rays(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Rays of unit direction from all around towards the box; every fifth looks away and misses it."""
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * 4
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator) * 0.7 - origins, dim=-1)
    directions[::5] *= -1
    near, far = torch.full((n,), 0.2), torch.full((n,), 7.0)
    jitter = torch.rand(n, generator=generator)
    return {"origins": origins, "directions": directions, "near": near, "far": far, "jitter": jitter}


def walked(rays: dict[str, Tensor], walk: Walk, device: str) -> Packed:
    """The intervals, on the CPU."""
    moved = [x.to(device) for x in (*rays.values(), walk.occupied, walk.box)]
    t0, t1, ray, offsets = (x.cpu() for x in kernels.march(*moved, walk.contracted, walk.step, walk.cone))
    return t0, t1, ray, offsets


def assert_packed(intervals: Packed, n: int) -> None:
    """Offsets, ray numbers and the order of t fit together."""
    t0, t1, ray, offsets = intervals
    assert (t0.dtype, t1.dtype, ray.dtype, offsets.dtype) == (torch.float32, torch.float32, torch.int32, torch.int64)
    assert len(t0) == len(t1) == len(ray) == offsets[-1]
    assert len(offsets) == n + 1
    assert offsets[0] == 0
    assert (offsets.diff() >= 0).all()
    assert torch.equal(ray.long(), reference.ray_of(offsets, len(t0)))
    assert (t1 > t0).all()
    same = ray[1:] == ray[:-1]
    assert (t0[1:] - t1[:-1])[same].ge(-1e-5).all(), "intervals overlap"


def assert_like_loops(intervals: Packed, rays: dict[str, Tensor], walk: Walk) -> int:
    """Every interval that rounding cannot decide is kept or left out as the loops say; returns how many were kept."""
    t0, t1, _, offsets = intervals
    certain = 0
    for r in range(len(offsets) - 1):
        mine = slice(int(offsets[r]), int(offsets[r + 1]))
        found = dict(zip(t0[mine].tolist(), t1[mine].tolist(), strict=True))
        for step in loops.march({name: x[r] for name, x in rays.items()}, walk):
            near = [t for t in found if abs(t - step.t0) < SLACK]
            if near:
                assert found.pop(near[0]) == pytest.approx(step.t1, abs=SLACK)
            if step.margin > 10 * SLACK:
                assert bool(near) == step.keep, f"ray {r}, t {step.t0}"
                certain += step.keep
        assert not found, f"ray {r} has intervals that the loops never see: {found}"
    return certain


@pytest.mark.parametrize("contracted", [False, True])
@pytest.mark.parametrize("cone", [0.0, 0.05])
@pytest.mark.parametrize("n", [0, 1, 63])
def test_intervals_equal_loops(
    backend: Backend, n: int, cone: float, contracted: bool, generator: torch.Generator
) -> None:
    occupied = torch.rand(8, 8, 8, generator=generator) > 0.5
    walk, sent = Walk(occupied, BOX, contracted, 0.2, cone), rays(n, generator)
    intervals = walked(sent, walk, backend.device)
    assert_packed(intervals, n)
    certain = assert_like_loops(intervals, sent, walk)
    assert certain > 3 * n or n < 63


@pytest.mark.parametrize("contracted", [False, True])
def test_back_ends_agree(fast: Backend, contracted: bool, generator: torch.Generator) -> None:
    """The same intervals to the last one: no ray of these grazes a cell."""
    walk = Walk(torch.rand(8, 8, 8, generator=generator) > 0.5, BOX, contracted, 0.2, 0.05)
    sent = rays(63, generator)
    t0, t1, ray, offsets = walked(sent, walk, fast.device)
    with kernels.backend("reference"):
        expected = walked(sent, walk, "cpu")
    assert torch.equal(offsets, expected[3])
    assert torch.equal(ray, expected[2])
    loops.assert_same({"t0": t0, "t1": t1}, {"t0": expected[0], "t1": expected[1]}, 1e-6)


def test_rays_that_miss_the_box_have_no_intervals(backend: Backend) -> None:
    sent = rays(10, torch.Generator().manual_seed(0))
    sent["directions"] = sent["origins"] / 4
    t0, _, _, offsets = walked(sent, Walk(torch.ones(4, 4, 4, dtype=torch.bool), BOX, False, 0.1, 0.0), backend.device)
    assert len(t0) == 0
    assert torch.equal(offsets, torch.zeros(11, dtype=torch.int64))


def test_empty_space_has_no_intervals(backend: Backend, generator: torch.Generator) -> None:
    walk = Walk(torch.zeros(4, 4, 4, dtype=torch.bool), BOX, False, 0.2, 0.0)
    t0, _, _, offsets = walked(rays(63, generator), walk, backend.device)
    assert len(t0) == 0
    assert offsets.eq(0).all()


def test_full_space_covers_the_clipped_span(backend: Backend, generator: torch.Generator) -> None:
    """Without jitter the intervals of a ray join, and cover its way through the box up to one step."""
    sent = rays(63, generator)
    sent["jitter"] = torch.zeros(63)
    walk = Walk(torch.ones(4, 4, 4, dtype=torch.bool), BOX, False, 0.1, 0.0)
    t0, t1, ray, offsets = walked(sent, walk, backend.device)
    joined = (t0[1:] - t1[:-1])[ray[1:] == ray[:-1]]
    assert joined.abs().max() < 1e-5
    first, last = reference.box_span(sent["origins"], sent["directions"], sent["near"], sent["far"], BOX)
    hit = last - first > 0.2
    assert hit.sum() > 30
    starts, ends = t0[offsets[:-1][hit]], t1[offsets[1:][hit] - 1]
    assert (starts - first[hit]).abs().max() < 1e-5
    assert (ends - last[hit]).abs().max() < 0.1 + 1e-5


def test_axis_aligned_ray_stays_in_its_row_of_cells(backend: Backend) -> None:
    """A direction with zeros, and cells indexed z, y, x: only the occupied one is met."""
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[1, 2, 3] = True
    sent = {
        "origins": torch.tensor([[-1.0, 0.625, 0.375], [-1.0, 0.375, 0.625]]),
        "directions": torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        "near": torch.zeros(2),
        "far": torch.full((2,), 10.0),
        "jitter": torch.zeros(2),
    }
    walk = Walk(occupied, torch.tensor([[0.0, 0, 0], [1, 1, 1]]), False, 0.125, 0.0)
    t0, t1, _, offsets = walked(sent, walk, backend.device)
    assert offsets.tolist() == [0, 2, 2]
    assert t0.tolist() == [1.75, 1.875]
    assert t1.tolist() == [1.875, 2.0]


def test_cone_grows_the_steps(backend: Backend) -> None:
    sent = rays(1, torch.Generator().manual_seed(0))
    sent["directions"] = -sent["origins"] / 4
    walk = Walk(torch.ones(4, 4, 4, dtype=torch.bool), BOX, True, 0.05, 0.1)
    t0, t1, _, _ = walked(sent, walk, backend.device)
    loops.assert_same({"widths": t1 - t0}, {"widths": (0.1 * t0).clamp_min(0.05)}, 1e-6)
    assert t1[-1] - t0[-1] > 0.5


def test_contracted_walk_goes_far_beyond_the_box(backend: Backend) -> None:
    sent = rays(1, torch.Generator().manual_seed(0))
    sent["far"] = torch.full((1,), 1e4)
    walk = Walk(torch.ones(8, 8, 8, dtype=torch.bool), BOX, True, 0.1, 0.2)
    t0, t1, ray, offsets = walked(sent, walk, backend.device)
    assert t1[-1] >= 1e4
    assert_packed((t0, t1, ray, offsets), 1)


def test_jitter_moves_the_first_step(backend: Backend) -> None:
    sent = {name: x.expand(3, *x.shape[1:]).clone() for name, x in rays(1, torch.Generator().manual_seed(0)).items()}
    sent["directions"] = -sent["origins"] / 4
    sent["jitter"] = torch.tensor([0.0, 0.25, 0.75])
    walk = Walk(torch.ones(4, 4, 4, dtype=torch.bool), BOX, False, 0.1, 0.0)
    t0, _, _, offsets = walked(sent, walk, backend.device)
    starts = t0[offsets[:-1]]
    loops.assert_same({"starts": starts - starts[0]}, {"starts": torch.tensor([0.0, 0.025, 0.075])}, 1e-6)


def test_intervals_carry_no_gradient(backend: Backend) -> None:
    sent = rays(1, torch.Generator().manual_seed(1))
    sent["origins"].requires_grad_()
    moved = [x.to(backend.device) for x in (*sent.values(), torch.ones(2, 2, 2, dtype=torch.bool), BOX)]
    assert not kernels.march(*moved, True, 0.5, 0.0)[0].requires_grad


def test_contraction_fills_the_cube_and_is_continuous(generator: torch.Generator) -> None:
    bearing = torch.randn(200, 3, generator=generator).double()
    bearing = bearing / bearing.abs().amax(-1, keepdim=True)
    inside = bearing * torch.rand(200, 1, generator=generator)
    assert torch.equal(reference.contract_points(inside), inside)
    below, above = reference.contract_points(bearing * (1 - 1e-9)), reference.contract_points(bearing * (1 + 1e-9))
    assert (above - below).abs().max() < 1e-8
    far = reference.contract_points(bearing * 10 ** (10 * torch.rand(200, 1, generator=generator)))
    assert far.abs().max() <= 2
    assert reference.contract_points(bearing * 1e10).abs().amax(-1).sub(2).abs().max() < 1e-9
    assert (
        reference.to_unit_cube(bearing * 3, torch.tensor([[-1.0] * 3, [1.0] * 3]).double(), True) - 0.5
    ).abs().max() < 0.5
