"""New views of `localize select`: in free space, near the images, and looking where these look."""

import json
import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from analytic import Ball, around, run_of, scene_of
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.export.cameras import to_world_cameras
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.localization import Select
from lumifield.localization.lens import density, select
from lumifield.localization.lens.density import DensityGrid
from lumifield.rendering.camera_paths import read_camera_path
from lumifield.runtime.rng import Rng

FRAME = Frame(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([5.0, -6.0, 7.0]), 3.0)


def silent(done: int, total: int) -> None:
    assert done <= total


def wall() -> DensityGrid:
    """A box about the cameras of `ball_run`, with matter where y > -6 in the world."""
    occupied = np.zeros((30, 30, 10), np.float32)
    occupied[:, 15:] = 1
    return DensityGrid(np.array([[-10.0, -21.0, 2.0], [20.0, 9.0, 12.0]]), occupied, 0.5)


@pytest.fixture
def run(tmp_path):
    """Twelve cameras on a circle of radius 12 about (5, -6, 7) and two test cameras, with a wall through the middle."""
    scenes = {"train": scene_of(around(12), frame=FRAME), "test": scene_of(around(2), frame=FRAME)}
    made = run_of(tmp_path / "run", Ball(), scenes)
    density.write_density_grid(wall(), density.density_file(made))
    return made


def views(run, **options):
    """The cameras of the file that is written, in the world."""
    settings = Select(**({"num_views": 40, "min_clearance": 0.7, "max_camera_distance": 2.5} | options))
    said = settings.apply(run, silent)
    scene = run.scenes["train"]
    cameras = to_world_cameras(scene_of(read_camera_path(select.novel_views_file(run), scene), frame=scene.frame))
    assert said.startswith(f"{len(cameras)} views: ")
    return cameras


def nearest_images(run):
    return to_world_cameras(run.scenes["train"])


@pytest.mark.parametrize(
    "options", [{}, {"places": "path"}, {"max_offset": 1.0}, {"spacing": 0.8}, {"max_camera_distance": 4.0}]
)
def test_views_keep_their_distances(run, options):
    """From the wall, by brute force, from the border of the box, and from the nearest image."""
    found = views(run, **options).positions.numpy()
    assert len(found) == 40
    away = np.linalg.norm(found[:, None] - nearest_images(run).positions.numpy(), axis=-1).min(-1)
    assert away.max() <= options.get("max_camera_distance", 2.5) + 1e-5
    assert (found[:, 1] <= -6.7 + 1e-5).all()
    assert (found >= wall().bounds[0] + 0.7 - 1e-5).all()
    assert (found <= wall().bounds[1] - 0.7 + 1e-5).all()


def test_views_look_where_the_nearest_photograph_does(run):
    found, taken = views(run, rotation_range=0.0), nearest_images(run)
    row = (found.positions[:, None] - taken.positions).norm(dim=-1).argmin(-1)
    torch.testing.assert_close(found.c2w[:, :, :3], taken.c2w[row][:, :, :3], atol=1e-6, rtol=0)
    assert torch.equal(found.size, taken.size[row])
    torch.testing.assert_close(found.focal, taken.focal[row])


def test_views_turn_by_at_most_half_the_angle_about_each_axis(run):
    found, taken = views(run, rotation_range=20.0, num_views=400), nearest_images(run)
    row = (found.positions[:, None] - taken.positions).norm(dim=-1).argmin(-1)
    turn = taken.c2w[row][:, :, :3].transpose(1, 2) @ found.c2w[:, :, :3]
    angles = np.degrees(np.abs(Rotation.from_matrix(turn.numpy()).as_rotvec()))
    assert angles.max() <= 10 + 1e-3
    assert (angles.max(0) > 9).all()
    assert angles.mean() == pytest.approx(5, abs=0.5)


def test_displacements_fill_a_ball_evenly():
    positions, grid = np.zeros((1, 3)), wall()
    space = select.FreeSpace(positions, grid, 0.0, 1.0, 2.0, Rng(torch.Generator().manual_seed(0)))
    moved = np.linalg.norm(space.add_offsets(np.zeros((4000, 3))), axis=-1)
    assert moved.max() <= 2
    assert np.mean(moved < 2 * 0.5 ** (1 / 3)) == pytest.approx(0.5, abs=0.03)


def test_a_grid_of_given_spacing(run):
    found = views(run, spacing=1.5, num_views=10_000).positions.numpy()
    offsets = (found - found[0]) / 1.5
    assert np.abs(offsets - offsets.round()).max() < 1e-4
    grid_nodes = select.grid_nodes(wall().bounds + np.array([[0.7], [-0.7]]), 1.5)
    away = np.linalg.norm(grid_nodes[:, None] - nearest_images(run).positions.numpy(), axis=-1).min(-1)
    # Cells of edge 1 are known but for half a diagonal.
    free = (away <= 2.5) & (grid_nodes[:, 1] < -6.7)
    sure = (away <= 2.5) & (grid_nodes[:, 1] < -6.7 - math.sqrt(3))
    assert sure.sum() <= len(found) <= free.sum()


def test_the_seed_decides(run):
    first, again, other = (views(run, seed=seed, max_offset=0.1).c2w for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_lenses_become_pinholes(run):
    taken = nearest_images(run)
    taken.distortion[:] = 0.1
    taken.center[:, 0] += 3
    taken.focal[:, 1] += 2
    rng = Rng(torch.Generator().manual_seed(0))
    found = select.orient_cameras(np.array([[17.0, -6.0, 7.0]]), taken, 0.0, rng)
    assert (found.distortion.tolist(), found.center.tolist(), found.focal.tolist()) == (
        [[0.0] * 4],
        [[16.0, 12.0]],
        [[33.0, 33.0]],
    )


def test_frusta_are_red_blue_and_green(run):
    views(run)
    shape = trimesh.load(select.novel_views_file(run).with_suffix(".ply"), process=False)
    colors = shape.visual.vertex_colors[::5, :3].tolist()
    assert colors == [[210, 40, 40]] * 12 + [[30, 90, 220]] * 2 + [[40, 160, 60]] * 40


def test_files_of_ones_own(run, tmp_path):
    density.density_file(run).rename(tmp_path / "mine.npz")
    Select(
        num_views=5,
        min_clearance=0.7,
        max_camera_distance=2.5,
        density=tmp_path / "mine.npz",
        out=tmp_path / "mine.json",
    ).apply(run, silent)
    assert len(json.loads((tmp_path / "mine.json").read_text())) == 5
    assert (tmp_path / "mine.ply").is_file()


@pytest.fixture
def coarse(monkeypatch):
    """Grids that soon have too many nodes."""
    monkeypatch.setattr(select, "MAX_NODES", 5000)


def test_too_little_free_space(run, coarse):
    with pytest.raises(DataError, match=r"free positions: found 0"):
        views(run, min_clearance=4.9, max_camera_distance=0.1)
    fix = "lower --num-views or --min-clearance, raise --max-camera-distance or the density threshold"
    with pytest.raises(DataError, match=fix):
        views(run, places="path", min_clearance=4.9, max_camera_distance=0.1)


def test_a_spacing_with_no_or_too_many_nodes(run, coarse):
    for spacing in (100.0, 1e-3):
        with pytest.raises(DataError, match="number of free positions: found 0"):
            views(run, spacing=spacing)


def test_bounds_that_have_nothing_in_common_with_the_cameras(run):
    grid = wall()
    density.write_density_grid(DensityGrid(grid.bounds + 100, grid.density, 0.5), density.density_file(run))
    with pytest.raises(DataError, match=r"density\.npz: bounds: found no overlap with the surroundings of the cameras"):
        views(run)


def test_a_clearance_wider_than_the_box(run):
    with pytest.raises(DataError, match=r"write it again for this run, or lower --min-clearance"):
        views(run, min_clearance=6.0)


def test_settings_that_cannot_be():
    with pytest.raises(DataError, match=r"select: num_views: found 0"):
        Select(num_views=0)
    with pytest.raises(DataError, match=r"select: spacing: found 0\.5"):
        Select(places="path", spacing=0.5)


def test_cameras_in_one_place_have_a_spread():
    assert (
        density.camera_spread(pinhole_cameras(torch.eye(3, 4)[None].repeat(3, 1, 1), 9.0, (8, 6)).positions.numpy())
        == 1.0
    )
