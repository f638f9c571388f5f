"""`nerf` beside the plain network of benchmarks/, which shares no code with it."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lumifield.methods.base import RenderContext
from lumifield.methods.nerf import Nerf
from lumifield.methods.nerf.method import NerfMethod
from lumifield.optim import Optimizer
from lumifield.volume.compositing import composite_colors, expected_depth
from lumifield.volume.sampling import resample
from scenes import ball

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/nerf_against_plain.py."""
    spec = importlib.util.spec_from_file_location("nerf_against_plain", BENCHMARKS / "nerf_against_plain.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def test_the_same_parameters_show_the_same_image_and_give_the_same_gradient(benchmark: ModuleType):
    torch.manual_seed(0)
    scene, plain_nerf = ball(2), benchmark.plain_nerf
    network = plain_nerf.Network()
    torch.nn.init.constant_(network.density.bias, 0.5)
    method = NerfMethod(Nerf(density_activation="relu", bf16="off"), scene)
    ours = [*method.coarse.trunk, method.coarse.density, method.coarse.feature, method.coarse.side]
    theirs = [*network.first, *network.second, network.density, network.feature, network.side]
    ours, theirs = [*ours, method.coarse.color], [*theirs, network.color]
    for own, other in zip(ours, theirs, strict=True):
        own.load_state_dict(other.state_dict())
    rays = scene.rays(0)[slice(100, 140)]
    z = plain_nerf.sample_coarse(40, 2.0, 6.0)
    expected, weights, depth = plain_nerf.render(network, rays.origins, rays.directions, z)
    seen, rgb = method.weights_and_colors(method.coarse, rays, z, RenderContext(torch.ones(3)))
    found = composite_colors(seen, rgb, torch.ones(3))
    torch.testing.assert_close(seen, weights, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    mean, opacity = expected_depth(seen, z, rays.far)
    torch.testing.assert_close(mean * opacity, depth, rtol=1e-4, atol=1e-4)
    found.square().sum().backward()
    expected.square().sum().backward()
    for index, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(own.weight.grad, other.weight.grad, rtol=1e-3, atol=1e-3, msg=f"layer {index}")


def test_the_same_weights_are_resampled_at_the_same_points(benchmark: ModuleType):
    z = torch.rand(5, 64, generator=torch.Generator().manual_seed(1)).sort(-1).values
    weights = torch.rand(5, 64, generator=torch.Generator().manual_seed(2)) ** 6
    expected = benchmark.plain_nerf.sample_fine(z, weights, jitter=False)
    further = resample(0.5 * (z[:, 1:] + z[:, :-1]), weights[:, 1:-1], 64, None)
    torch.testing.assert_close(torch.cat([z, further], -1).sort(-1).values, expected, rtol=1e-3, atol=1e-3)


def test_all_learn_from_the_same_rays(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """So few steps of so small networks differ by some dB from seed to seed: how well is for the script to say."""
    monkeypatch.setattr(benchmark.plain_nerf, "COARSE_SAMPLES", 16)
    monkeypatch.setattr(benchmark.plain_nerf, "FINE_SAMPLES", 16)
    monkeypatch.setattr(benchmark.plain_nerf, "LEARNING_RATE", 4e-3)
    scene = ball(6)
    settings = Nerf(
        num_samples=16, num_fine_samples=16, hidden_dim=32, batch_size=96, bf16="off", optimizer=Optimizer(lr=4e-3)
    )
    settings = replace(settings, schedule=replace(settings.schedule, warmup_steps=10))
    settings = replace(settings, occupancy_resolution=16, num_occupancy_samples=128)
    task = benchmark.Task(scene, scene.select([0, 3]), 80, settings)
    before, after = (list(benchmark.compare(replace(task, steps=steps))) for steps in (0, task.steps))
    assert [row["method"] for row in after] == ["plain", "nerf", "nerf with occupancy"]
    for start, end in zip(before, after, strict=True):
        assert end["psnr"] > start["psnr"] + 2, end["method"]


def test_means_and_differences_are_those_of_the_seeds(benchmark: ModuleType, tmp_path: Path):
    psnr = {"plain": (20.0, 24.0), "nerf": (21.0, 24.5)}
    rows = [
        {"method": name, "seed": seed, "psnr": values[seed], "seconds": 10.0 * (1 + seed)}
        for seed in (0, 1)
        for name, values in psnr.items()
    ]
    result = {"machine": "M", "commit": "C", "steps": 5, "rays": 6, "width": 7, "rows": rows}
    benchmark.write_results(result, tmp_path)
    assert json.loads((tmp_path / "nerf_against_plain.json").read_text()) == result
    table = (tmp_path / "nerf_against_plain.md").read_text()
    assert "5 steps of 6 rays, networks 7 wide, seeds [0, 1]" in table
    assert "| plain | 22.00 | +0.00, +0.00, +0.00 |" in table
    assert "| nerf | 22.75 | +0.75, +0.50, +1.00 |" in table
