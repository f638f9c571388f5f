"""Training speed measured in one run against a plain NeRF step on the same machine, and the time to reach a PSNR."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from lumifield import data
from lumifield.bench.kernel_timings import time_kernels
from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import Source
from lumifield.data.scene import Scene, sample_batch
from lumifield.errors import DataError
from lumifield.methods import Instant, Nerf, Settings
from lumifield.methods.nerf.occupancy_nerf import UPDATE_EVERY, OccupancyNerf
from lumifield.optim.optimizers import build_optimizer
from lumifield.rendering.view import render_view
from lumifield.runs.state import Budget, TrainingClock
from lumifield.runtime.files import replacing, write_json
from lumifield.runtime.image_metrics import mean_squared_error, psnr
from lumifield.runtime.rng import Rng
from lumifield.training.fit import Callback, StepReport, TrainingState, fit

TARGETS = (25.0, 28.0, 30.0, 31.0)
VALIDATION_INTERVAL_SECONDS = 2.5
INTERVAL_GROWTH = 12
"""How much rarer the looks are once every target is met."""
VALIDATION_VIEWS = 10
PLAIN_SAMPLES = 64 + 128
"""Samples per ray of the plain NeRF: coarse network, then coarse and fine samples for the fine network."""
WARM_STEPS, TIMED_STEPS = 2, 4
GRID_STEPS, GRID_RAYS = 768, 256
"""Training that fills the occupancy grid before steps with it are timed."""
GRID_CYCLES = 2
"""Updates of the occupancy grid among the timed steps."""
COLD_STEPS = 20
"""Steps timed to show the cost of compiling the kernels."""
COMPILED = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR")
"""Environment variables that name the folders of compiled kernels."""


@dataclass
class ValidationCurve:
    """Validation PSNR over training time; validation itself does not count as training."""

    scene: Scene
    every: float = VALIDATION_INTERVAL_SECONDS
    points: list[tuple[float, int, float]] = field(default_factory=list)

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Validates if the interval has passed."""
        best = max((value for _, _, value in self.points), default=0.0)
        every = self.every * (1 if best < TARGETS[-1] else INTERVAL_GROWTH)
        if state.clock.seconds - (self.points[-1][0] if self.points else 0.0) < every:
            return
        seconds = state.clock.seconds
        with state.clock.paused():
            self.points.append((seconds, state.step, self.validate(state)))

    def validate(self, state: TrainingState) -> float:
        """Mean PSNR over the validation views [dB]."""
        state.method.eval()
        scores = []
        for index in range(len(self.scene)):
            view = render_view(state.method, self.scene, index, device=next(state.method.parameters()).device)
            scores.append(psnr(mean_squared_error(view.rgb.clamp(0, 1), self.scene.ground_truth(index))))
        state.method.train()
        return sum(scores) / len(scores)

    def seconds_to(self, target: float) -> float | None:
        """Seconds until the PSNR reached `target` for good; None if it never did."""
        reached = None
        for seconds, _, value in self.points:
            if not value >= target:  # NaN does not count either
                reached = None
            elif reached is None:
                reached = seconds
        return reached


def run_benchmark(source: Source, minutes: float, seed: int, out: Path, name: Literal["cpu", "gpu"]) -> dict[str, Any]:
    """Measures all rows on one device and writes them as JSON and Markdown."""
    device = torch.device("cuda" if name == "gpu" else "cpu")
    if name == "gpu" and not torch.cuda.is_available():
        expected = "a CUDA device that torch can use"
        raise DataError("bench gpu", "CUDA device", "none", expected, "run `lumifield bench cpu`")
    train = data.read_scene(source, "train").to(device)
    views = data.read_scene(source, "val", max_images=VALIDATION_VIEWS)
    plain, nerf = measure_plain_nerf(device), Nerf(num_samples=64, num_fine_samples=64, batch_size=1024)
    with empty_kernel_cache():  # first, so that the peak of memory is that of `instant`
        instant = measure_instant(Instant(), train, views, minutes, seed)
        timing = time_steps(initialize_training(nerf, train, seed), train, TIMED_STEPS)
        row = {"method": "nerf, 64 + 64 samples"} | timing
        rows = [plain, row, measure_occupancy_nerf(replace(nerf, occupancy=True), train, seed), instant]
    for row in rows:
        row["speedup"] = row["rays_per_second"] / plain["rays_per_second"]
    result = {"machine": describe_machine(device), "commit": current_commit(), "data": source.data.name, "rows": rows}
    result |= {"downscale": source.downscale, "minutes": minutes, "seed": seed}
    if name == "gpu":
        result["kernels"] = time_kernels(device)
    write_json(out / f"{name}.json", result)
    with replacing(out / f"{name}.md") as temporary:
        temporary.write_text(format_benchmark(result), encoding="utf-8")
    return result


def measure_plain_nerf(device: torch.device) -> dict[str, Any]:
    """One step of the plain NeRF, in a process of its own."""
    command = [sys.executable, "-m", "lumifield.bench.plain_nerf", str(device)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    return {"method": "plain NeRF, 64 + 64 samples", "samples_per_ray": PLAIN_SAMPLES, **found}


def time_steps(state: TrainingState, train: Scene, steps: int) -> dict[str, float]:
    """Mean seconds per step after a warm-up, rays per second, and samples per ray that receive a gradient."""
    first_step, samples = state.step + WARM_STEPS, 0
    train_uniformly(state, train, Budget(steps=first_step))
    seconds, rays = state.clock.seconds, state.rays

    def count(state: TrainingState, report: StepReport) -> None:
        nonlocal samples
        samples += report.samples

    train_uniformly(state, train, Budget(steps=first_step + steps), [count])
    seconds, rays = state.clock.seconds - seconds, state.rays - rays
    return {
        "seconds_per_step": seconds / steps,
        "rays_per_second": rays / seconds,
        "samples_per_ray": samples / rays,
        "timed_steps": steps,
    }


def measure_occupancy_nerf(settings: Nerf, train: Scene, seed: int) -> dict[str, Any]:
    """Times steps with an occupancy grid that was filled with fewer rays per step; updates are included.

    `occupied_share` is the occupied fraction of the grid half-way through and at the end of filling it.
    """
    state = initialize_training(replace(settings, batch_size=GRID_RAYS), train, seed)
    method, shares = state.method, []
    assert isinstance(method, OccupancyNerf)
    for steps in (GRID_STEPS // 2, GRID_STEPS):
        train_uniformly(state, train, Budget(steps=steps))
        shares.append(float(method.occupancy.occupied.float().mean()))
    method.settings = settings
    label = f"nerf, occupancy grid after {GRID_STEPS} steps of {GRID_RAYS} rays"
    row = {"method": label, "occupied_share": shares, "grid_seconds": state.clock.seconds}
    return row | time_steps(state, train, GRID_CYCLES * UPDATE_EVERY)


def train_uniformly(state: TrainingState, train: Scene, budget: Budget, callbacks: Sequence[Callback] = ()) -> None:
    """Trains on uniformly sampled pixels until the budget is spent."""
    schedule = state.method.settings.schedule
    fit(state, lambda rays, rng: sample_batch(train, rays, rng), budget, schedule, callbacks=callbacks)


def measure_instant(settings: Instant, train: Scene, views: Scene, minutes: float, seed: int) -> dict[str, Any]:
    """Trains `instant`: mean speed, time to each validation PSNR, peak memory."""
    start = time.perf_counter()
    warm = initialize_training(settings, train, seed)
    train_uniformly(warm, train, Budget(steps=COLD_STEPS))
    cold = time.perf_counter() - start
    state, curve = initialize_training(settings, train, seed), ValidationCurve(views)
    train_uniformly(state, train, Budget(seconds=60 * minutes), [curve])
    if state.step == 0:
        raise DataError("bench", "--minutes", f"{minutes:g}", "enough time for one step", "raise it")
    seconds = state.clock.seconds
    return {
        "method": "instant",
        "seconds_per_step": seconds / state.step,
        "rays_per_second": state.rays / seconds,
        "steps": state.step,
        "seconds": seconds,
        "seconds_to": {f"{target:g} dB": curve.seconds_to(target) for target in TARGETS},
        "last_validation_psnr": curve.validate(state),
        "curve": [{"seconds": s, "step": k, "psnr": p} for s, k, p in curve.points],
        f"first_{COLD_STEPS}_steps_with_compilation_seconds": cold,
        "peak_memory_bytes": peak_memory(train.cameras.c2w.device),
    }


@contextmanager
def empty_kernel_cache() -> Iterator[None]:
    """Inside, kernels that are not loaded yet are compiled into a temporary folder."""
    before = {name: os.environ[name] for name in COMPILED if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(dict.fromkeys(COMPILED, folder))
        try:
            yield
        finally:
            for name in COMPILED:
                del os.environ[name]
            os.environ.update(before)


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process so far, or of the GPU [bytes]."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def initialize_training(settings: Settings, train: Scene, seed: int) -> TrainingState:
    """A new method and its optimizer on the device of the scene."""
    device = train.cameras.c2w.device
    torch.manual_seed(seed)
    rng = Rng(torch.Generator(device).manual_seed(seed))
    clock = TrainingClock()  # started before `build`, which reads every image and is part of the training
    method = settings.build(train).to(device)
    return TrainingState(method, build_optimizer(settings.optimizer, method.param_groups()), rng, clock)


def format_benchmark(result: dict[str, Any]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. Data: {result['data']}, images at "
        f"1/{result['downscale']}; rays uniform over all training pixels; PSNR over {VALIDATION_VIEWS} validation "
        "views.",
        "",
        "| method | samples / ray | s / step | rays / s | speedup | "
        + " | ".join(f"s to {t:g} dB" for t in TARGETS)
        + " |",
        "| --- " * (5 + len(TARGETS)) + "|",
    ]
    for row in result["rows"]:
        reached = [row.get("seconds_to", {}).get(f"{t:g} dB") for t in TARGETS]
        samples = f"{row['samples_per_ray']:.1f}" if "samples_per_ray" in row else ""
        cells = [row["method"], samples, f"{row['seconds_per_step']:.4g}", f"{row['rays_per_second']:,.0f}"]
        cells += [f"{row['speedup']:.1f}"] + ["" if s is None else f"{s:.0f}" for s in reached]
        lines.append("| " + " | ".join(cells) + " |")
    instant = result["rows"][-1]
    peak, cold = instant["peak_memory_bytes"] / 1e9, instant[f"first_{COLD_STEPS}_steps_with_compilation_seconds"]
    lines += ["", f"`instant` has a peak memory of {peak:.2f} GB, including the images and the program."]
    lines += [f"Its first {COLD_STEPS} steps take {cold:.0f} s if the kernels are not compiled yet."]
    return "\n".join(lines) + "\n"
