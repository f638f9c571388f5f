import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumifield.volume.compositing import (
    OPAQUE_LENGTH,
    composite_colors,
    expected_depth,
    interval_lengths,
    weights_from_density,
)


def slow_visible(density: list[float], width: list[float]) -> list[float]:
    """Alpha by alpha, as light goes."""
    left, weights = 1.0, []
    for sigma, delta in zip(density, width, strict=True):
        alpha = 1 - math.exp(-sigma * delta)
        weights.append(left * alpha)
        left *= 1 - alpha
    return weights


def test_numbers_worked_out_by_hand():
    z = torch.tensor([[2.0, 2.5, 3.0, 3.5]])
    weights = weights_from_density(
        torch.tensor([[0.0, 1.0, 5.0, 2.0]]), interval_lengths(z, torch.tensor([[0.0, 0.0, 1.0]]))
    )
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.393469, 0.556744, 0.049787]]), rtol=0, atol=1e-6)
    depth, opacity = expected_depth(weights, z, torch.tensor([6.0]))
    assert float(depth * opacity) == pytest.approx(2.828159, abs=1e-5)
    assert float(opacity) == pytest.approx(1.0, abs=1e-6)


def test_depth_is_divided_by_the_opacity():
    weights, z = torch.tensor([[0.1, 0.3], [0.0, 0.0]]), torch.tensor([[2.0, 4.0], [2.0, 4.0]])
    depth, opacity = expected_depth(weights, z, torch.tensor([6.0, 7.0]))
    torch.testing.assert_close(depth, torch.tensor([3.5, 7.0]))
    torch.testing.assert_close(opacity, torch.tensor([0.4, 0.0]))


def test_widths_end_where_told_and_count_in_length():
    z, directions = torch.tensor([[1.0, 1.5, 3.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    assert interval_lengths(z, directions, torch.tensor([4.0])).tolist() == [[1.0, 3.0, 2.0]]
    assert interval_lengths(z, directions, torch.tensor([2.0])).tolist() == [[1.0, 3.0, 0.0]]
    assert interval_lengths(z, directions).tolist() == [[1.0, 3.0, 2 * OPAQUE_LENGTH]]


@pytest.mark.parametrize("samples", [1, 2, 63, 1000])
def test_visible_equals_a_loop(samples: int):
    generator = torch.Generator().manual_seed(samples)
    density = 5 * torch.rand(3, samples, generator=generator, dtype=torch.float64) ** 2
    width = torch.rand(3, samples, generator=generator, dtype=torch.float64)
    expected = [slow_visible(d.tolist(), w.tolist()) for d, w in zip(density, width, strict=True)]
    torch.testing.assert_close(weights_from_density(density, width), torch.tensor(expected, dtype=torch.float64))


@given(st.integers(0, 10_000))
def test_weights_and_what_is_left_are_the_whole_light(seed: int):
    generator = torch.Generator().manual_seed(seed)
    optical_depth = torch.rand(2, 20, generator=generator, dtype=torch.float64) * 10 ** float(seed % 7 - 4)
    weights = weights_from_density(optical_depth, torch.ones_like(optical_depth))
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1) + torch.exp(-optical_depth.sum(-1)), torch.ones(2, dtype=torch.float64))


def test_splitting_an_interval_changes_nothing():
    once = weights_from_density(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.4, 0.3]]))
    split = weights_from_density(torch.tensor([[1.0, 2.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.1, 0.3, 0.3]]))
    torch.testing.assert_close(split[:, 1] + split[:, 2], once[:, 1])
    torch.testing.assert_close(split[:, 3], once[:, 2])


def test_blend_shows_the_background_through():
    weights, rgb = torch.tensor([[0.25, 0.5], [0.0, 0.0]]), torch.ones(2, 2, 3) * torch.tensor([1.0, 0.0, 0.5])
    found = composite_colors(weights, rgb, torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25, 0.375], [0.0, 1.0, 0.0]]))
    each = composite_colors(weights, rgb, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert each[1].tolist() == [1.0, 0.0, 0.0]


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    density, width, z = (torch.rand(2, 4, generator=generator, dtype=torch.float64) + 0.1 for _ in range(3))
    density.requires_grad_(True)
    rgb = torch.rand(2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    background, far = torch.zeros(3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)

    def seen(density: torch.Tensor, rgb: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = weights_from_density(density, width)
        return composite_colors(weights, rgb, background), *expected_depth(weights, z, far)

    assert torch.autograd.gradcheck(seen, (density, rgb))
    assert torch.autograd.gradgradcheck(seen, (density, rgb))


@pytest.mark.parametrize("magnitude", [0.0, 1e-38, 1e-20, 1.0, 1e10, 1e25])
def test_values_and_gradients_are_finite_at_any_magnitude(magnitude: float):
    z = torch.linspace(1, 2, 5).expand(2, 5)
    density = torch.full((2, 5), magnitude, requires_grad=True)
    weights = weights_from_density(density, interval_lengths(z, torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3)))
    depth, opacity = expected_depth(weights, z, torch.full((2,), 3.0))
    color = composite_colors(weights, torch.ones(2, 5, 3), torch.zeros(3))
    (depth.sum() + opacity.sum() + color.sum()).backward()
    assert density.grad is not None
    for name, value in {"depth": depth, "opacity": opacity, "rgb": color, "gradient": density.grad}.items():
        assert bool(torch.isfinite(value).all()), name


def test_no_rays_and_no_samples():
    none = torch.zeros(0, 4)
    assert weights_from_density(none, interval_lengths(none, torch.zeros(0, 3))).shape == (0, 4)
    empty = weights_from_density(torch.zeros(2, 0), torch.zeros(2, 0))
    assert empty.shape == (2, 0)
    assert composite_colors(empty, torch.zeros(2, 0, 3), torch.ones(3)).tolist() == [[1.0] * 3] * 2
    depth, opacity = expected_depth(empty, empty, torch.tensor([5.0, 6.0]))
    assert depth.tolist() == [5.0, 6.0]
    assert opacity.tolist() == [0.0, 0.0]
