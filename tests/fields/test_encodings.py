import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumifield.fields.encodings import Positional, Waves, positional, positional_width, spherical_harmonics


def slow_positional(x: list[float], frequencies: list[float]) -> list[float]:
    features = list(x)
    for frequency in frequencies:
        features += [math.sin(frequency * value) for value in x]
        features += [math.cos(frequency * value) for value in x]
    return features


@pytest.mark.parametrize(("channels", "octaves", "features"), [(3, 10, 63), (3, 4, 27), (1, 1, 3), (2, 0, 2)])
def test_positional_equals_loops(channels: int, octaves: int, features: int):
    x = torch.linspace(-1.5, 1.5, 5 * channels, dtype=torch.float64).reshape(5, channels)
    found = positional(x, octaves)
    assert found.shape == (5, features)
    assert positional_width(channels, octaves) == features
    expected = [slow_positional(row.tolist(), [2.0**k for k in range(octaves)]) for row in x]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_positional_from_another_octave_on():
    x = torch.tensor([[0.3, -0.7, 0.1]], dtype=torch.float64)
    encoding = Positional(2, first=1)
    expected = slow_positional([0.3, -0.7, 0.1], [2.0, 4.0])
    assert encoding(x)[0].tolist() == pytest.approx(expected)
    assert encoding.width == 15


def test_positional_with_linear_frequencies():
    x = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    expected = slow_positional([0.3, -0.7], [1.0, 1 + 7 / 3, 1 + 14 / 3, 8.0])
    found = positional(x, 4, linear=True)
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_waves_equal_loops():
    x = torch.tensor([[0.3, -0.7, 0.1], [0.0, 1.5, -2.0]], dtype=torch.float64)
    encoding = Waves(4, 6.0)
    frequencies = [1.0, 4.0, 16.0, 64.0]
    expected = [[wave(f * v) for wave in (math.sin, math.cos) for f in frequencies for v in row] for row in x.tolist()]
    torch.testing.assert_close(encoding(x), torch.tensor(expected, dtype=torch.float64))
    assert encoding.width == 24
    assert Waves(20, 8.0).width == 120
    assert encoding(torch.zeros(2, 0, 3)).shape == (2, 0, 24)


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e30])
def test_waves_are_finite_and_have_a_gradient_at_any_magnitude(magnitude: float):
    x = torch.tensor([[magnitude, -magnitude, 0.0]], requires_grad=True)
    Waves(20, 8.0)(x).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    small = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Waves(3, 2.0), small)


def test_positional_gradient_and_batches():
    x = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: positional(x, 4), x)
    assert positional(torch.zeros(0, 3), 10).shape == (0, 63)
    assert torch.equal(positional(x, 4)[1, 2], positional(x[1, 2], 4))


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e6, 1e30])
def test_positional_is_finite_at_any_magnitude(magnitude: float):
    x = torch.tensor([[magnitude, -magnitude, 0.0]], requires_grad=True)
    found = positional(x, 10)
    found.sum().backward()
    assert bool(torch.isfinite(found).all())
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_spherical_harmonics_are_orthonormal():
    # Gauss-Legendre in z, even in the azimuth: exact for polynomials of degree 6.
    heights, shares = np.polynomial.legendre.leggauss(8)
    azimuth = 2 * math.pi * (np.arange(16) + 0.5) / 16
    z, phi = np.meshgrid(heights, azimuth, indexing="ij")
    flat = np.sqrt(1 - z**2)
    directions = torch.tensor(np.stack([flat * np.cos(phi), flat * np.sin(phi), z], -1).reshape(-1, 3))
    area = torch.tensor(np.repeat(shares, 16) * 2 * math.pi / 16)
    values = spherical_harmonics(directions, 4)
    products = values.T @ (values * area[:, None])
    torch.testing.assert_close(products, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-12)


@given(st.integers(0, 10_000))
def test_spherical_harmonics_keep_each_orders_energy(seed: int):
    """Sum over m of Y_lm^2 is (2l + 1) / 4 pi in every direction (Unsöld's theorem)."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(1, 3, generator=generator, dtype=torch.float64), dim=-1)
    values = spherical_harmonics(direction, 4)[0]
    for order in range(4):
        energy = float((values[order**2 : (order + 1) ** 2] ** 2).sum())
        assert energy == pytest.approx((2 * order + 1) / (4 * math.pi), rel=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_lower_degrees_are_the_beginning(degree: int):
    directions = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, -3.0], [0.0, 0.0, 1.0]]), dim=-1)
    found = spherical_harmonics(directions, degree)
    assert torch.equal(found, spherical_harmonics(directions, 4)[:, : degree**2])
    assert spherical_harmonics(torch.zeros(0, 3), degree).shape == (0, degree**2)


@pytest.mark.parametrize("degree", [0, 5])
def test_other_degrees_are_refused(degree: int):
    with pytest.raises(ValueError, match=f"degree is {degree}"):
        spherical_harmonics(torch.zeros(1, 3), degree)


def test_spherical_harmonics_gradient():
    directions = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: spherical_harmonics(d, 4), directions)
