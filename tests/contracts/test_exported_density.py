"""Volumes exported from trained methods hold density only where training found some."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analytic import run_of
from lumifield.data.scene import Scene
from lumifield.export import VolumeExport
from lumifield.export.world_field import WorldField
from lumifield.methods.base import Method
from lumifield.volume.occupancy import OccupancyGrid
from scenes import SCENES, SMALL
from training_steps import rng, take_step

OCCUPANCY_METHODS = ["instant", "nerf, occupied", "nerf-w"]


def train(name: str, scene: Scene, steps: int) -> Method:
    torch.manual_seed(0)
    method, source = SMALL[name].build(scene), rng(1)
    groups = [{**group, "lr": 5e-3 * group.get("lr_factor", 1)} for group in method.param_groups()]
    optimizer = torch.optim.Adam(groups)
    for step in range(steps):
        take_step(method, optimizer, scene, step, source)
    return method.eval()


def occupancy_of(method: Method) -> OccupancyGrid:
    (grid,) = (module for module in method.modules() if isinstance(module, OccupancyGrid))
    return grid


def read_volume(folder: Path, method: Method, scene: Scene, resolution: int = 24) -> tuple[np.ndarray, torch.Tensor]:
    """Density per cell of an exported volume, and the cell centers."""
    size = float((scene.box[1] - scene.box[0]).max())
    settings = VolumeExport(resolution=resolution, cube_size=size, center=tuple(scene.box.mean(0).tolist()))
    settings.write(run_of(folder / "run", method, {"train": scene}), folder / "volume.npz")
    with np.load(folder / "volume.npz", allow_pickle=False) as arrays:
        density, (low, high) = arrays["density"], arrays["bounds"]
    axes = [
        torch.linspace(0, 1, 2 * resolution + 1)[1::2] * float(b - a) + float(a) for a, b in zip(low, high, strict=True)
    ]
    return density.transpose(2, 1, 0), torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).float()


@pytest.mark.parametrize("name", OCCUPANCY_METHODS)
def test_a_volume_is_empty_outside_the_occupied_cells(tmp_path, name):
    scene = SCENES["bounded"]()
    method = train(name, scene, 40)
    density, centers = read_volume(tmp_path, method, scene)
    box = next(buffer for key, buffer in method.named_buffers() if key.split(".")[-1] == "box")
    unit = ((centers.view(-1, 3) - box[0]) / (box[1] - box[0])).clamp(-1, 2)
    occupied = occupancy_of(method).is_occupied(unit).view(density.shape).numpy()
    assert 0.01 < occupied.mean() < 0.9
    assert (density[~occupied] == 0).all()
    assert (density[occupied] > 0).all()


def test_a_volume_of_a_signed_distance_is_opaque_inside_and_empty_outside(tmp_path):
    scene = SCENES["bounded"]()
    method = train("nlr", scene, 10)
    density, centers = read_volume(tmp_path, method, scene)
    with torch.no_grad():
        distance = method.signed_distance(centers.view(-1, 3)).view(density.shape).numpy()
    cell = float(centers[1, 0, 0, 0] - centers[0, 0, 0, 0])
    assert (distance < -cell).any()
    assert (density[distance < -cell] * cell > 5).all()
    assert (density[distance > cell] * cell < 0.01).all()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_volume_holds_the_density_of_the_method(tmp_path, name):
    scene = SCENES["bounded"]()
    method = train(name, scene, 2)
    density, centers = read_volume(tmp_path, method, scene, resolution=8)
    run = run_of(tmp_path / "again", method, {"train": scene})
    expected = WorldField(run).density(centers.view(-1, 3)).view(density.shape).numpy()
    np.testing.assert_allclose(density, expected, rtol=1e-4, atol=1e-4)
