import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fog import bounded, rng
from lumifield.export.voxel_grid import (
    MAX_ALPHA,
    SparseVoxels,
    VoxelGrid,
    cell_corners,
    cells_with_corners,
    interpolate_rows,
)
from lumifield.geometry.contraction import SceneBox

BOX = torch.tensor([[-1.0, -2.0, 0.0], [1.0, 1.0, 4.0]])
GRID = VoxelGrid(SceneBox(BOX, False), 4)


def random_voxels() -> SparseVoxels:
    """Voxels at half of the corners."""
    kept = (rng().uniform((GRID.resolution + 1) ** 3, 1)[:, 0] < 0.5).nonzero()[:, 0]
    return SparseVoxels.from_corners(GRID, kept, rng(1).uniform(len(kept), 1)[:, 0])


def interpolate_by_loop(voxels: SparseVoxels, table: torch.Tensor, point: list[float]) -> torch.Tensor:
    """Trilinear interpolation between the eight corners, one after the other."""
    total = torch.zeros(table.shape[1])
    n = voxels.grid.resolution
    cell = [min(int(value * n), n - 1) for value in point]
    for corner in itertools.product((0, 1), repeat=3):
        weight = 1.0
        for axis in range(3):
            offset = point[axis] * n - cell[axis]
            weight *= offset if corner[axis] else 1 - offset
        x, y, z = (cell[axis] + corner[axis] for axis in range(3))
        row = int(voxels.row[z, y, x])
        total += weight * table[row] if row else 0
    return total


@settings(max_examples=40)
@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), max_size=4))
def test_interpolation_is_trilinear_and_zero_in_empty_space(points):
    voxels = random_voxels()
    table = rng(2).normal(len(voxels.alpha), 3)
    unit = torch.tensor(points).view(-1, 3)
    found = interpolate_rows(table, *voxels.corner_weights(BOX[0] + unit * (BOX[1] - BOX[0])))
    expected = [interpolate_by_loop(voxels, table, point) for point in points]
    torch.testing.assert_close(found, torch.stack(expected) if expected else found[:0], atol=2e-5, rtol=1e-4)


def test_the_gradient_of_the_interpolation():
    voxels = random_voxels()
    rows, weights = voxels.corner_weights(torch.tensor([[0.2, -1.3, 1.1], [0.9, 0.9, 3.9]]))
    table = rng(2).normal(len(voxels.alpha), 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: interpolate_rows(t, rows, weights.double()), table)
    interpolate_rows(table, rows, weights.double()).sum().backward()
    assert float(table.grad[0].abs().sum()) == 0


@pytest.mark.parametrize("alpha", [0.0, 0.3, MAX_ALPHA, 1.0, 7.0])
def test_density_over_the_length_of_a_cell_gives_alpha(alpha):
    voxels = SparseVoxels.from_corners(GRID, torch.arange(125), torch.full((125,), alpha))
    density = voxels.density(torch.tensor([[0.3, -0.4, 2.2]]))
    cell_size = (2 * 3 * 4) ** (1 / 3) / 4
    assert float(-torch.expm1(-density * cell_size)) == pytest.approx(min(alpha, MAX_ALPHA), abs=1e-5)


def test_corners_of_cells_and_cells_of_corners():
    cells = rng(3).uniform(27, 1).view(3, 3, 3) > 0.8
    corners = cell_corners(cells)
    for z, y, x in itertools.product(range(4), repeat=3):
        touching = cells[max(z - 1, 0) : z + 1, max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1]
        assert bool(corners[z, y, x]) == bool(touching.any())
    for z, y, x in itertools.product(range(3), repeat=3):
        assert bool(cells_with_corners(corners)[z, y, x]) == bool(corners[z : z + 2, y : y + 2, x : x + 2].any())


def test_selected_voxels_keep_their_alpha():
    voxels = random_voxels()
    mask = rng(4).uniform(125, 1).view(5, 5, 5) > 0.5
    selected = voxels.select(mask)
    assert len(selected.corners) == int((mask & (voxels.row > 0)).sum())
    table = torch.zeros(125)
    table[voxels.corners] = voxels.alpha[1:]
    assert torch.equal(selected.alpha[1:], table[selected.corners])
    assert bool(mask.flatten()[selected.corners].all())
    assert len(voxels.select(torch.zeros_like(mask)).corners) == 0


@pytest.mark.parametrize("is_contracted", [False, True])
def test_corner_weights_find_the_nearest_corner(is_contracted):
    grid = VoxelGrid(SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]), is_contracted), 8)
    inner = [i + 9 * (j + 9 * k) for i, j, k in itertools.product((2, 3, 5), repeat=3)]
    voxels = SparseVoxels.from_corners(grid, torch.arange(729), torch.linspace(0, 0.9, 729))
    rows, weights = voxels.corner_weights(grid.corner_positions(torch.tensor(inner)) + 1e-6)
    nearest = rows.gather(1, weights.argmax(-1, keepdim=True))[:, 0]
    assert nearest.tolist() == [index + 1 for index in inner]


def test_weights_of_rays_through_uniform_density():
    scene = bounded()
    grid = VoxelGrid(SceneBox(scene.box, False), 16)
    voxels = SparseVoxels.from_corners(grid, torch.arange(17**3), torch.full((17**3,), 0.05))
    rays = scene.rays(0)
    packed, weights = voxels.march(rays, torch.zeros(len(rays)), min_weight=1e-6)
    lengths = torch.zeros(len(rays)).index_add(0, packed.ray.long(), packed.lengths(rays))
    opacity = torch.zeros(len(rays)).index_add(0, packed.ray.long(), weights)
    density = -math.log(0.95) * 16 / 2.4
    torch.testing.assert_close(opacity, -torch.expm1(-density * lengths), atol=2e-4, rtol=1e-3)
    assert float(lengths.max()) == pytest.approx(2.4, rel=0.1)


def test_rays_through_empty_space_have_no_samples():
    scene = bounded()
    grid = VoxelGrid(SceneBox(scene.box, False), 8)
    voxels = SparseVoxels.from_corners(grid, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    rays = scene.rays(0)
    packed, weights = voxels.march(rays, torch.zeros(len(rays)), min_weight=1e-4)
    assert (len(packed), len(weights)) == (0, 0)
    assert voxels.density(scene.box).tolist() == [0, 0]
