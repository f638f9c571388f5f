from typing import get_args

import pytest
import torch

from lumifield import kernels
from lumifield.methods.nlr.sdf import RADIUS, Activation, GridSdf, Sdf, activate, make_frequencies, periodic


def shells(generator: torch.Generator, least: float, most: float, n: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    away = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    distance = least + (most - least) * torch.rand(n, 1, generator=generator)
    return away * distance, distance[:, 0]


def made(**options) -> Sdf:
    torch.manual_seed(3)
    return Sdf(**options)


@pytest.mark.parametrize("options", [{}, {"width": 256}, {"width": 16, "depth": 1, "activation": "softplus"}])
def test_a_fresh_field_is_the_distance_from_a_sphere(options, generator):
    points, distance = shells(generator, 0.2, 1.3)
    sdf = made(**options)
    with torch.no_grad():
        torch.testing.assert_close(sdf(points), distance - RADIUS, rtol=0, atol=1e-4)
    torch.testing.assert_close(sdf.gradient(points), points / distance[:, None], rtol=0, atol=1e-4)


def test_at_the_center_the_slope_is_finite():
    slope = made(width=16).gradient(torch.zeros(1, 3))
    assert slope.isfinite().all()


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation_starts_negative_within_and_positive_without_and_learns(activation, generator):
    sdf = made(width=64, depth=2, activation=activation)
    inner, outer = shells(generator, 0.0, 0.2)[0], shells(generator, 0.9, 1.2)[0]
    with torch.no_grad():
        assert (sdf(inner) < 0).all()
        assert (sdf(outer) > 0).all()
    optimizer = torch.optim.Adam(sdf.parameters(), lr=1e-3)
    for _ in range(2):  # the first step only moves the last layer
        optimizer.zero_grad()
        (sdf(inner) - 0.1).square().sum().backward()
        optimizer.step()
    for name, parameter in sdf.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert float(sdf.hidden[0].weight.grad.abs().max()) > 0


def test_activations_by_example():
    x = torch.tensor([0.01, -0.01])
    turned = torch.sin(torch.tensor(0.3))
    assert activate(x, "sine").tolist() == pytest.approx([float(turned), -float(turned)])
    assert activate(x, "sinesq").tolist() == pytest.approx([float(turned) ** 2] * 2)
    assert activate(x, "triangle").tolist() == pytest.approx([0.6 / torch.pi, -0.6 / torch.pi], rel=1e-4)
    assert activate(x, "relu").tolist() == pytest.approx([0.01, 0.0])


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_the_geometric_start_is_nearly_a_sphere(activation, generator):
    sdf = made(width=256, activation=activation, geometric=True)
    assert not periodic(activation)
    inner, outer = shells(generator, 0.0, 0.25)[0], shells(generator, 0.8, 1.0)[0]
    with torch.no_grad():
        assert (sdf(inner) < 0).all()
        assert (sdf(outer) > 0).all()


@pytest.mark.parametrize(("kind", "bands"), [("nerf", 3), ("idr", 2), ("fourier", 5)])
@pytest.mark.parametrize("activation", ["sine", "softplus"])
def test_encodings_and_skips(kind, bands, activation, generator):
    torch.manual_seed(0)
    encoding = make_frequencies(kind, bands)
    sdf = made(width=64, encoding=encoding, skips=(1, 2), activation=activation)
    assert encoding.width == 3 + 2 * (bands if kind == "fourier" else 3 * bands)
    assert sdf.hidden[1].in_features == 64 + encoding.width
    inner, outer = shells(generator, 0.0, 0.2)[0], shells(generator, 0.9, 1.2)[0]
    with torch.no_grad():
        assert (sdf(inner) < 0).all()
        assert (sdf(outer) > 0).all()


def test_frequencies_by_example():
    x = torch.tensor([[0.25, 0.0, 0.0]])
    assert make_frequencies("nerf", 2)(x)[0, 3].item() == pytest.approx(0.5**0.5)
    assert make_frequencies("idr", 1)(x)[0, 3].item() == pytest.approx(1.0)
    assert make_frequencies("nerf", 0).width == 3


def small_grid() -> GridSdf:
    return GridSdf(levels=2, log2_entries=10, finest=16)


@pytest.mark.parametrize("build", [lambda: made(width=16, depth=1), small_grid])
def test_slopes_are_differences_and_teach_the_parameters(build, generator):
    sdf = build()
    with torch.no_grad():
        for parameter in sdf.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    points = shells(generator, 0.3, 0.8, 50)[0]
    h = 1e-3 if isinstance(sdf, Sdf) else sdf.step
    with kernels.backend("reference"):
        slope = sdf.gradient(points)
        for axis in range(3):
            step = h * torch.eye(3)[axis]
            with torch.no_grad():
                expected = (sdf(points + step) - sdf(points - step)) / (2 * h)
            torch.testing.assert_close(slope[:, axis].detach(), expected, rtol=0.02, atol=5e-3)
        slope.square().sum().backward()
    taught = sdf.hidden if isinstance(sdf, GridSdf) else sdf.hidden[0]
    assert float(taught.weight.grad.abs().max()) > 0


def test_a_grid_starts_as_the_exact_sphere_and_takes_points_beyond_it(generator):
    sdf = small_grid()
    points, distance = shells(generator, 0.1, 3.0)
    with torch.no_grad():
        torch.testing.assert_close(sdf(points), distance - RADIUS, rtol=0, atol=1e-5)


def test_no_points():
    for sdf in (made(width=8, depth=1), small_grid()):
        assert sdf(torch.empty(0, 3)).shape == (0,)
        assert sdf.gradient(torch.empty(0, 3)).shape == (0, 3)


def test_huge_coordinates_give_finite_distances():
    with torch.no_grad():
        assert made(width=16)(torch.full((4, 3), 1e6)).isfinite().all()
