from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumifield.data.scene import Images, Scene
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Ndc
from lumifield.runtime.rng import Rng
from lumifield.volume.occupancy import (
    OccupancyGrid,
    cells_before_near,
    crop_to_silhouettes,
    subdivide_cells,
    visible_cells,
)
from scenes import RADIUS, ball

UNIT = SceneBox(torch.tensor([[0.0] * 3, [1.0] * 3]), False)
BOX = SceneBox(torch.tensor([[-1.0, 0.0, 2.0], [1.0, 3.0, 4.0]]), False)


def rng(seed: int = 0) -> Rng:
    return Rng(torch.Generator().manual_seed(seed))


def everywhere(side: int) -> torch.Tensor:
    return torch.ones(side, side, side, dtype=torch.bool)


def refreshed(grid: OccupancyGrid, density, space: SceneBox = UNIT, **options) -> OccupancyGrid:
    grid.update(density, space, options.pop("rng", rng()), **({"everywhere": True, "cells": 0} | options))
    return grid


def test_cells_are_indexed_z_y_x_and_looked_at_inside():
    points = []
    grid = OccupancyGrid(2, 1.0, everywhere(2))
    refreshed(grid, lambda p: points.append(p) or p[:, 0], BOX)
    cell = ((points[0] - BOX.box[0]) / (BOX.box[1] - BOX.box[0]) * 2).floor().long()
    x, y, z = cell.unbind(-1)
    assert (x + 2 * (y + 2 * z)).tolist() == list(range(8))
    assert torch.equal(grid.density.view(2, 2, 2)[z, y, x], points[0][:, 0].clamp_min(0))


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1e6, width=32), min_size=8, max_size=8), st.floats(1e-3, 10), st.integers(0, 255))
def test_a_cell_is_occupied_above_the_threshold_or_the_mean(values, step, bits):
    allowed = torch.tensor([bool(bits >> i & 1) for i in range(8)])
    if not allowed.any():
        return
    density = torch.tensor(values)
    grid = OccupancyGrid(2, step, allowed.view(2, 2, 2), threshold=0.5)
    refreshed(grid, lambda p: density[allowed])
    kept = density * allowed
    limit = min(float(kept[allowed].mean()) * step, 0.5) / step
    for i in range(8):
        if abs(float(kept[i]) - limit) > 1e-4 * limit:
            assert bool(grid.occupied.view(-1)[i]) == (bool(allowed[i]) and float(kept[i]) > limit)


def test_density_decays_where_nothing_is_found_and_rises_at_once():
    grid = OccupancyGrid(2, 1.0, everywhere(2), decay=0.5)
    for found, expected in ((8.0, 8.0), (1.0, 4.0), (3.0, 3.0), (0.0, 1.5)):
        refreshed(grid, lambda p, found=found: torch.full((len(p),), found))
        assert grid.density.tolist() == [expected] * 8


@pytest.mark.parametrize("values", [0.0, 1e30, torch.inf])
def test_extreme_densities(values):
    grid = refreshed(OccupancyGrid(2, 1e-3, everywhere(2)), lambda p: torch.full((len(p),), values))
    assert bool(grid.occupied.all()) == (values > 0)


def test_forbidden_cells_are_never_looked_at_nor_occupied():
    allowed = everywhere(4)
    allowed[:2] = False
    grid, looked = OccupancyGrid(4, 1.0, allowed), []

    def density(points):
        looked.append(points)
        return torch.full((len(points),), 9.0)

    for step in range(3):
        refreshed(grid, density, everywhere=step == 0, cells=20, rng=rng(step))
    assert [len(points) for points in looked] == [32, 20, 20]
    assert float(torch.cat(looked)[:, 2].min()) >= 0.5
    assert torch.equal(grid.occupied, allowed)


def test_where_nothing_is_occupied_some_cells_are_still_looked_at():
    grid = OccupancyGrid(4, 1.0, everywhere(4))
    refreshed(grid, lambda p: torch.zeros(len(p)))
    assert not grid.occupied.any()
    counts = []
    refreshed(grid, lambda p: counts.append(len(p)) or torch.ones(len(p)), everywhere=False, cells=20)
    assert counts == [10]
    assert grid.occupied.any()


def test_the_same_draws_give_the_same_grid_and_every_process_the_same():
    def density(points):
        return points.sum(-1)

    grids = [
        refreshed(OccupancyGrid(8, 1.0, everywhere(8)), density, everywhere=False, cells=100, rng=source)
        for source in (rng(5), rng(5), Rng(torch.Generator().manual_seed(5), 1, 2), rng(6))
    ]
    assert torch.equal(grids[0].density, grids[1].density)
    assert torch.equal(grids[0].density, grids[2].density)
    assert not torch.equal(grids[0].density, grids[3].density)


def test_halved_cells_hold_what_the_whole_held():
    cells = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    fine = subdivide_cells(cells)
    z, y, x = torch.meshgrid(*[torch.arange(6)] * 3, indexing="ij")
    assert torch.equal(fine, cells[z // 2, y // 2, x // 2])


def centers(space: SceneBox, side: int) -> torch.Tensor:
    axis = (torch.arange(side) + 0.5) / side
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return space.from_unit_cube(torch.stack([x, y, z], -1))


def close(scene: Scene) -> Scene:
    """The scene with a region of interest that every camera sees the sides of."""
    return replace(scene, box=torch.tensor([[-1.1] * 3, [1.1] * 3]))


def test_silhouettes_keep_the_ball_and_cut_off_space():
    scene = close(ball(8, 32))
    space = SceneBox(scene.box, False)
    cells = visible_cells(scene, space, 32, use_silhouettes=True)
    distance = centers(space, 32).norm(dim=-1)
    assert bool(cells[distance < RADIUS].all())
    uncut = visible_cells(scene, space, 32, use_silhouettes=False)
    assert bool(uncut[cells].all())
    assert int(cells.sum()) < 0.9 * int(uncut.sum())


def test_the_carved_box_holds_the_ball_and_what_is_left():
    lower, upper = crop_to_silhouettes(close(ball(8, 32)))
    assert bool((lower <= -RADIUS).all())
    assert bool((upper >= RADIUS).all())
    scene = close(ball(8, 32))
    left = centers(SceneBox(scene.box, False), 64)[
        visible_cells(scene, SceneBox(scene.box, False), 64, use_silhouettes=True)
    ]
    cell = 2.2 / 64
    torch.testing.assert_close(lower, (left.amin(0) - 1.5 * cell).clamp(min=-1.1))
    torch.testing.assert_close(upper, (left.amax(0) + 1.5 * cell).clamp(max=1.1))


def transparent(scene: Scene) -> Scene:
    assert scene.images is not None
    return replace(scene, images=Images(scene.images.pixels * 0, scene.images.offsets))


@pytest.mark.parametrize(
    "change",
    [
        transparent,
        lambda scene: scene.without_images(),
        lambda scene: replace(scene, unbounded=True),
        lambda scene: replace(scene, images=Images(scene.images.pixels[:, :3].contiguous(), scene.images.offsets)),
    ],
    ids=["nothing left", "no images", "open", "opaque"],
)
def test_without_a_silhouette_the_box_stays(change):
    scene = change(ball(3, 12))
    assert torch.equal(crop_to_silhouettes(scene), scene.box)


def test_cells_that_no_camera_looks_at_are_left_out():
    scene = ball(1, 12)
    space = SceneBox(scene.box * 10, False)
    cells = visible_cells(scene, space, 8, use_silhouettes=False)
    xy, depth = (part[0] for part in scene.cameras.project(centers(space, 8).reshape(-1, 3)))
    inside = (depth > 0) & (xy >= 0).all(-1) & (xy < 12).all(-1)
    assert torch.equal(cells.view(-1), inside)
    assert 0 < int(cells.sum()) < cells.numel()


def test_photographs_that_look_at_a_cell_are_counted():
    scene = ball(4, 10)
    space = SceneBox(scene.box, False)
    midpoints = space.from_unit_cube((torch.cartesian_prod(*[torch.arange(8.0)] * 3).flip(-1) + 0.5) / 8)
    xy, depth = scene.cameras.project(midpoints)
    looks = ((depth > 0) & (xy >= 0).all(-1) & (xy < 10).all(-1)).sum(0).view(8, 8, 8)
    for least in (1, 2, 4, 5):
        assert torch.equal(visible_cells(scene, space, 8, use_silhouettes=False, min_views=least), looks >= least)


@pytest.mark.parametrize("planes", [False, True])
def test_what_is_nearer_than_near_is_looked_through_and_not_at(planes):
    whole = replace(ball(2, 10), near=torch.zeros(2), bounds_are_z_depth=planes)
    scene = replace(whole, near=torch.tensor([4.0, 3.5]))
    space = SceneBox(scene.box, False)
    points = centers(space, 16).view(-1, 3)
    xy, away = scene.cameras.project(points)
    within = (away > 0) & (xy >= 0).all(-1) & (xy < 10).all(-1)
    if not planes:
        away = (points - scene.cameras.positions[:, None]).norm(dim=-1)
    nearer = away < scene.near[:, None]
    for least in (1, 2):
        looked = visible_cells(scene, space, 16, use_silhouettes=False, min_views=least).view(-1)
        assert torch.equal(looked, (within & ~nearer).sum(0) >= least)
    assert torch.equal(cells_before_near(scene, space, 16).view(-1), (within & nearer).any(0))
    assert 0 < int(cells_before_near(scene, space, 16).sum()) < int(within.any(0).sum())
    assert not bool(cells_before_near(whole, space, 16).any())


def test_all_of_ndc_space_is_seen():
    scene = replace(ball(2, 12), ndc=Ndc((12.0, 12.0), (12, 12)))
    assert bool(visible_cells(scene, SceneBox(scene.box, False), 4, use_silhouettes=True).all())
    assert not bool(cells_before_near(scene, SceneBox(scene.box, False), 4).any())


def test_points_are_held_by_the_cell_they_lie_in():
    cells = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    grid = OccupancyGrid(4, 1.0, cells)
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2
    expected = []
    for x, y, z in points.tolist():
        inside = all(0 <= value < 1 for value in (x, y, z))
        expected.append(inside and bool(cells[int(z * 4), int(y * 4), int(x * 4)]))
    assert grid.is_occupied(points).tolist() == expected
    assert grid.is_occupied(points[:0]).shape == (0,)
    assert grid.is_occupied(torch.tensor([[1e30, 0.5, 0.5], [-1e30, 0.5, 0.5]])).tolist() == [False, False]


def test_the_density_is_asked_for_in_occupied_cells_alone():
    cells = torch.zeros(2, 2, 2, dtype=torch.bool)
    cells[0, 0, 1] = True
    asked = []
    space = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]), False)
    points = torch.tensor([[0.5, -0.5, -0.5], [-0.5, -0.5, -0.5], [0.5, -0.5, -3.0], [0.9, -0.1, -0.9]])
    found = OccupancyGrid(2, 1.0, cells).mask_density(
        lambda some: asked.append(some) or 7 * some[:, 0].bfloat16(), space, points
    )
    assert torch.allclose(found, torch.tensor([3.5, 0.0, 0.0, 6.3]), atol=0.05)
    assert torch.equal(torch.cat(asked), points[[0, 3]])
