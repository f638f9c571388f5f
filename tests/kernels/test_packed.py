from __future__ import annotations

import math

import loops
import pytest
import torch
from loops import SIZES, Backend, assert_same, packed
from torch import Tensor

from lumifield import kernels
from lumifield.kernels import reference

# float32 against double precision, over up to 936 samples a ray.
VALUES, GRADIENTS = 2e-6, 5e-6


def weighted(optical_depth: Tensor, offsets: Tensor, gradient: Tensor, device: str = "cpu") -> dict[str, Tensor]:
    """Weights and the gradient of the optical_depth."""
    optical_depth = optical_depth.detach().to(device).requires_grad_()
    weights = kernels.packed_weights(optical_depth, offsets.to(device))
    (slope,) = torch.autograd.grad(weights, optical_depth, gradient.to(device))
    return {"weights": weights.detach(), "d_thickness": slope}


def by_loops(optical_depth: Tensor, offsets: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """The same by loops."""
    return {
        "weights": loops.packed_weights(optical_depth, offsets),
        "d_thickness": loops.packed_weights_gradient(gradient, optical_depth, offsets),
    }


@pytest.mark.parametrize("n", SIZES)
def test_weights_and_gradient_equal_loops(backend: Backend, n: int, generator: torch.Generator) -> None:
    optical_depth, gradient = torch.rand(n, generator=generator) * 0.1, torch.randn(n, generator=generator)
    actual = weighted(optical_depth, packed(n), gradient, backend.device)
    assert_same(actual, by_loops(optical_depth, packed(n), gradient), GRADIENTS)


def test_no_rays(backend: Backend) -> None:
    actual = weighted(torch.zeros(0), torch.tensor([0]), torch.zeros(0), backend.device)
    assert [len(x) for x in actual.values()] == [0, 0]


def test_constant_density_is_a_geometric_series(backend: Backend) -> None:
    weights = kernels.packed_weights(
        torch.full((100,), 0.05).to(backend.device), torch.tensor([0, 100]).to(backend.device)
    )
    expected = (1 - math.exp(-0.05)) * torch.exp(-0.05 * torch.arange(100))
    assert_same({"weights": weights}, {"weights": expected}, VALUES)


def test_weights_of_a_ray_sum_to_its_opacity(backend: Backend, generator: torch.Generator) -> None:
    optical_depth, offsets = torch.rand(1000, generator=generator) * 0.01, packed(1000)
    weights = kernels.packed_weights(optical_depth.to(backend.device), offsets.to(backend.device))
    total = kernels.segment_sum(weights[:, None], offsets.to(backend.device))
    expected = -torch.expm1(-loops.segment_sum(optical_depth[:, None], offsets))
    assert_same({"opacity": total}, {"opacity": expected}, VALUES)


@pytest.mark.parametrize("opaque", [1e4, 1e10, 1e30, math.inf])
def test_an_opaque_sample_takes_what_is_left_and_hides_the_rest(backend: Backend, opaque: float) -> None:
    optical_depth = torch.tensor([0.1, opaque, 0.2, 0.3, 0.4])
    gradient = torch.tensor([1.0, 2.0, -3.0, 4.0, 5.0])
    offsets = torch.tensor([0, 3, 5])
    actual = weighted(optical_depth, offsets, gradient, backend.device)
    assert_same(actual, by_loops(optical_depth, offsets, gradient), 1e-5)
    assert weighted(torch.tensor([opaque]), torch.tensor([0, 1]), torch.ones(1), backend.device)["weights"].item() == 1


@pytest.mark.parametrize("magnitude", [1e-30, 1e-10, 1e-4, 1.0, 1e10])
def test_extreme_thickness_stays_finite_and_keeps_its_digits(
    backend: Backend, magnitude: float, generator: torch.Generator
) -> None:
    optical_depth = (torch.rand(100, generator=generator) + 0.5) * magnitude
    gradient, offsets = torch.randn(100, generator=generator), torch.tensor([0, 0, 100])
    actual = weighted(optical_depth, offsets, gradient, backend.device)
    for name, got in actual.items():
        assert got.isfinite().all(), name
    scale = min(magnitude, 1)
    expected = loops.packed_weights(optical_depth, offsets) / scale
    assert_same({"weights": actual["weights"].cpu().double() / scale}, {"weights": expected}, VALUES)


def test_small_opacities_keep_their_digits(backend: Backend) -> None:
    """Each weight alone, relative to itself: 1 - exp(-tau) must not cancel."""
    optical_depth = torch.logspace(-8, 1, 200)
    offsets = torch.arange(201)
    weights = kernels.packed_weights(optical_depth.to(backend.device), offsets.to(backend.device)).cpu().double()
    expected = -torch.expm1(-optical_depth.double())
    assert_same({"relative weights": weights / expected}, {"relative weights": torch.ones(200)}, 1e-6)


def test_gradient_equals_differences(fast: Backend, generator: torch.Generator) -> None:
    """A directional difference of float32 outputs, long enough to stand out of their rounding."""
    optical_depth, gradient = torch.rand(100, generator=generator) * 0.2 + 0.1, torch.randn(100, generator=generator)
    step, offsets = 0.01 * torch.randn(100, generator=generator), packed(100)

    def objective(optical_depth: Tensor) -> float:
        weights = kernels.packed_weights(optical_depth.to(fast.device), offsets.to(fast.device))
        return (weights.cpu().double() * gradient).sum().item()

    slope = weighted(optical_depth, offsets, gradient, fast.device)["d_thickness"].cpu()
    difference = (objective(optical_depth + step) - objective(optical_depth - step)) / 2
    assert (slope * step).sum().item() == pytest.approx(difference, rel=1e-3)


def test_reference_weights_pass_gradcheck_twice(generator: torch.Generator) -> None:
    optical_depth = torch.rand(9, generator=generator).double().requires_grad_()
    offsets = torch.tensor([0, 0, 1, 6, 9])
    assert torch.autograd.gradcheck(lambda tau: reference.packed_weights(tau, offsets), optical_depth)
    assert torch.autograd.gradgradcheck(lambda tau: reference.packed_weights(tau, offsets), optical_depth)


def test_double_backward_of_weights_raises(fast: Backend) -> None:
    optical_depth = torch.rand(5).to(fast.device).requires_grad_()
    weights = kernels.packed_weights(optical_depth, torch.tensor([0, 2, 5]).to(fast.device))
    (slope,) = torch.autograd.grad(weights.square().sum(), optical_depth, create_graph=True)
    with pytest.raises(RuntimeError, match=r"packed_weights_backward.* no autograd formula was registered"):
        torch.autograd.grad(slope.sum(), optical_depth)


def test_second_order_of_the_reference_equals_differences(generator: torch.Generator) -> None:
    optical_depth, step = torch.rand(2, 9, generator=generator).double().unbind()
    offsets = torch.tensor([0, 4, 9])

    def slope(optical_depth: Tensor) -> Tensor:
        objective = reference.packed_weights(optical_depth, offsets).square().sum()
        return torch.autograd.grad(objective, optical_depth, create_graph=True)[0].square().sum()

    optical_depth.requires_grad_()
    (second,) = torch.autograd.grad(slope(optical_depth), optical_depth)
    difference = (slope(optical_depth + 1e-6 * step) - slope(optical_depth - 1e-6 * step)).item() / 2e-6
    assert (second * step).sum().item() == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("columns", [1, 3, 8])
@pytest.mark.parametrize("n", SIZES)
def test_segment_sum_equals_loops(backend: Backend, n: int, columns: int, generator: torch.Generator) -> None:
    values = torch.randn(n, columns, generator=generator)
    gradient = torch.randn(5, columns, generator=generator)
    at = values.to(backend.device).requires_grad_()
    sums = kernels.segment_sum(at, packed(n).to(backend.device))
    (slope,) = torch.autograd.grad(sums, at, gradient.to(backend.device))
    copies = [gradient[r] for r, count in enumerate(packed(n).diff().tolist()) for _ in range(count)]
    expected = {
        "sums": loops.segment_sum(values, packed(n)),
        "d_values": torch.stack(copies) if copies else torch.zeros(0, columns),
    }
    assert_same({"sums": sums, "d_values": slope}, expected, VALUES)


@pytest.mark.parametrize("magnitude", [1e-30, 1e10])
def test_extreme_sums_stay_finite(backend: Backend, magnitude: float, generator: torch.Generator) -> None:
    values = torch.randn(100, 3, generator=generator) * magnitude
    sums = kernels.segment_sum(values.to(backend.device), packed(100).to(backend.device)).cpu().double()
    assert_same({"sums": sums / magnitude}, {"sums": loops.segment_sum(values, packed(100)) / magnitude}, VALUES)


def test_reference_sum_passes_gradcheck_twice(generator: torch.Generator) -> None:
    values = torch.randn(6, 2, generator=generator).double().requires_grad_()
    offsets = torch.tensor([0, 0, 2, 6])
    assert torch.autograd.gradcheck(lambda x: reference.segment_sum(x, offsets), values)
    assert torch.autograd.gradgradcheck(lambda x: reference.segment_sum(x, offsets).square(), values)


def test_strided_inputs_are_read_right(backend: Backend, generator: torch.Generator) -> None:
    every_other = torch.rand(200, 3, generator=generator).to(backend.device)[::2]
    offsets = packed(100).to(backend.device)
    column = every_other[:, 1]
    assert_same(
        {
            "sums": kernels.segment_sum(every_other, offsets),
            "weights": kernels.packed_weights(column, offsets),
        },
        {
            "sums": loops.segment_sum(every_other.cpu(), packed(100)),
            "weights": loops.packed_weights(column.cpu(), packed(100)),
        },
        VALUES,
    )
