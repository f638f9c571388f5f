import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lumifield.fields.encodings import positional
from lumifield.geometry.rays import Rays
from lumifield.volume.mip_gaussians import (
    PIXEL_RADIUS,
    Gaussians,
    IntegratedEncoding,
    conical_frustum_moments,
    cylinder_moments,
    interval_gaussians,
)

MOMENTS = {
    (2.0, 3.0, 0.1): (2.56578947, 0.07988227, 0.01665789),
    (0.0, 1.0, 0.1): (0.75, 0.0375, 0.0015),
}


def numbers(*values: float) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


def slow_cone(t0: float, t1: float, radius: float) -> tuple[float, float, float]:
    """The closed form of the paper's appendix, which loses its precision for thin intervals."""
    mean = 3 * (t1**4 - t0**4) / (4 * (t1**3 - t0**3))
    along = 3 * (t1**5 - t0**5) / (5 * (t1**3 - t0**3)) - mean**2
    return mean, along, radius**2 * 3 * (t1**5 - t0**5) / (20 * (t1**3 - t0**3))


def rays(origin: list[float], direction: list[float], radius: float) -> Rays:
    one = torch.ones(1)
    d, image = torch.tensor([direction]).float(), torch.zeros(1, dtype=torch.int64)
    return Rays(torch.tensor([origin]).float(), d, d / d.norm(), one * radius, one, one, image, torch.zeros(1, 2))


@pytest.mark.parametrize(("given_values", "expected"), MOMENTS.items())
def test_moments_of_known_cones(given_values, expected):
    assert [float(v) for v in conical_frustum_moments(*numbers(*given_values))] == pytest.approx(expected, abs=1e-8)


@given(st.floats(0, 10), st.floats(0.05, 10), st.floats(1e-3, 1))
def test_moments_equal_the_closed_form(t0, length, radius):
    expected = slow_cone(t0, t0 + length, radius)
    assert [float(v) for v in conical_frustum_moments(*numbers(t0, t0 + length, radius))] == pytest.approx(
        expected, rel=1e-4, abs=1e-9
    )


@pytest.mark.parametrize(("shape", "power"), [(conical_frustum_moments, 2), (cylinder_moments, 0)])
def test_moments_are_those_of_places_in_the_volume(shape, power):
    """Discs along the axis count by their area; the mean square across a disc is a quarter of its squared radius."""
    t0, t1, radius = 1.5, 2.7, 0.2
    t = torch.linspace(t0, t1, 200_001, dtype=torch.float64)
    t = 0.5 * (t[1:] + t[:-1])
    area = t**power / (t**power).sum()
    mean = (area * t).sum()
    across = (area * (radius * t ** (power / 2)) ** 2 / 4).sum()
    expected = [float(v) for v in (mean, (area * (t - mean) ** 2).sum(), across)]
    assert [float(v) for v in shape(*numbers(t0, t1, radius))] == pytest.approx(expected, rel=1e-6)


def test_thin_intervals_keep_their_precision():
    t0 = torch.tensor([4.0])
    for length in (1e-2, 1e-4, 1e-6):
        t1 = t0 + length
        exact = float(t1) - float(t0)
        mean, along, across = (float(v) for v in conical_frustum_moments(t0, t1, torch.tensor([1e-3])))
        assert mean == pytest.approx(4 + exact / 2, abs=1e-5)
        assert along == pytest.approx(exact**2 / 12, rel=1e-3)
        assert across == pytest.approx(1e-6 * (4 + exact / 2) ** 2 / 4, rel=1e-2)


@pytest.mark.parametrize("shape", [conical_frustum_moments, cylinder_moments])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 0.0), (0.0, 1e-25), (0.0, 1e9), (1e9, 1e9), (3.0, 3.0), (1e-20, 1e-20)])
def test_moments_are_finite_at_any_magnitude(shape, t0, t1):
    edges = torch.tensor([t0, t1], requires_grad=True)
    found = shape(edges[:1], edges[1:], torch.tensor([0.1]))
    torch.stack(found).sum().backward()
    for value in (*found, edges.grad):
        assert value is not None
        assert bool(torch.isfinite(value).all())
    assert float(found[1].detach()) >= 0
    assert float(found[2].detach()) >= 0


@pytest.mark.parametrize("shape", [conical_frustum_moments, cylinder_moments])
def test_gradients_of_moments(shape):
    t0 = torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    t1 = torch.tensor([0.5, 0.4, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: shape(a, b, torch.full_like(a, 0.1)), (t0, t1))


def test_a_known_gaussian_in_space():
    ray = rays([0, 0, 0], [1, 2, -2], 0.1 / PIXEL_RADIUS)
    found = interval_gaussians(ray, torch.tensor([[2.0, 3.0]]), cylinders=False)
    assert found.mean[0, 0].tolist() == pytest.approx([2.56578947, 5.13157895, -5.13157895])
    assert found.variance[0, 0].tolist() == pytest.approx([0.09468929, 0.32878347, 0.32878347])


@pytest.mark.parametrize("cylinders", [False, True])
def test_gaussians_have_the_moments_of_places_drawn_in_the_volume(cylinders):
    origin, direction, radius, t0, t1 = [0.3, -1.0, 2.0], [0.6, 0.0, 0.8], 0.3, 1.0, 2.0
    found = interval_gaussians(
        rays(origin, direction, radius / PIXEL_RADIUS), torch.tensor([[t0, t1]]), cylinders=cylinders
    )
    n, generator = 400_000, torch.Generator().manual_seed(0)
    u, turn, out = torch.rand(3, n, generator=generator, dtype=torch.float64)
    t = t0 + (t1 - t0) * u if cylinders else (t0**3 + u * (t1**3 - t0**3)) ** (1 / 3)
    away = radius * out.sqrt() * (1 if cylinders else t)
    d = torch.tensor(direction, dtype=torch.float64)
    side, up = torch.tensor([0.8, 0, -0.6], dtype=torch.float64), torch.tensor([0.0, 1, 0], dtype=torch.float64)
    turn = 2 * math.pi * turn
    places = torch.tensor(origin) + t[:, None] * d + (away * turn.cos())[:, None] * side
    places = places + (away * turn.sin())[:, None] * up
    assert found.mean[0, 0].tolist() == pytest.approx(places.mean(0).tolist(), abs=2e-3)
    assert found.variance[0, 0].tolist() == pytest.approx(places.var(0).tolist(), rel=1e-2)


def test_a_disc_of_the_pixel_radius_varies_like_the_pixel():
    # A square of side 1 has the variance 1 / 12 across, a disc of radius r has r^2 / 4.
    assert pytest.approx(1 / 12) == PIXEL_RADIUS**2 / 4
    # Blender's images at 800 pixels: the release's radius for directions of depth 1.
    assert 2 / math.sqrt(12) / (0.5 * 800 / math.tan(0.5 * 0.6911112)) == pytest.approx(5.196153e-4, rel=1e-6)
    assert pytest.approx(2 / math.sqrt(12)) == PIXEL_RADIUS


def test_known_features():
    found = IntegratedEncoding(1, 2)(torch.tensor([[0.5] * 3 + [0.1] * 3]))
    assert found[0].tolist() == pytest.approx([0.68893817] * 3 + [0.44236211] * 3)


def test_features_equal_loops():
    generator = torch.Generator().manual_seed(0)
    joined = torch.rand(4, 2, 6, generator=generator, dtype=torch.float64) * 0.2
    found = IntegratedEncoding(1, 4)(joined)
    assert found.shape == (4, 2, IntegratedEncoding(1, 4).width)
    for row in range(4):
        values = joined[row, 1].tolist()
        waves = {"sin": [], "cos": []}
        for k in (1, 2, 3):
            for mean, variance in zip(values[:3], values[3:], strict=True):
                fade = math.exp(-0.5 * 4**k * variance)
                waves["sin"].append(fade * math.sin(2**k * mean))
                waves["cos"].append(fade * math.cos(2**k * mean))
        assert found[row, 1].tolist() == pytest.approx(waves["sin"] + waves["cos"], abs=1e-12)


def test_features_are_the_means_over_the_gaussian():
    """Gauss-Hermite quadrature of sine and cosine."""
    from numpy.polynomial.hermite_e import hermegauss

    places, shares = (torch.tensor(values) for values in hermegauss(60))
    shares = shares / shares.sum()
    mean, variance = torch.tensor([0.4, -1.0, 2.0]).double(), torch.tensor([0.01, 0.1, 0.3]).double()
    found = IntegratedEncoding(0, 4)(torch.cat([mean, variance]))
    x = mean + variance.sqrt() * places[:, None]
    phase = torch.stack([2.0**k * x for k in range(4)], 1).flatten(1)
    expected = torch.cat([(shares[:, None] * wave).sum(0) for wave in (phase.sin(), phase.cos())])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_points_have_the_positional_encoding():
    points = torch.tensor([[0.3, -0.8, 1.7]])
    found = IntegratedEncoding(0, 5)(torch.cat([points, torch.zeros(1, 3)], -1))
    plain = positional(points, 5)[0, 3:].reshape(5, 2, 3)
    torch.testing.assert_close(found[0].reshape(2, 5, 3), plain.transpose(0, 1))


def test_gradients_of_features():
    joined = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(IntegratedEncoding(0, 4), joined)


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e6, 1e30])
def test_features_are_finite_at_any_magnitude(magnitude):
    joined = torch.tensor([[magnitude, -magnitude, 0.0, magnitude, magnitude, 0.0]], requires_grad=True)
    found = IntegratedEncoding(0, 16)(joined)
    found.sum().backward()
    assert joined.grad is not None
    assert bool(torch.isfinite(found).all() & torch.isfinite(joined.grad).all())
    assert float(found.detach().abs().max()) <= 1


def test_nothing():
    empty = rays([0, 0, 0], [0, 0, 1], 1.0)[slice(0, 0)]
    found = interval_gaussians(empty, torch.zeros(0, 4), cylinders=False)
    assert found.mean.shape == found.variance.shape == (0, 3, 3)
    assert IntegratedEncoding(0, 16)(found.stacked).shape == (0, 3, 96)
    assert interval_gaussians(rays([0, 0, 0], [0, 0, 1], 1.0), torch.ones(1, 1), cylinders=True).mean.shape == (1, 0, 3)
    assert isinstance(found, Gaussians)
