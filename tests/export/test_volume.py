"""Volumes, read back by short readers and compared with the density itself, cell by cell."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analytic import around, run_of, scene_of
from commands import tree
from lumifield.data.scene import Frame
from lumifield.export import VolumeExport, volume
from lumifield.export.world_field import WorldField
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.rays import Ndc
from lumifield.methods.base import Method
from refusals import refuses

FRAME = Frame(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([5.0, -6.0, 7.0]), 3.0)


class Fog(Method):
    """A ball of fog that gets thinner outward, colored by position and direction; `max_points` of all queries."""

    def __init__(self, center=(0.3, -0.2, 0.1), radius=0.5) -> None:
        super().__init__()
        self.center, self.radius = torch.tensor(center), radius
        self.max_points = 0

    def density(self, points):
        self.max_points = max(self.max_points, len(points))
        return 40 * (self.radius - (points - self.center).norm(dim=-1)).clamp_min(0)

    def colors(self, points, viewdirs):
        return (0.5 + 0.3 * points.sin() + 0.1 * viewdirs[:, :1]).clamp(0, 1)


def fog_run(folder: Path, method: Method | None = None, **scene):
    train = replace(scene_of(around(4), frame=FRAME), **scene)
    return run_of(folder / "run", method or Fog(), {"train": train})


def read_metadata(file: Path) -> dict:
    return json.loads(file.read_text())


def read_vol(path: Path, n: int) -> np.ndarray:
    """RGBA of the cells at [x, y, z], from the description of the format alone."""
    cells = np.zeros((n, n, n, 4), np.uint8)
    for index, color in np.fromfile(path, "<u4").reshape(-1, 2).tolist():
        z, x, y = index % n, index // n % n, index // n**2
        cells[x, y, z] = color >> 24, color >> 16 & 255, color >> 8 & 255, color & 255
    return cells


def read_raw(path: Path, n: int) -> np.ndarray:
    return np.fromfile(path, np.uint8).reshape(n, n, n, 4).transpose(2, 1, 0, 3)


def expected_cells(run, metadata: dict) -> tuple[np.ndarray, np.ndarray]:
    """Density and RGBA of the cells at [x, y, z], each axis written out."""
    n, low, high = metadata["cells"], np.array(metadata["low"]), np.array(metadata["high"])
    axes = [low[axis] + (np.arange(n) + 0.5) * (high[axis] - low[axis]) / n for axis in range(3)]
    points = torch.tensor(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3), dtype=torch.float32)
    frame = run.scenes["train"].frame
    scene_points = frame.to_scene(points)
    density = run.method.density(scene_points) / frame.scale
    alpha = 255 * (1 - torch.exp(-density * (high - low)[0] / n))
    axes = torch.eye(3)
    per_axis = [run.method.colors(scene_points, axis.expand_as(scene_points)) for axis in (*axes, *-axes)]
    rgb = 255 * torch.stack(per_axis).mean(0) * (alpha >= 1)[:, None]
    rgba = torch.cat([rgb, alpha[:, None]], -1)
    return density.reshape(n, n, n).numpy(), rgba.reshape(n, n, n, 4).numpy()


def assert_truncated(found: np.ndarray, exact: np.ndarray) -> None:
    """Equal to the truncated values, except where rounding errors decide."""
    is_clear = np.abs(exact - np.round(exact)) > 1e-2
    assert is_clear.mean() > 0.1
    assert np.array_equal(found[is_clear], np.floor(exact)[is_clear])
    assert np.abs(found - exact).max() < 1.02


@pytest.mark.parametrize(
    "settings", [VolumeExport(resolution=9), VolumeExport(resolution=7, center=(5.0, -5.0, 7.0), cube_size=4.0)]
)
@pytest.mark.parametrize(("extension", "reader"), [("vol", read_vol), ("raw", read_raw)])
def test_the_cells_hold_color_and_opacity(tmp_path, settings, extension, reader, monkeypatch):
    monkeypatch.setattr(volume, "POINTS_PER_SLAB", 200)  # several slabs
    run = fog_run(tmp_path)
    settings.write(run, tmp_path / f"fog.{extension}")
    metadata = read_metadata(tmp_path / "fog.json")
    assert (metadata["file"], metadata["cells"]) == (f"fog.{extension}", settings.resolution)
    found = reader(tmp_path / f"fog.{extension}", settings.resolution)
    assert_truncated(found, expected_cells(run, metadata)[1])
    assert found[..., 3].max() > 100


def test_a_vol_file_lists_only_visible_cells_in_order(tmp_path):
    run = fog_run(tmp_path)
    VolumeExport(resolution=64).write(run, tmp_path / "fog.vol")
    found = read_vol(tmp_path / "fog.vol", 64)
    density, rgba = expected_cells(run, read_metadata(tmp_path / "fog.json"))
    assert_truncated(found, rgba)
    records = np.fromfile(tmp_path / "fog.vol", "<u4").reshape(-1, 2)
    assert len(records) == (rgba[..., 3] >= 1).sum()
    assert (np.diff(records[:, 0].astype(int)) > 0).all()
    assert found[..., 3][density == 0].max() == 0


def test_an_npz_file_holds_density_color_and_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(volume, "POINTS_PER_SLAB", 200)
    run = fog_run(tmp_path)
    VolumeExport(resolution=8).write(run, tmp_path / "fog.npz")
    with np.load(tmp_path / "fog.npz", allow_pickle=False) as arrays:
        density, rgb, bounds = (arrays[name] for name in ("density", "rgb", "bounds"))
    metadata = read_metadata(tmp_path / "fog.json")
    expected_density, rgba = expected_cells(run, metadata)
    assert (density.dtype, rgb.dtype) == (np.float32, np.uint8)
    np.testing.assert_allclose(density, expected_density.transpose(2, 1, 0), rtol=1e-4, atol=1e-4)
    assert_truncated(rgb, rgba.transpose(2, 1, 0, 3)[..., :3])
    np.testing.assert_allclose(bounds, [metadata["low"], metadata["high"]])


def test_the_default_cube_encloses_the_density_tightly(tmp_path):
    run = fog_run(tmp_path)
    VolumeExport(resolution=4).write(run, tmp_path / "fog.raw")
    metadata = read_metadata(tmp_path / "fog.json")
    low, high = np.array(metadata["low"]), np.array(metadata["high"])
    center = FRAME.to_world(Fog().center).numpy()
    coarse_cell, radius = 9.0 / volume.COARSE_RESOLUTION, 1.5
    # Radius in which a coarse cell absorbs a twentieth of the light.
    opaque_radius = radius + np.log(0.95) / coarse_cell / 40 * 3**2
    assert (low <= center - opaque_radius).all()
    assert (high >= center + opaque_radius).all()
    assert (high - low).max() <= 2 * radius + 4 * coarse_cell
    assert np.ptp(high - low) < 1e-5


@pytest.mark.parametrize("scene", [{"unbounded": True}, {}], ids=["unbounded", "bounded"])
def test_density_beyond_the_region_of_interest_is_cut(tmp_path, scene):
    run = fog_run(tmp_path, Fog(radius=9.0), **scene)
    VolumeExport(resolution=4).write(run, tmp_path / "fog.raw")
    metadata = read_metadata(tmp_path / "fog.json")
    margin = 0 if scene else 9.0 / volume.COARSE_RESOLUTION
    np.testing.assert_allclose(metadata["low"], np.array([0.5, -10.5, 2.5]) - margin, atol=1e-5)
    np.testing.assert_allclose(metadata["high"], np.array([9.5, -1.5, 11.5]) + margin, atol=1e-5)


@pytest.mark.parametrize(("resolution", "max_points"), [(6, 216), (20, 800), (40, 1600)])
def test_queries_are_limited_to_a_slab_of_at_least_one_layer(tmp_path, monkeypatch, resolution, max_points):
    monkeypatch.setattr(volume, "POINTS_PER_SLAB", 1000)
    run = fog_run(tmp_path)
    VolumeExport(resolution=resolution, cube_size=3.0).write(run, tmp_path / "fog.vol")
    assert run.method.max_points == max_points


def test_progress_counts_layers(tmp_path):
    calls = []
    settings = VolumeExport(resolution=70, cube_size=5.0)
    settings.write(fog_run(tmp_path), tmp_path / "fog.raw", lambda *call: calls.append(call))
    assert calls[-1] == (70, 70)
    assert calls == sorted(calls)


class Layers(Method):
    """In normalized device coordinates: density varies with z, color with the point."""

    def density(self, points):
        return 2 + points[:, 2]

    def colors(self, points, viewdirs):
        return (0.5 + 0.4 * points).clamp(0, 1)


@pytest.fixture
def forward_facing(tmp_path):
    """A run in normalized device coordinates."""
    ndc = Ndc((20.0, 20.0), (32, 24), 1.0)
    cameras = pinhole_cameras(torch.eye(3, 4).repeat(4, 1, 1), 20.0, (32, 24))
    return fog_run(tmp_path, Layers(), ndc=ndc, cameras=cameras)


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (0.5, -0.3, 0.8)])
def test_optical_depth_is_equal_in_ndc_and_in_the_world(forward_facing, direction):
    scene = forward_facing.scenes["train"]
    t = torch.linspace(0, 12, 6001, dtype=torch.float64)[1:].float()
    ray = torch.tensor(direction)
    points = t[:, None] * ray / ray.norm()
    density = WorldField(forward_facing).density(FRAME.to_world(points))
    assert bool((density[points[:, 2] < 1] == 0).all())
    last = 1 - 2 * scene.ndc.plane / float(points[-1, 2])
    # The integral of 2 + z over NDC, where a ray from the origin is parallel to z.
    exact = 2 * (last + 1) + (last**2 - 1) / 2
    assert float(torch.trapezoid(density, 3 * t)) == pytest.approx(exact, rel=2e-3)


def test_the_volume_of_an_ndc_scene_starts_at_its_near_plane(forward_facing, tmp_path):
    VolumeExport(resolution=8).write(forward_facing, tmp_path / "wall.raw")
    metadata = read_metadata(tmp_path / "wall.json")
    front = FRAME.to_world(torch.tensor([0.0, 0.0, 1.0]))
    low, high = torch.tensor(metadata["low"]), torch.tensor(metadata["high"])
    assert float(low[2]) == pytest.approx(float(front[2]))
    assert read_raw(tmp_path / "wall.raw", 8)[..., 3].min() > 0
    center_depth = (high[2] - low[2]) / 2 / 3 + 1
    assert float(high[0] - low[0]) / 3 == pytest.approx(float(center_depth) * 32 / 20, rel=1e-4)


def test_the_cube_of_a_wide_angle_lens_is_finite():
    low, high = volume.frustum_cube(Ndc((1.0, 1.0), (400, 300), 1.0))
    assert 0 < float((high - low).max()) < 100


EMPTY_CORNER = VolumeExport(center=(8.5, -9.5, 3.5), cube_size=1.0, resolution=8)


@pytest.mark.parametrize(
    ("settings", "name", "field", "found"),
    [
        (VolumeExport(), "fog.vdb", "extension", "'.vdb'"),
        (VolumeExport(resolution=0), "fog.vol", "resolution", "0"),
        (VolumeExport(resolution=1626), "fog.vol", "resolution", "1626"),
        (VolumeExport(cube_size=0.0), "fog.vol", "cube_size", "0"),
        (VolumeExport(cube_size=float("nan")), "fog.vol", "cube_size", "nan"),
        (VolumeExport(center=(50.0, 0.0, 0.0), cube_size=1.0), "fog.vol", "cube", "outside the scene"),
        (EMPTY_CORNER, "fog.vol", "density", "an empty cube"),
        (EMPTY_CORNER, "fog.npz", "density", "an empty cube"),
        (VolumeExport(resolution=8), "taken.vol", "output", "a folder"),
    ],
)
def test_refused_settings_leave_no_file(tmp_path, settings, name, field, found):
    run = fog_run(tmp_path)
    (tmp_path / "taken.vol").mkdir()
    before = tree(tmp_path)
    with refuses(field, found=found):
        settings.write(run, tmp_path / name)
    assert tree(tmp_path) == before


def test_an_empty_scene_is_refused(tmp_path):
    with refuses("density", found="an empty cube", path=tmp_path / "run"):
        VolumeExport().write(fog_run(tmp_path, Fog(radius=0.0)), tmp_path / "fog.vol")
    assert tree(tmp_path) == {}
