"""The rows of the benchmark at tiny sizes; its figures are never compared with anything."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumifield.bench import benchmark, machine
from lumifield.data import Source
from lumifield.errors import DataError
from lumifield.runs.state import TrainingClock
from lumifield.runtime.image_metrics import PSNR_LIMIT
from scenes import INSTANT, NERF, ball, written

SPEED = {"seconds_per_step": 2.0, "rays_per_second": 10.0}


def brute_force(points: list[tuple[float, int, float]], target: float) -> float | None:
    """The first second from which every look was good enough."""
    for index, (seconds, _, _) in enumerate(points):
        if all(value >= target for _, _, value in points[index:]):
            return seconds
    return None


@given(st.lists(st.sampled_from([24.0, 25.0, 26.0, float("nan"), float("inf")])), st.sampled_from([25.0, 25.5]))
def test_seconds_to_a_quality_that_is_kept(values, target):
    points = [(2.5 * index, 10 * index, value) for index, value in enumerate(values, 1)]
    assert benchmark.ValidationCurve(ball(1), points=points).seconds_to(target) == brute_force(points, target)


def test_seconds_to_by_example():
    points = [(1.0, 1, 24.0), (2.0, 2, 26.0), (3.0, 3, 24.9), (4.0, 4, 25.0), (5.0, 5, 27.0)]
    curve = benchmark.ValidationCurve(ball(1), points=points)
    assert [curve.seconds_to(target) for target in (20.0, 25.0, 26.0, 28.0)] == [1.0, 4.0, 5.0, None]
    assert benchmark.ValidationCurve(ball(1)).seconds_to(0.0) is None


class Ticking(TrainingClock):
    """A clock that a test sets; it notes that it was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.stops = 0.0, 0

    @property
    def seconds(self) -> float:
        return self.now

    def paused(self):
        self.stops += 1
        return super().paused()


def test_a_curve_looks_every_so_many_seconds_while_the_clock_stands(monkeypatch):
    state = replace(benchmark.initialize_training(INSTANT, ball(2), 0), clock=Ticking())
    curve = benchmark.ValidationCurve(ball(2), every=2.5)
    monkeypatch.setattr(benchmark.ValidationCurve, "validate", lambda self, state: state.clock.now * 5)
    for state.step, state.clock.now in enumerate((1.0, 2.4, 2.6, 3.0, 5.0, 5.2, 11.0, 14.0, 40.9, 41.0)):
        curve(state, None)
    # From the look that met every target on, looks are twelve times rarer.
    assert curve.points == [(2.6, 2, 13.0), (5.2, 5, 26.0), (11.0, 6, 55.0), (41.0, 9, 205.0)]
    assert state.clock.stops == 4


def test_a_look_is_the_mean_psnr_and_leaves_the_method_training():
    scene = ball(2)
    state = benchmark.initialize_training(INSTANT, scene, 0)
    found = benchmark.ValidationCurve(scene).validate(state)
    assert 0 < found < PSNR_LIMIT
    assert found == pytest.approx(
        sum(benchmark.ValidationCurve(scene.select([row])).validate(state) for row in (0, 1)) / 2
    )
    assert state.method.training


def test_a_fresh_state_is_that_of_its_seed():
    first, second, other = (
        benchmark.initialize_training(NERF, ball(2), seed).method.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_samples_a_ray_are_those_of_both_networks():
    train = ball(2)
    state = benchmark.initialize_training(NERF, train, 0)
    row = benchmark.time_steps(state, train, 3)
    assert state.step == benchmark.WARM_STEPS + 3
    assert row["timed_steps"] == 3
    assert row["samples_per_ray"] == 8 + 16
    assert row["rays_per_second"] * row["seconds_per_step"] == pytest.approx(NERF.batch_size)


def test_steps_behind_a_warm_grid_hold_whole_cycles_of_refreshes(monkeypatch):
    for name, value in (("GRID_STEPS", 4), ("GRID_CYCLES", 1), ("GRID_RAYS", 8)):
        monkeypatch.setattr(benchmark, name, value)
    settings = replace(NERF, occupancy=True, occupancy_resolution=8, num_occupancy_samples=16)
    row = benchmark.measure_occupancy_nerf(settings, ball(2), 0)
    assert row["method"] == "nerf, occupancy grid after 4 steps of 8 rays"
    assert row["timed_steps"] == benchmark.UPDATE_EVERY
    assert row["rays_per_second"] * row["seconds_per_step"] == pytest.approx(NERF.batch_size)
    assert 0 < row["samples_per_ray"] < 16
    assert all(0 < share < 1 for share in row["occupied_share"])


class Counting(TrainingClock):
    """A clock on which each look takes a twentieth of a second."""

    @property
    def seconds(self) -> float:
        self._before += 0.05
        return self._before


def test_the_row_of_instant(monkeypatch):
    monkeypatch.setattr(benchmark, "TrainingClock", Counting)
    row = benchmark.measure_instant(INSTANT, ball(3), ball(2), 0.01, 0)
    assert row["seconds"] >= 0.6
    assert row["steps"] * row["seconds_per_step"] == pytest.approx(row["seconds"])
    assert set(row["seconds_to"]) == {"25 dB", "28 dB", "30 dB", "31 dB"}
    assert row["peak_memory_bytes"] > 1e7
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_benchmark_without_time_for_a_step_is_refused():
    with pytest.raises(DataError, match="--minutes"):
        benchmark.measure_instant(INSTANT, ball(3), ball(2), 1e-9, 0)


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """A whole comparison of which only the reading is real."""
    asked = []
    monkeypatch.setattr(benchmark, "measure_plain_nerf", lambda device: {"method": "plain NeRF", **SPEED})
    timed = {**SPEED, "rays_per_second": 25.0, "samples_per_ray": 24.0}
    monkeypatch.setattr(benchmark, "time_steps", lambda *_: timed)
    monkeypatch.setattr(
        benchmark, "measure_occupancy_nerf", lambda *_: {"method": "occupancy", **timed, "samples_per_ray": 6.26}
    )

    def instant_row(settings, train, views, minutes, seed):
        asked.append((len(train), len(views), minutes, seed))
        reached = {"25 dB": 3.4, "28 dB": 33.6, "30 dB": None, "31 dB": None}
        row = {"method": "instant", "seconds_per_step": 0.01, "rays_per_second": 12345.0, "seconds_to": reached}
        return row | {"first_20_steps_with_compilation_seconds": 12.6, "peak_memory_bytes": 1_234_567_890}

    monkeypatch.setattr(benchmark, "measure_instant", instant_row)
    source = written(tmp_path / "ball", views=5, held_out=3)
    return benchmark.run_benchmark(source, 0.5, 7, tmp_path / "results", "cpu"), asked, tmp_path / "results"


def test_the_comparison_is_written_as_it_is_returned(compared):
    result, asked, folder = compared
    assert asked == [(5, 3, 0.5, 7)]
    assert json.loads((folder / "cpu.json").read_text()) == result
    assert (folder / "cpu.md").read_text() == benchmark.format_benchmark(result)
    assert [row["speedup"] for row in result["rows"]] == [1.0, 2.5, 2.5, 1234.5]
    assert (result["data"], result["downscale"], result["minutes"], result["seed"]) == ("ball", 1, 0.5, 7)
    assert "cores, torch" in result["machine"]


def test_the_table(compared):
    result, _, _ = compared
    said = benchmark.format_benchmark(result | {"machine": "a machine", "commit": "abc"}).splitlines()
    assert said == [
        "Machine: a machine. Commit: abc. Data: ball, images at 1/1; rays uniform over all training pixels; "
        "PSNR over 10 validation views.",
        "",
        "| method | samples / ray | s / step | rays / s | speedup "
        "| s to 25 dB | s to 28 dB | s to 30 dB | s to 31 dB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| plain NeRF |  | 2 | 10 | 1.0 |  |  |  |  |",
        "| nerf, 64 + 64 samples | 24.0 | 2 | 25 | 2.5 |  |  |  |  |",
        "| occupancy | 6.3 | 2 | 25 | 2.5 |  |  |  |  |",
        "| instant |  | 0.01 | 12,345 | 1234.5 | 3 | 34 |  |  |",
        "",
        "`instant` has a peak memory of 1.23 GB, including the images and the program.",
        "Its first 20 steps take 13 s if the kernels are not compiled yet.",
    ]


def test_kernels_are_compiled_anew_inside_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "own")
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    with benchmark.empty_kernel_cache():
        folder = Path(os.environ["NUMBA_CACHE_DIR"])
        assert list(folder.iterdir()) == []
        assert os.environ["TRITON_CACHE_DIR"] == str(folder)
    assert not folder.exists()
    assert os.environ["NUMBA_CACHE_DIR"] == "own"
    assert "TRITON_CACHE_DIR" not in os.environ


def test_the_peak_of_memory_is_above_what_is_held():
    held = torch.ones(2**22)
    assert benchmark.peak_memory(held.device) > held.numel() * held.element_size()


def test_the_plain_nerf_is_timed_in_a_process_of_its_own(monkeypatch):
    asked = []

    def answer(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout='a word\n{"device": "cpu"}\n')

    monkeypatch.setattr(subprocess, "run", answer)
    row = benchmark.measure_plain_nerf(torch.device("cpu"))
    assert row["samples_per_ray"] == 192
    assert row["device"] == "cpu"
    assert asked[0][0] == sys.executable


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DataError, match="CUDA device: found none"):
        benchmark.run_benchmark(Source(tmp_path / "nowhere"), 1.0, 0, tmp_path / "results", "gpu")
    assert list(tmp_path.iterdir()) == []


def test_the_commit_is_that_of_the_checkout_or_unknown(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "module.py").touch()
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "module.py"))
    described = machine.current_commit()
    assert subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.startswith(described)
    monkeypatch.setattr(machine, "__file__", "/proc/nothing")
    assert machine.current_commit() == "unknown"
