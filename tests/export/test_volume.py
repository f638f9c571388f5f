"""Volumes, read back by short readers and compared with the density itself, cell by cell."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analytic import around, run_of, scene_of
from commands import tree
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.export import VolumeExport, volume
from lumifield.export.world_field import WorldField
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.rays import Ndc
from lumifield.methods.base import Method

FRAME = Frame(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([5.0, -6.0, 7.0]), 3.0)


class Fog(Method):
    """Fog in a ball about `middle`, thinner outwards, and colored by place and direction; notes what it is asked."""

    def __init__(self, middle=(0.3, -0.2, 0.1), radius=0.5) -> None:
        super().__init__()
        self.middle, self.radius = torch.tensor(middle), radius
        self.most = 0

    def inside(self, points):
        self.most = max(self.most, len(points))
        return 40 * (self.radius - (points - self.middle).norm(dim=-1)).clamp_min(0)

    def colors(self, points, viewdirs):
        return (0.5 + 0.3 * points.sin() + 0.1 * viewdirs[:, :1]).clamp(0, 1)


def run_in(folder: Path, frame: Frame = FRAME, method: Method | None = None, **scene):
    train = replace(scene_of(around(4), frame=frame), **scene)
    return run_of(folder / "run", method or Fog(), {"train": train})


def read_vol(path: Path, n: int) -> np.ndarray:
    """RGBA of the cells at [x, y, z], from the description of the format alone."""
    cells = np.zeros((n, n, n, 4), np.uint8)
    for index, color in np.fromfile(path, "<u4").reshape(-1, 2).tolist():
        z, x, y = index % n, index // n % n, index // n**2
        cells[x, y, z] = color >> 24, color >> 16 & 255, color >> 8 & 255, color & 255
    return cells


def read_raw(path: Path, n: int) -> np.ndarray:
    return np.fromfile(path, np.uint8).reshape(n, n, n, 4).transpose(2, 1, 0, 3)


def expected(run, about: dict) -> tuple[np.ndarray, np.ndarray]:
    """Density and RGBA of the cells at [x, y, z], each axis written out."""
    n, low, high = about["cells"], np.array(about["low"]), np.array(about["high"])
    axes = [low[axis] + (np.arange(n) + 0.5) * (high[axis] - low[axis]) / n for axis in range(3)]
    points = torch.tensor(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3), dtype=torch.float32)
    frame = run.scenes["train"].frame
    inner = frame.to_scene(points)
    density = run.method.inside(inner) / frame.scale
    side = (high - low)[0]
    alpha = 255 * (1 - torch.exp(-density * side / n))
    axis = torch.eye(3)
    looks = [run.method.colors(inner, d.expand_as(inner)) for d in (*axis, *-axis)]
    rgb = 255 * torch.stack(looks).mean(0) * (alpha >= 1)[:, None]
    rgba = torch.cat([rgb, alpha[:, None]], -1)
    return density.reshape(n, n, n).numpy(), rgba.reshape(n, n, n, 4).numpy()


def assert_truncated(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal to the numbers cut to whole ones, but where rounding could go either way."""
    clear = np.abs(wanted - np.round(wanted)) > 1e-2
    assert clear.mean() > 0.1
    assert np.array_equal(found[clear], np.floor(wanted)[clear])
    assert np.abs(found - wanted).max() < 1.02


@pytest.mark.parametrize(
    "settings", [VolumeExport(resolution=9), VolumeExport(resolution=7, center=(5.0, -5.0, 7.0), cube_size=4.0)]
)
@pytest.mark.parametrize(("ending", "reader"), [("vol", read_vol), ("raw", read_raw)])
def test_the_cells_are_those_of_the_density(tmp_path, settings, ending, reader, monkeypatch):
    monkeypatch.setattr(volume, "POINTS", 200)  # several slabs
    run = run_in(tmp_path)
    settings.write(run, tmp_path / f"fog.{ending}")
    about = json.loads((tmp_path / "fog.json").read_text())
    assert (about["file"], about["cells"]) == (f"fog.{ending}", settings.resolution)
    found = reader(tmp_path / f"fog.{ending}", settings.resolution)
    assert_truncated(found, expected(run, about)[1])
    assert found[..., 3].max() > 100


def test_a_vol_file_of_64_cells_equals_the_density(tmp_path):
    run = run_in(tmp_path)
    VolumeExport(resolution=64).write(run, tmp_path / "fog.vol")
    found = read_vol(tmp_path / "fog.vol", 64)
    density, rgba = expected(run, json.loads((tmp_path / "fog.json").read_text()))
    assert_truncated(found, rgba)
    count_video_frames = np.fromfile(tmp_path / "fog.vol", "<u4").reshape(-1, 2)
    assert len(count_video_frames) == (rgba[..., 3] >= 1).sum()
    assert (np.diff(count_video_frames[:, 0].astype(int)) > 0).all()
    assert found[..., 3][density == 0].max() == 0


def test_numbers_for_numpy(tmp_path, monkeypatch):
    monkeypatch.setattr(volume, "POINTS", 200)
    run = run_in(tmp_path)
    VolumeExport(resolution=8).write(run, tmp_path / "fog.npz")
    with np.load(tmp_path / "fog.npz", allow_pickle=False) as arrays:
        density, rgb, bounds = (arrays[name] for name in ("density", "rgb", "bounds"))
    about = json.loads((tmp_path / "fog.json").read_text())
    wanted, rgba = expected(run, about)
    assert (density.dtype, rgb.dtype) == (np.float32, np.uint8)
    np.testing.assert_allclose(density, wanted.transpose(2, 1, 0), rtol=1e-4, atol=1e-4)
    assert_truncated(rgb, rgba.transpose(2, 1, 0, 3)[..., :3])
    np.testing.assert_allclose(bounds, [about["low"], about["high"]])


def test_the_cube_is_as_tight_as_coarse_cells_allow(tmp_path):
    run = run_in(tmp_path)
    VolumeExport(resolution=4).write(run, tmp_path / "fog.raw")
    about = json.loads((tmp_path / "fog.json").read_text())
    low, high = np.array(about["low"]), np.array(about["high"])
    middle = FRAME.to_world(Fog().middle).numpy()
    coarse, radius = 9.0 / volume.PROBES, 1.5
    # Fog that stops a twentieth of the light of a coarse cell begins a little way inside the ball.
    solid = radius + np.log(0.95) / coarse / 40 * 3**2
    assert (low <= middle - solid).all()
    assert (high >= middle + solid).all()
    assert (high - low).max() <= 2 * radius + 4 * coarse
    assert np.ptp(high - low) < 1e-5


@pytest.mark.parametrize("scene", [{"unbounded": True}, {}])
def test_an_open_scene_is_cut_at_its_region_of_interest(tmp_path, scene):
    run = run_in(tmp_path, method=Fog(radius=9.0), **scene)
    VolumeExport(resolution=4).write(run, tmp_path / "fog.raw")
    about = json.loads((tmp_path / "fog.json").read_text())
    slack = 0 if scene else 9.0 / volume.PROBES
    np.testing.assert_allclose(about["low"], np.array([0.5, -10.5, 2.5]) - slack, atol=1e-5)
    np.testing.assert_allclose(about["high"], np.array([9.5, -1.5, 11.5]) + slack, atol=1e-5)


def test_memory_follows_from_a_layer_of_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(volume, "POINTS", 1000)
    run = run_in(tmp_path)
    for resolution, most in ((6, 216), (20, 800), (40, 1600)):
        run.method.most = 0
        VolumeExport(resolution=resolution, cube_size=3.0).write(run, tmp_path / "fog.vol")
        assert run.method.most == most


def test_progress_counts_layers(tmp_path):
    counts = []
    VolumeExport(resolution=70, cube_size=5.0).write(
        run_in(tmp_path), tmp_path / "fog.raw", lambda *count: counts.append(count)
    )
    assert counts[-1] == (70, 70)
    assert counts == sorted(counts)


class Layers(Method):
    """In normalized device coordinates: density and color by z alone."""

    def inside(self, points):
        return 2 + points[:, 2]

    def colors(self, points, viewdirs):
        return (0.5 + 0.4 * points).clamp(0, 1)


@pytest.fixture
def forward(tmp_path):
    """A run in normalized device coordinates."""
    ndc = Ndc((20.0, 20.0), (32, 24), 1.0)
    cameras = pinhole_cameras(torch.eye(3, 4).repeat(4, 1, 1), 20.0, (32, 24))
    return run_in(tmp_path, method=Layers(), ndc=ndc, cameras=cameras)


def test_light_through_an_ndc_scene_is_stopped_as_much_in_the_world(forward):
    scene = forward.scenes["train"]
    for direction in ([0.0, 0.0, 1.0], [0.5, -0.3, 0.8]):
        t = torch.linspace(0, 12, 6001, dtype=torch.float64)[1:].float()
        ray = torch.tensor(direction)
        points = t[:, None] * ray / ray.norm()
        density = WorldField(forward).density(FRAME.to_world(points))
        optical_depth = torch.trapezoid(density, 3 * t)
        assert bool((density[points[:, 2] < 1] == 0).all())
        last = 1 - 2 * scene.ndc.plane / float(points[-1, 2])
        # The integral of 2 + z over NDC, where a ray of the camera at the origin runs along z.
        exact = 2 * (last + 1) + (last**2 - 1) / 2
        assert float(optical_depth) == pytest.approx(exact, rel=2e-3)


def test_the_volume_of_an_ndc_scene_starts_at_its_near_plane(forward, tmp_path):
    VolumeExport(resolution=8).write(forward, tmp_path / "wall.raw")
    about = json.loads((tmp_path / "wall.json").read_text())
    front = FRAME.to_world(torch.tensor([0.0, 0.0, 1.0]))
    low, high = torch.tensor(about["low"]), torch.tensor(about["high"])
    assert float(low[2]) == pytest.approx(float(front[2]))
    assert read_raw(tmp_path / "wall.raw", 8)[..., 3].min() > 0
    middle = (high[2] - low[2]) / 2 / 3 + 1
    assert float(high[0] - low[0]) / 3 == pytest.approx(float(middle) * 32 / 20, rel=1e-4)


def test_a_wide_lens_still_has_a_cube():
    low, high = volume.frustum_cube(Ndc((1.0, 1.0), (400, 300), 1.0))
    assert 0 < float((high - low).max()) < 100


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (VolumeExport(), "fog.vdb", r"extension: found '\.vdb'"),
        (VolumeExport(resolution=0), "fog.vol", "resolution: found 0"),
        (
            VolumeExport(resolution=1626),
            "fog.vol",
            r"volume: resolution: found 1626",
        ),
        (VolumeExport(cube_size=0.0), "fog.vol", r"volume: cube_size: found 0"),
        (VolumeExport(cube_size=float("nan")), "fog.vol", r"volume: cube_size: found nan"),
        (
            VolumeExport(center=(50.0, 0.0, 0.0), cube_size=1.0),
            "fog.vol",
            r"volume: cube: found a cube outside the scene",
        ),
        (
            VolumeExport(center=(8.5, -9.5, 3.5), cube_size=1.0, resolution=8),
            "fog.vol",
            r"density: found an empty cube",
        ),
        (
            VolumeExport(center=(8.5, -9.5, 3.5), cube_size=1.0, resolution=8),
            "fog.npz",
            r"density: found an empty cube",
        ),
        (VolumeExport(resolution=8), "taken.vol", "output: found a folder"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(tmp_path, settings, name, message):
    run = run_in(tmp_path)
    (tmp_path / "taken.vol").mkdir()
    before = tree(tmp_path)
    with pytest.raises(DataError, match=message):
        settings.write(run, tmp_path / name)
    assert tree(tmp_path) == before


def test_a_scene_without_matter_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'run'}: density: found an empty cube")):
        VolumeExport().write(run_in(tmp_path, method=Fog(radius=0.0)), tmp_path / "fog.vol")
    assert tree(tmp_path) == {}
