import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fog import bounded, rng
from lumifield.export.voxel_grid import (
    MAX_ALPHA,
    VoxelLattice,
    Voxels,
    cell_corners,
    cells_with_corners,
    interpolate_rows,
)
from lumifield.geometry.contraction import SceneBox

BOX = torch.tensor([[-1.0, -2.0, 0.0], [1.0, 1.0, 4.0]])
LATTICE = VoxelLattice(SceneBox(BOX, False), 4)


def some(lattice: VoxelLattice = LATTICE, share: float = 0.5) -> Voxels:
    kept = (rng().uniform((lattice.side + 1) ** 3, 1)[:, 0] < share).nonzero()[:, 0]
    return Voxels.of(lattice, kept, rng(1).uniform(len(kept), 1)[:, 0])


def by_hand(voxels: Voxels, table: torch.Tensor, point: list[float]) -> torch.Tensor:
    """Trilinear interpolation between the eight corners, one after the other."""
    total = torch.zeros(table.shape[1])
    cell = [min(int(value * voxels.lattice.side), voxels.lattice.side - 1) for value in point]
    for corner in itertools.product((0, 1), repeat=3):
        weight = 1.0
        for axis in range(3):
            part = point[axis] * voxels.lattice.side - cell[axis]
            weight *= part if corner[axis] else 1 - part
        x, y, z = (cell[axis] + corner[axis] for axis in range(3))
        row = int(voxels.row[z, y, x])
        total += weight * table[row] if row else 0
    return total


@settings(max_examples=40)
@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), max_size=4))
def test_numbers_between_corners_are_trilinear_and_nought_in_empty_space(points):
    voxels = some()
    table = rng(2).normal(len(voxels.alpha), 3)
    unit = torch.tensor(points).view(-1, 3)
    found = interpolate_rows(table, *voxels.corner_weights(BOX[0] + unit * (BOX[1] - BOX[0])))
    expected = [by_hand(voxels, table, point) for point in points]
    torch.testing.assert_close(found, torch.stack(expected) if expected else found[:0], atol=2e-5, rtol=1e-4)


def test_the_gradient_of_interpolated_numbers():
    voxels = some()
    rows, weights = voxels.corner_weights(torch.tensor([[0.2, -1.3, 1.1], [0.9, 0.9, 3.9]]))
    table = rng(2).normal(len(voxels.alpha), 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: interpolate_rows(t, rows, weights.double()), table)
    interpolate_rows(table, rows, weights.double()).sum().backward()
    assert float(table.grad[0].abs().sum()) == 0


def test_density_stops_alpha_in_the_length_of_a_voxel():
    corners = torch.arange(125)
    for alpha in (0.0, 0.3, MAX_ALPHA, 1.0, 7.0):
        voxels = Voxels.of(LATTICE, corners, torch.full((125,), alpha))
        density = voxels.density(torch.tensor([[0.3, -0.4, 2.2]]))
        length = (2 * 3 * 4) ** (1 / 3) / 4
        assert float(-torch.expm1(-density * length)) == pytest.approx(min(alpha, MAX_ALPHA), abs=1e-5)


def test_corners_and_cells_belong_together():
    cells = rng(3).uniform(27, 1).view(3, 3, 3) > 0.8
    corners = cell_corners(cells)
    for z, y, x in itertools.product(range(4), repeat=3):
        touching = cells[max(z - 1, 0) : z + 1, max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1]
        assert bool(corners[z, y, x]) == bool(touching.any())
    for z, y, x in itertools.product(range(3), repeat=3):
        assert bool(cells_with_corners(corners)[z, y, x]) == bool(corners[z : z + 2, y : y + 2, x : x + 2].any())


def test_kept_matter_stays_as_it_is():
    voxels = some()
    chosen = rng(4).uniform(125, 1).view(5, 5, 5) > 0.5
    kept = voxels.select(chosen)
    assert len(kept.corners) == int((chosen & (voxels.row > 0)).sum())
    table = torch.zeros(125)
    table[voxels.corners] = voxels.alpha[1:]
    assert torch.equal(kept.alpha[1:], table[kept.corners])
    assert not bool(chosen.flatten()[kept.corners].logical_not().any())
    assert len(voxels.select(torch.zeros_like(chosen)).corners) == 0


@pytest.mark.parametrize("contracted", [False, True])
def test_corners_lie_where_points_about_them_find_them(contracted):
    lattice = VoxelLattice(SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]), contracted), 8)
    inner = [i + 9 * (j + 9 * k) for i, j, k in itertools.product((2, 3, 5), repeat=3)]
    voxels = Voxels.of(lattice, torch.arange(729), torch.linspace(0, 0.9, 729))
    rows, weights = voxels.corner_weights(lattice.corners(torch.tensor(inner)) + 1e-6)
    best = rows.gather(1, weights.argmax(-1, keepdim=True))[:, 0]
    assert best.tolist() == [index + 1 for index in inner]


def test_light_is_stopped_as_much_as_matter_says():
    scene = bounded()
    lattice = VoxelLattice(SceneBox(scene.box, False), 16)
    voxels = Voxels.of(lattice, torch.arange(17**3), torch.full((17**3,), 0.05))
    rays = scene.rays(0)
    packed, weights = voxels.march(rays, cells_with_corners(voxels.row > 0), torch.zeros(len(rays)), 1e-6)
    lengths = torch.zeros(len(rays)).index_add(0, packed.ray.long(), packed.lengths(rays))
    stopped = torch.zeros(len(rays)).index_add(0, packed.ray.long(), weights)
    density = -math.log(0.95) * 16 / 2.4
    torch.testing.assert_close(stopped, -torch.expm1(-density * lengths), atol=2e-4, rtol=1e-3)
    assert float(lengths.max()) == pytest.approx(2.4, rel=0.1)


def test_rays_in_empty_space_meet_nothing():
    scene = bounded()
    voxels = Voxels.of(VoxelLattice(SceneBox(scene.box, False), 8), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    rays = scene.rays(0)
    packed, weights = voxels.march(rays, cells_with_corners(voxels.row > 0), torch.zeros(len(rays)), 1e-4)
    assert (len(packed), len(weights)) == (0, 0)
    assert voxels.density(scene.box).tolist() == [0, 0]
