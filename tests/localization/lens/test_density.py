"""The density grid of `localize density`: where matter is, how far from it, and what is on the disk."""

import math

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analytic import Ball, around, run_of, scene_of
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.localization import Density
from lumifield.localization.lens import density
from lumifield.localization.lens.density import DensityGrid

FRAME = Frame(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([5.0, -6.0, 7.0]), 3.0)


class Tinted(Ball):
    """The ball with colors that are asked for at points."""

    def colors(self, points, viewdirs):
        return torch.full_like(points, 0.2)


def silent(done: int, total: int) -> None:
    assert done <= total


def ball_run(tmp_path, n: int = 6):
    """The ball in a world three times as large, turned and moved."""
    return run_of(tmp_path / "run", Tinted(), {"train": scene_of(around(n), frame=FRAME)})


def test_the_box_holds_nearly_all_cameras_with_a_margin():
    positions = np.random.default_rng(0).uniform(-1, 1, (1000, 3))
    positions[0] = 50
    bounds = density.camera_bounds(positions, 0.5)
    assert np.abs(bounds - [[-1.5] * 3, [1.5] * 3]).max() < 0.05
    usual = density.camera_bounds(positions, None)
    assert usual[1, 0] - bounds[1, 0] == pytest.approx(density.camera_spread(positions) / 4 - 0.5)


def test_cells_are_cubes_that_cover_the_bounds(tmp_path):
    run = ball_run(tmp_path)
    bounds = np.array([[2.0, -9.0, 5.0], [9.0, -3.0, 9.0]])
    counts: list[tuple[int, int]] = []
    grid = density.measure_density(run, bounds, Density(num_cells=3000), lambda *count: counts.append(count))
    assert grid.density.size == pytest.approx(3000, rel=0.2)
    assert np.allclose((grid.bounds[1] - grid.bounds[0]) / grid.density.shape, grid.edge)
    assert (grid.bounds[0] <= bounds[0] + 1e-9).all()
    assert (grid.bounds[1] >= bounds[1] - 1e-9).all()
    assert counts[-1] == (grid.density.size, grid.density.size)


def test_density_is_per_world_unit_and_the_highest_of_the_cell(tmp_path):
    grid = density.measure_density(
        ball_run(tmp_path), np.array([[2.0, -9.0, 4.0], [8.0, -3.0, 10.0]]), Density(num_cells=8), silent
    )
    step = grid.edge / 4
    for cell in np.ndindex(2, 2, 2):
        corners = np.array(list(np.ndindex(2, 2, 2))) * 2 * step + step + grid.bounds[0] + grid.edge * np.array(cell)
        away = np.linalg.norm(corners - [5, -6, 7], axis=-1) / 3
        assert grid.density[cell] == pytest.approx(100 / 3 * np.exp(20 * (1 - away.min())), rel=1e-4)


def test_matter_is_where_the_ball_is(tmp_path):
    run = ball_run(tmp_path)
    bounds = np.array([[1.0, -10.0, 3.0], [9.0, -2.0, 11.0]])
    grid = density.measure_density(run, bounds, Density(num_cells=8000, density_threshold=100 / 3), silent)
    away = np.linalg.norm(grid.occupied_centers - [5, -6, 7], axis=-1)
    assert away.max() < 3 + grid.edge
    assert 4 / 3 * math.pi * 27 < len(grid.occupied_centers) * grid.edge**3 < 4 / 3 * math.pi * (3 + grid.edge) ** 3


@given(arrays(np.bool_, (3, 4, 2)), arrays(np.float64, (5, 3), elements=st.floats(-3, 5)))
def test_no_matter_is_nearer_than_the_distance(occupied, points):
    """And none is farther off than by the diagonal of a cell."""
    grid = DensityGrid(np.array([[-1.0, 0.0, 1.0], [0.5, 2.0, 2.0]]), occupied.astype(np.float32), 0.5)
    found = grid.distance(points)
    low = grid.bounds[0] + grid.edge * np.argwhere(occupied)
    for point, distance in zip(points, found, strict=True):
        gaps = np.maximum(np.maximum(low - point, point - low - grid.edge), 0)
        true = np.linalg.norm(gaps, axis=-1).min(initial=np.inf)
        assert distance <= true + 1e-9
        assert distance >= true - math.sqrt(3) * grid.edge or math.isinf(true)
        assert math.isinf(true) == math.isinf(distance)


def test_no_points_have_no_distance():
    assert DensityGrid(np.array([[0.0] * 3, [1.0] * 3]), np.ones((1, 1, 1)), 0.5).distance(np.zeros((0, 3))).shape == (
        0,
    )


@pytest.mark.parametrize("level", [1e-3, 1e12])
def test_both_files_hold_the_grid(tmp_path, level):
    run = ball_run(tmp_path)
    said = Density(num_cells=1000, density_threshold=level).apply(run, silent)
    grid = density.read_density_grid(run.folder / "localize" / "density.npz")
    assert (grid.density_threshold, grid.density.shape) == (level, grid.occupied.shape)
    cloud = (run.folder / "localize" / "density.ply").read_bytes()
    count = int(grid.occupied.sum())
    assert (count > 0) == (level < 1)
    assert f"element vertex {count}\n".encode() in cloud
    assert said.startswith(f"{count} of {grid.density.size} cells of {grid.edge:.3g} are occupied")
    if count:
        points = trimesh.load(run.folder / "localize" / "density.ply")
        assert np.allclose(points.vertices, grid.occupied_centers, atol=1e-4)
        assert (points.colors[:, :3] == 51).all()


def test_the_usual_level_stops_half_of_the_light_over_a_tenth_of_the_spread(tmp_path):
    run = ball_run(tmp_path)
    Density(num_cells=10, out=tmp_path / "d.npz").apply(run, silent)
    assert math.exp(-0.1 * 12 * density.read_density_grid(tmp_path / "d.npz").density_threshold) == pytest.approx(0.5)


def test_cameras_inside_occupied_cells_are_counted(tmp_path):
    said = Density(num_cells=1000, density_threshold=1e-30).apply(ball_run(tmp_path), silent)
    assert "6 of 6 training cameras are inside" in said


def test_flat_bounds_are_refused(tmp_path):
    with pytest.raises(DataError, match="--margin: box: found flat, because the cameras lie in a plane or a line"):
        Density(margin=0.0).apply(ball_run(tmp_path), silent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "d.npz: file: found missing"),
        (b"PK\x03\x04 and no more", r"d.npz: file: found damaged \(File is not a zip file\)"),
        (
            b"no archive",
            r"d.npz: file: found damaged \(This file contains pickled \(object\) data\. If you trust the fi",
        ),
        ({"density": np.zeros((2, 2, 2))}, r"d.npz: file: found damaged \('bounds is not a file in the archive'\)"),
        (
            {"bounds": np.zeros((2, 2)), "density": np.zeros((2, 2, 2)), "density_threshold": 1.0},
            "d.npz: content: found arrays of other shapes",
        ),
    ],
)
def test_files_that_are_no_density(tmp_path, content, message):
    file = tmp_path / "d.npz"
    if isinstance(content, dict):
        np.savez(file, **content)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        density.read_density_grid(file)


def test_settings_that_cannot_be():
    with pytest.raises(DataError, match=r"density: num_cells: found 0"):
        Density(num_cells=0)
    with pytest.raises(DataError, match="density: margin: found -1"):
        Density(margin=-1.0)
