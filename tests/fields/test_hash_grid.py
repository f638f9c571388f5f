import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumifield.fields.hash_grid import INITIAL_RANGE, FeatureGrid, geometric_resolutions


@given(st.integers(1, 40), st.integers(1, 3000), st.integers(1, 16))
def test_resolutions_rise_in_equal_ratios(coarsest, finest, levels):
    found = geometric_resolutions(coarsest, finest, levels)
    assert len(found) == levels
    assert found[-1] == (finest if levels == 1 else max(coarsest, finest))
    assert found == sorted(found)
    if levels > 1:
        assert found[0] == coarsest
        ratio = (found[-1] / coarsest) ** (1 / (levels - 1))
        for lower, upper in itertools.pairwise(found):
            assert abs(upper - lower * ratio) <= 0.5 * (1 + ratio)


def test_resolutions_by_example():
    assert geometric_resolutions(16, 128, 4) == [16, 32, 64, 128]
    assert geometric_resolutions(16, 200, 1) == [200]
    assert geometric_resolutions(16, 8, 3) == [16, 16, 16]


def test_a_level_is_dense_while_it_fits():
    grid = FeatureGrid([2, 4, 8], 3, 7)
    assert grid.offsets == [0, 27, 27 + 125, 27 + 125 + 128]
    assert grid.table.shape == (280, 3)
    assert grid.width == 9


def test_features_start_small_and_differ():
    torch.manual_seed(0)
    table = FeatureGrid([8], 2, 12).table.detach()
    assert float(table.abs().max()) <= INITIAL_RANGE
    assert float(table.std()) > 0.4 * INITIAL_RANGE


def trilinear(grid: FeatureGrid, level: int, point: list[float]) -> torch.Tensor:
    """Features of a dense level at one point, corner by corner."""
    resolution, table = grid.resolutions[level], grid.table[grid.offsets[level] : grid.offsets[level + 1]]
    cell = [min(int(x * resolution), resolution - 1) for x in point]
    total = torch.zeros(table.shape[1])
    for corner in itertools.product((0, 1), repeat=3):
        weight = 1.0
        row = 0
        for axis in (2, 1, 0):
            inside = point[axis] * resolution - cell[axis]
            weight *= inside if corner[axis] else 1 - inside
            row = row * (resolution + 1) + cell[axis] + corner[axis]
        total += weight * table[row]
    return total


coordinate = st.floats(0, 1, width=32)


@settings(max_examples=40)
@given(st.tuples(coordinate, coordinate, coordinate))
def test_dense_features_equal_a_slow_sum(point):
    torch.manual_seed(1)
    grid = FeatureGrid([2, 5], 2, 10)
    torch.nn.init.normal_(grid.table)
    expected = torch.cat([trilinear(grid, level, list(point)) for level in range(2)])
    torch.testing.assert_close(grid(torch.tensor([point]))[0], expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_corners_of_the_cell_alone():
    grid = FeatureGrid([4], 2, 12)
    grid(torch.tensor([[0.1, 0.6, 0.9]])).sum().backward()
    assert grid.table.grad is not None
    touched = grid.table.grad.abs().sum(-1).nonzero()[:, 0].tolist()
    assert touched == sorted(x + 5 * (y + 5 * z) for x in (0, 1) for y in (2, 3) for z in (3, 4))
    torch.testing.assert_close(grid.table.grad.sum(0), torch.ones(2))


@pytest.mark.parametrize("far", [2.0, 1e30, -1e30])
def test_points_outside_take_the_features_of_the_surface(far):
    grid = FeatureGrid([3, 100], 2, 8)
    edge = 1.0 if far > 0 else 0.0
    found = grid(torch.tensor([[far, 0.3, 0.4], [edge, 0.3, 0.4]]))
    assert torch.equal(found[0], found[1])
    assert bool(torch.isfinite(found).all())


def test_no_points():
    grid = FeatureGrid([3, 100], 2, 8)
    assert grid(torch.zeros(0, 3)).shape == (0, 4)


def test_anti_aliasing_down_weights_levels_finer_than_the_gaussian():
    grid = FeatureGrid([2, 8, 40], 2, 12, anti_alias=True)
    plain = FeatureGrid([2, 8, 40], 2, 12)
    plain.load_state_dict(grid.state_dict())
    points, width = torch.rand(20, 3), torch.rand(20) * 0.1
    found, sharp = grid(points, width).detach(), plain(points).detach()
    assert found.shape == (20, grid.width) == (20, 9)
    for row in range(20):
        for level, cells in enumerate((2, 8, 40)):
            share = math.erf(1 / (math.sqrt(8) * float(width[row]) * cells))
            pair = slice(2 * level, 2 * level + 2)
            torch.testing.assert_close(found[row, pair], share * sharp[row, pair])
            assert float(found[row, 6 + level]) == pytest.approx(0.1 * (2 * share - 1), abs=1e-6)


@pytest.mark.parametrize(("width", "share"), [(0.0, 1.0), (1e-38, 1.0), (1e30, 0.0)])
def test_extreme_gaussians(width, share):
    grid = FeatureGrid([4, 9], 1, 12, anti_alias=True)
    points = torch.rand(5, 3)
    found = grid(points, torch.full((5,), width))
    torch.testing.assert_close(found[:, 2:], torch.full((5, 2), 0.1 * (2 * share - 1)))
    assert bool(torch.isfinite(found).all())
    found.sum().backward()
    assert bool(torch.isfinite(grid.table.grad).all())
    assert grid(points[:0], torch.zeros(0)).shape == (0, 4)
