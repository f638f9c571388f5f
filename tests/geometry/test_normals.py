import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumifield.geometry.normals import density_normals, normalize_or_zero, normals_from_points

GENERATOR = torch.Generator().manual_seed(0)
DIRECTIONS = torch.nn.functional.normalize(torch.randn(200, 3, generator=GENERATOR), dim=-1)


def degrees(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(torch.linalg.cross(a, b).norm(dim=-1).atan2((a * b).sum(-1)))


def slow_outward(density, point, step):
    """One point at a time, one direction at a time."""
    slope = [0.0, 0.0, 0.0]
    for direction in itertools.product((-1, 0, 1), repeat=3):
        length = math.sqrt(sum(d * d for d in direction))
        if length in (1.0, math.sqrt(3)):
            e = [d / length for d in direction]
            there = torch.tensor([[p + step * d for p, d in zip(point, e, strict=True)]])
            value = math.log(float(density(there)) * step + 1e-4)
            slope = [s - value * d for s, d in zip(slope, e, strict=True)]
    length = math.sqrt(sum(s * s for s in slope))
    return [s / length for s in slope]


def lump(points):
    return torch.exp(points[:, 0] - points[:, 1] ** 2 + points[:, 0] * points[:, 2])


def test_normals_of_a_density_by_the_formula():
    points = 0.3 * DIRECTIONS[:20]
    expected = [slow_outward(lump, point.tolist(), 0.2) for point in points]
    torch.testing.assert_close(
        density_normals(lump, points, torch.full((20,), 0.2)), torch.tensor(expected), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("step", [0.02, 0.1, 0.3])
def test_normals_of_a_ball_point_away_from_its_middle(step):
    found = density_normals(lambda p: 100 * torch.exp(20 * (1 - p.norm(dim=-1))), DIRECTIONS, torch.full((200,), step))
    assert float(degrees(found, DIRECTIONS).max()) < 1.5


def test_an_exponential_slope_is_exact():
    for direction in DIRECTIONS[:20]:
        found = density_normals(lambda p, d=direction: torch.exp(9 - p @ d), DIRECTIONS, torch.full((200,), 0.5))
        torch.testing.assert_close(found, direction.expand(200, 3), atol=1e-4, rtol=0)


def test_normals_do_not_depend_on_the_unit_of_length():
    for scale in (1e-6, 1e6):
        found = density_normals(
            lambda p, k=scale: lump(p / k) / k, 0.3 * DIRECTIONS * scale, torch.full((200,), 0.1 * scale)
        )
        expected = density_normals(lump, 0.3 * DIRECTIONS, torch.full((200,), 0.1))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_an_even_density_has_no_normals():
    for value in (0.0, 1e-30, 1.0, 1e30):
        found = density_normals(lambda p, v=value: torch.full_like(p[:, 0], v), DIRECTIONS, torch.ones(200))
        assert bool((found == 0).all())


def test_an_endless_density_is_no_trouble():
    def edge(points):
        return torch.where(points[:, 0] > 0, torch.inf, 0.0)

    assert bool(density_normals(edge, DIRECTIONS, torch.ones(200)).isfinite().all())


def test_no_points():
    assert density_normals(lump, torch.zeros(0, 3), torch.zeros(0)).shape == (0, 3)


def plane(normal: torch.Tensor, distance: float = 4.0, size: int = 9) -> torch.Tensor:
    """Points on a plane seen by a camera at the origin that looks along z."""
    x, y = torch.meshgrid(torch.linspace(-0.3, 0.3, size), torch.linspace(-0.3, 0.3, size), indexing="xy")
    rays = torch.stack([x, y, torch.ones_like(x)], -1)
    return rays * (distance * normal[2] / (rays @ normal))[..., None]


@given(st.floats(-0.8, 0.8), st.floats(-0.8, 0.8), st.integers(1, 12), st.floats(1e-3, 1e3))
def test_normals_of_a_plane_from_its_points(a, b, reach, distance):
    normal = torch.nn.functional.normalize(torch.tensor([a, b, -1.0]), dim=-1)
    found = normals_from_points(plane(normal, distance), torch.zeros(3), reach)
    assert float(degrees(found, normal.expand_as(found)).max()) < 0.1


def test_normals_from_points_face_the_eye():
    normal = torch.tensor([0.0, 0.6, -0.8])
    points = plane(normal)
    torch.testing.assert_close(
        normals_from_points(points, torch.zeros(3), 1), normal.expand(9, 9, 3), atol=1e-4, rtol=0
    )
    behind = normals_from_points(points, torch.tensor([0.0, 0.0, 100.0]), 1)
    torch.testing.assert_close(behind, -normal.expand(9, 9, 3), atol=1e-4, rtol=0)


def test_a_single_pixel_has_no_neighbors_and_no_normal():
    assert normals_from_points(torch.ones(1, 1, 3), torch.zeros(3), 2).tolist() == [[[0, 0, 0]]]


def test_unit_vectors_of_any_length():
    for scale in (1e-38, 1e-20, 1.0, 1e20, 1e38):
        torch.testing.assert_close(normalize_or_zero(DIRECTIONS * scale), DIRECTIONS, atol=1e-4, rtol=0)
    assert bool((normalize_or_zero(torch.tensor([[0.0, 0, 0], [torch.nan, 0, 0], [torch.inf, 0, 0]])) == 0).all())
