from __future__ import annotations

import loops
import pytest
import torch
from loops import OFFSETS, RESOLUTIONS, SIZES, Backend, assert_same
from torch import Tensor

from lumifield import kernels
from lumifield.kernels import reference

# float32 against double precision: a point's place in its cell is rounded to 2^-24 of 37 cells.
VALUES, TABLE, POINTS = 5e-6, 5e-6, 5e-6


def drawn(n: int, features: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Points, some of them outside the cube, a table, and a gradient of the encoding."""
    points = torch.rand(n, 3, generator=generator) * 1.2 - 0.1
    table = torch.randn(OFFSETS[-1], features, generator=generator)
    return points, table, torch.randn(n, len(RESOLUTIONS) * features, generator=generator)


def encoded(points: Tensor, table: Tensor, gradient: Tensor, device: str = "cpu") -> dict[str, Tensor]:
    """Features and both gradients."""
    points, table = (x.detach().to(device).requires_grad_() for x in (points, table))
    features = kernels.grid_encode(points, table, RESOLUTIONS, OFFSETS)
    d_points, d_table = torch.autograd.grad(features, (points, table), gradient.to(device))
    return {"features": features.detach(), "d_points": d_points, "d_table": d_table}


@pytest.mark.parametrize("n", SIZES)
def test_features_equal_loops(backend: Backend, n: int, generator: torch.Generator) -> None:
    points, table, _ = drawn(n, 2, generator)
    features = kernels.grid_encode(points.to(backend.device), table.to(backend.device), RESOLUTIONS, OFFSETS)
    expected = loops.grid_encode(points, table, RESOLUTIONS, OFFSETS)
    assert_same({"features": features}, {"features": expected}, VALUES)


@pytest.mark.parametrize(("n", "width"), [(0, 2), (1, 2), (63, 3), (100, 1), (100, 8), (300, 2)])
def test_gradients_equal_reference(fast: Backend, n: int, width: int, generator: torch.Generator) -> None:
    points, table, gradient = drawn(n, width, generator)
    actual = encoded(points, table, gradient, fast.device)
    with kernels.backend("reference"):
        expected = encoded(points.double(), table.double(), gradient.double())
    for name, tolerance in (("features", VALUES), ("d_points", POINTS), ("d_table", TABLE)):
        assert_same({name: actual[name]}, {name: expected[name]}, tolerance)


def test_gradients_equal_reference_on_borders(fast: Backend) -> None:
    """At 0, at 1 and on a plane between cells the reference's side is taken; outside the slope is zero."""
    sides = torch.tensor([-0.5, 0.0, 0.25, 0.5, 1.0, 1.5])
    points = torch.cartesian_prod(sides, sides, sides)
    _, table, gradient = drawn(len(points), 2, torch.Generator().manual_seed(1))
    with kernels.backend("reference"):
        expected = encoded(points.double(), table.double(), gradient.double())
    actual = encoded(points, table, gradient, fast.device)
    assert_same(actual, expected, POINTS)
    outside = (points < 0) | (points > 1)
    assert (actual["d_points"].cpu()[outside] == 0).all()


def test_no_gradient_of_points_is_made_where_none_is_wanted(backend: Backend, generator: torch.Generator) -> None:
    points, table, gradient = (x.to(backend.device) for x in drawn(63, 2, generator))
    both = encoded(points, table, gradient, backend.device)["d_table"]
    table.requires_grad_()
    (alone,) = torch.autograd.grad(kernels.grid_encode(points, table, RESOLUTIONS, OFFSETS), table, gradient)
    assert_same({"d_table": alone}, {"d_table": both.cpu()}, TABLE)


def test_slopes_are_differences_of_features(fast: Backend, generator: torch.Generator) -> None:
    """Within a cell features are smooth, and linear in the table, so long steps are exact enough."""
    points, table, gradient = drawn(63, 2, generator)
    points = (points * 37).floor().clamp(0, 36) / 37 + 0.4 / 37  # the middle of a finest cell, and inside coarser ones
    keep = torch.tensor([(p * r - (p * r).round()).abs().min() > 0.02 for p in points for r in RESOLUTIONS])
    points, gradient = points[keep.view(-1, 4).all(1)], gradient[keep.view(-1, 4).all(1)]
    assert len(points) > 10
    slopes = encoded(points, table, gradient, fast.device)

    def objective(points: Tensor, table: Tensor) -> float:
        features = kernels.grid_encode(points.to(fast.device), table.to(fast.device), RESOLUTIONS, OFFSETS)
        return (features.cpu().double() * gradient).sum().item()

    step = 0.0004 * slopes["d_points"].cpu().sign()
    difference = (objective(points + step, table) - objective(points - step, table)) / 2
    assert (slopes["d_points"].cpu() * step).sum().item() == pytest.approx(difference, rel=1e-3)
    step = torch.randn(table.shape, generator=generator)
    difference = (objective(points, table + step) - objective(points, table - step)) / 2
    assert (slopes["d_table"].cpu() * step).sum().item() == pytest.approx(difference, rel=1e-4, abs=1e-4)


def test_linear_function_is_reproduced_on_a_dense_level(backend: Backend, generator: torch.Generator) -> None:
    side = torch.arange(6) / 5
    z, y, x = torch.meshgrid(side, side, side, indexing="ij")
    table = (1 + 2 * x - 3 * y + 0.5 * z).reshape(-1, 1)
    points = torch.rand(100, 3, generator=generator)
    features = kernels.grid_encode(points.to(backend.device), table.to(backend.device), [5], [0, 216])
    expected = 1 + points @ torch.tensor([[2.0], [-3.0], [0.5]])
    assert_same({"features": features}, {"features": expected}, VALUES)


def test_corners_show_their_rows(backend: Backend, generator: torch.Generator) -> None:
    """At a corner of the hashed level the features are the row that the formula names."""
    corners = torch.randint(0, 17, (20, 3), generator=generator)
    table = torch.randn(2048, 2, generator=generator)
    rows = [loops.corner_row((x, y, z), 16, 2048) for x, y, z in corners.tolist()]
    features = kernels.grid_encode((corners / 16).to(backend.device), table.to(backend.device), [16], [0, 2048])
    assert_same({"features": features}, {"features": table[rows]}, 0)


def test_weights_of_the_corners_sum_to_one(backend: Backend, generator: torch.Generator) -> None:
    points, _, _ = drawn(100, 2, generator)
    ones = torch.ones(OFFSETS[-1], 2)
    features = kernels.grid_encode(points.to(backend.device), ones.to(backend.device), RESOLUTIONS, OFFSETS)
    assert_same({"features": features}, {"features": torch.ones(100, 8)}, VALUES)


@pytest.mark.parametrize("magnitude", [1e-30, 1e10])
def test_extreme_tables_stay_finite(backend: Backend, magnitude: float, generator: torch.Generator) -> None:
    points, table, gradient = drawn(63, 2, generator)
    actual = encoded(points, table * magnitude, gradient, backend.device)
    with kernels.backend("reference"):
        expected = encoded(points.double(), table.double() * magnitude, gradient.double())
    for name, got in actual.items():
        assert got.isfinite().all(), name
    scales = {"features": magnitude, "d_points": magnitude, "d_table": 1}
    assert_same(
        {name: got.cpu().double() / scales[name] for name, got in actual.items()},
        {name: wanted / scales[name] for name, wanted in expected.items()},
        POINTS,
    )


@pytest.mark.parametrize("magnitude", [1e-30, 1e10])
def test_extreme_points_stay_finite(backend: Backend, magnitude: float, generator: torch.Generator) -> None:
    points, table, gradient = drawn(63, 2, generator)
    for name, got in encoded((points - 0.5) * magnitude, table, gradient, backend.device).items():
        assert got.isfinite().all(), name


def test_strided_inputs_are_read_right(backend: Backend, generator: torch.Generator) -> None:
    points, table, gradient = drawn(63, 2, generator)
    expected = encoded(points, table, gradient, backend.device)
    strided = encoded(points.T.contiguous().T, table.T.contiguous().T, gradient.T.contiguous().T, backend.device)
    assert_same(strided, {name: got.cpu() for name, got in expected.items()}, VALUES)


def test_reference_passes_gradcheck_twice(generator: torch.Generator) -> None:
    points = (torch.rand(3, 3, generator=generator) * 0.8 + 0.1).double().requires_grad_()
    table = torch.randn(57, 1, generator=generator).double().requires_grad_()

    def encode(points: Tensor, table: Tensor) -> Tensor:
        return reference.grid_encode(points, table, [2, 3], [0, 27, 57])

    assert torch.autograd.gradcheck(encode, (points, table))
    assert torch.autograd.gradgradcheck(encode, (points, table))


def test_double_backward_raises_and_the_reference_has_it(fast: Backend, generator: torch.Generator) -> None:
    points, table, _ = (x.to(fast.device) for x in drawn(5, 2, generator))
    points.requires_grad_()
    table.requires_grad_()
    features = kernels.grid_encode(points, table, RESOLUTIONS, OFFSETS)
    (slope,) = torch.autograd.grad(features.square().sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match=r"grid_encode_backward.* no autograd formula was registered"):
        torch.autograd.grad(slope.square().sum(), table)


def test_second_order_of_the_reference_equals_differences(generator: torch.Generator) -> None:
    points, table, _ = (x.double() for x in drawn(5, 2, generator))
    step = torch.randn(table.shape, generator=generator).double()

    def slope(table: Tensor, create_graph: bool = False) -> Tensor:
        at = points.clone().requires_grad_()
        objective = reference.grid_encode(at, table, RESOLUTIONS, OFFSETS).square().sum()
        return torch.autograd.grad(objective, at, create_graph=create_graph)[0].square().sum()

    table.requires_grad_()
    (second,) = torch.autograd.grad(slope(table, create_graph=True), table)
    ahead, back = slope(table + 1e-5 * step), slope(table - 1e-5 * step)
    assert (second * step).sum().item() == pytest.approx((ahead - back).item() / 2e-5, rel=1e-6)
