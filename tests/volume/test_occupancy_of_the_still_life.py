"""The occupancy grid against matter whose place is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lumifield.data import Source, read_scene
from lumifield.geometry.contraction import SceneBox
from lumifield.runtime.rng import Rng
from lumifield.synthetic import StillLife, synthesize_data
from lumifield.synthetic.scene_description import SyntheticScene, pack_scene
from lumifield.synthetic.scene_mesh import build_scene_mesh, evaluate_item
from lumifield.synthetic.still_life import make_table_scene
from lumifield.volume.occupancy import OccupancyGrid, crop_to_silhouettes, visible_cells

SIDE = 32
MATTER = 50.0


def rng() -> Rng:
    return Rng(torch.Generator().manual_seed(0))


def stage() -> SyntheticScene:
    """The still life's thin things: bowl and vase are hollow, the rings and stems narrower than a cell."""
    names = ("cloth", "vase", "bowl", "apple stem", "lying ring", "standing ring", "pear stem")
    return SyntheticScene(tuple(item for item in make_table_scene().items if item.name in names))


def density(points: Tensor) -> Tensor:
    """Matter inside the items, nothing elsewhere."""
    things, found = stage(), torch.zeros(len(points), dtype=torch.bool)
    for item, row in zip(things.items, pack_scene(things).items, strict=True):
        local = np.ascontiguousarray((points.double().numpy() - np.array(item.center)) @ item.rotation_matrix())
        gaps, unused = np.empty(len(points)), np.empty_like(local)
        evaluate_item(np.array([row]), local, gaps, unused, unused.copy())
        found |= torch.from_numpy(gaps < 0)
    return found * MATTER


def at(points: Tensor, space: SceneBox, cells: Tensor) -> Tensor:
    """The values of the cells that hold the points."""
    x, y, z = (space.to_unit_cube(points) * cells.shape[0]).floor().long().unbind(-1)
    return cells[z, y, x]


def test_silhouettes_carve_away_no_surface_of_the_still_life(tmp_path: Path):
    settings = StillLife(image_width=24, num_train=12, num_val=0, num_test=0, samples_per_pixel=1, ground_truth=False)
    synthesize_data(settings, tmp_path / "scene")
    scene = read_scene(Source(tmp_path / "scene", background="white"), "train")
    surface = torch.from_numpy(build_scene_mesh(make_table_scene()).vertices).float()
    box = crop_to_silhouettes(scene, SIDE)
    assert bool((surface > box[0]).all())
    assert bool((surface < box[1]).all())
    allowed = visible_cells(scene, SceneBox(box, False), SIDE, use_silhouettes=True)
    assert bool(at(surface, SceneBox(box, False), allowed).all())
    assert float(allowed.float().mean()) < 0.6


def refreshed(margin: float) -> tuple[OccupancyGrid, SceneBox]:
    """A grid over the thin things after as many refreshes as in some thousand steps."""
    space = SceneBox(torch.tensor([[-1.2, -1.2, -0.6], [1.2, 1.2, 0.6]]), False)
    everything = torch.ones(SIDE, SIDE, SIDE, dtype=torch.bool)
    grid, source = OccupancyGrid(SIDE, 0.01, everything, threshold=1e-3, margin=margin), rng()
    for number in range(80):
        grid.update(density, space, source, everywhere=number < 16, cells=SIDE**3 // 16)
    return grid, space


def test_a_margin_keeps_slivers_of_matter():
    surface = torch.from_numpy(build_scene_mesh(stage()).vertices).float()
    lost, share = [], []
    for margin in (0.0, 0.5):
        grid, space = refreshed(margin)
        lost.append(float((~at(surface, space, grid.occupied)).float().mean()))
        share.append(float(grid.occupied.float().mean()))
    assert lost[1] < 0.03
    assert lost[1] < 0.4 * lost[0]
    assert share[1] < 0.1


def test_empty_cells_are_given_up_and_found_again():
    space, cells = SceneBox(torch.tensor([[0.0] * 3, [1.0] * 3]), False), 8
    allowed = torch.ones(8, 8, 8, dtype=torch.bool)
    allowed[0] = False
    grid, source = OccupancyGrid(8, 0.1, allowed, margin=0.5), rng()

    def left(points: Tensor) -> Tensor:
        return (points[:, 0] < 0.5) * MATTER

    for _ in range(3):
        grid.update(left, space, source, everywhere=True, cells=cells)
    assert grid.occupied[1:, :, :4].all()
    assert not grid.occupied[0].any()
    assert not grid.occupied[:, :, 5:].any()
    for _ in range(200):
        grid.update(lambda points: MATTER - left(points), space, source, everywhere=False, cells=128)
    assert grid.occupied[1:, :, 5:].all()
    assert not grid.occupied[:, :, :3].any()


@pytest.mark.parametrize("density_of_all", [0.0, 1e-30, 1e30])
def test_extreme_densities(density_of_all: float):
    space = SceneBox(torch.tensor([[0.0] * 3, [1.0] * 3]), False)
    grid = OccupancyGrid(4, 0.1, torch.ones(4, 4, 4, dtype=torch.bool))
    grid.update(lambda p: torch.full((len(p),), density_of_all), space, rng(), everywhere=True, cells=8)
    assert bool(grid.occupied.all()) == (density_of_all == 1e30)


def test_nothing_is_allowed():
    space = SceneBox(torch.tensor([[0.0] * 3, [1.0] * 3]), False)
    grid = OccupancyGrid(4, 0.1, torch.zeros(4, 4, 4, dtype=torch.bool))
    grid.update(lambda p: p[:, 0], space, rng(), everywhere=True, cells=8)
    assert not grid.occupied.any()
