"""`lumifield bench`: speed measured in one run, beside a textbook NeRF step on the same machine."""

from __future__ import annotations

import json
import os
import platform
import resource
import runpy
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

import lumifield
from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import Scene, sample_batch
from lumifield.errors import DataError
from lumifield.methods import Instant, Nerf, Settings
from lumifield.methods.nerf.occupied import REFRESH_EVERY, OccupiedNerf
from lumifield.optim.optimizers import build_optimizer
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import write_json
from lumifield.runtime.files import replacing
from lumifield.runtime.image_io import mean_squared_error, psnr
from lumifield.runtime.rng import Rng
from lumifield.training.fit import Budget, Clock, Listener, Report, State, fit

ROOT = Path(lumifield.__file__).parents[2]
TARGETS = (25.0, 28.0, 30.0, 31.0)
LOOK_EVERY_SECONDS = 2.5
LATER = 12
"""How much rarer the looks are once every target is met."""
VALIDATION_VIEWS = 10
TEXTBOOK_SAMPLES = 64 + 128
"""A ray of the textbook: those of the coarse network, and all for the fine one."""
WARM_STEPS, TIMED_STEPS = 2, 4
GRID_STEPS, GRID_RAYS = 768, 256
"""The training that an occupancy grid comes from before steps behind it are timed."""
GRID_CYCLES = 2
"""Refreshes of the occupancy grid among the timed steps."""
COLD_STEPS = 20
"""Steps whose seconds tell what the compilation of the kernels costs."""
COMPILED = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR")
"""Where the folders of compiled kernels are named."""


@dataclass
class Curve:
    """Validation PSNR against seconds of training; the looks themselves do not count."""

    scene: Scene
    every: float = LOOK_EVERY_SECONDS
    points: list[tuple[float, int, float]] = field(default_factory=list)

    def __call__(self, state: State, report: Report) -> None:
        """Looks when it is time."""
        best = max((value for _, _, value in self.points), default=0.0)
        every = self.every * (1 if best < TARGETS[-1] else LATER)
        if state.clock.seconds - (self.points[-1][0] if self.points else 0.0) < every:
            return
        seconds = state.clock.seconds
        with state.clock.paused():
            self.points.append((seconds, state.step, self.look(state)))

    def look(self, state: State) -> float:
        """Mean PSNR over the validation views [dB]."""
        state.method.eval()
        scores = []
        for index in range(len(self.scene)):
            view = render_view(state.method, self.scene, index, device=next(state.method.parameters()).device)
            scores.append(psnr(mean_squared_error(view.rgb.clamp(0, 1), self.scene.ground_truth(index))))
        state.method.train()
        return sum(scores) / len(scores)

    def seconds_to(self, target: float) -> float | None:
        """Seconds until the PSNR was first at least `target` and never below it later; None if never."""
        reached = None
        for seconds, _, value in self.points:
            if not value >= target:  # a broken look is not good enough either
                reached = None
            elif reached is None:
                reached = seconds
        return reached


def compare(source: Source, minutes: float, seed: int, out: Path, name: Literal["cpu", "gpu"]) -> dict[str, Any]:
    """All rows of the comparison on one device, written as JSON and Markdown."""
    device = torch.device("cuda" if name == "gpu" else "cpu")
    if name == "gpu" and not torch.cuda.is_available():
        raise DataError("bench gpu", "CUDA device", "absent", "one that torch can use", "run `lumifield bench cpu`")
    train = data.read(source, "train").to(device)
    views = data.read(source, "val", at_most=VALIDATION_VIEWS)
    textbook, nerf = textbook_row(device), Nerf(samples=64, fine_samples=64, batch=1024)
    with nothing_compiled():  # and nothing else in memory: its peak is that of `instant`
        instant = instant_row(Instant(), train, views, minutes, seed)
        row = {"method": "nerf, 64 + 64 samples"} | timed(fresh(nerf, train, seed), train, TIMED_STEPS)
        rows = [textbook, row, occupancy_row(replace(nerf, occupancy=True), train, seed), instant]
    for row in rows:
        row["times_textbook"] = row["rays_per_second"] / textbook["rays_per_second"]
    result = {"machine": machine(device), "commit": commit(), "data": source.data.name, "rows": rows}
    result |= {"downscale": source.downscale, "minutes": minutes, "seed": seed}
    if name == "gpu":
        result["kernels"] = runpy.run_path(str(ROOT / "benchmarks/kernels.py"))["kernel_table"](device)
    write_json(out / f"{name}.json", result)
    with replacing(out / f"{name}.md") as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    return result


def textbook_row(device: torch.device) -> dict[str, Any]:
    """One step of the plain NeRF in benchmarks/textbook.py, in a process of its own."""
    script = ROOT / "benchmarks" / "textbook.py"
    if not script.is_file():
        raise DataError(script, "file", "missing", "the textbook step", "run the benchmark from a checkout")
    command = [sys.executable, str(script), str(device)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    return {"method": "textbook NeRF, 64 + 64 samples", "samples_per_ray": TEXTBOOK_SAMPLES, **found}


def timed(state: State, train: Scene, steps: int) -> dict[str, float]:
    """Mean seconds of `steps` steps after a few, rays a second, and samples a ray that bring a gradient."""
    begun, samples = state.step + WARM_STEPS, 0
    run(state, train, Budget(steps=begun))
    seconds, rays = state.clock.seconds, state.rays

    def count(state: State, report: Report) -> None:
        nonlocal samples
        samples += report.samples

    run(state, train, Budget(steps=begun + steps), [count])
    seconds, rays = state.clock.seconds - seconds, state.rays - rays
    return {
        "seconds_per_step": seconds / steps,
        "rays_per_second": rays / seconds,
        "samples_per_ray": samples / rays,
        "timed_steps": steps,
    }


def occupancy_row(settings: Nerf, train: Scene, seed: int) -> dict[str, Any]:
    """Steps behind the grid of a training with fewer rays a step, refreshes among them as often as ever.

    `occupied_share` is the grid's occupied part of the box half-way and at the end of that training.
    """
    state = fresh(replace(settings, batch=GRID_RAYS), train, seed)
    method, shares = state.method, []
    assert isinstance(method, OccupiedNerf)
    for steps in (GRID_STEPS // 2, GRID_STEPS):
        run(state, train, Budget(steps=steps))
        shares.append(float(method.occupancy.occupied.float().mean()))
    method.settings = settings
    label = f"nerf, occupancy grid warm after {GRID_STEPS} steps of {GRID_RAYS} rays"
    row = {"method": label, "occupied_share": shares, "grid_seconds": state.clock.seconds}
    return row | timed(state, train, GRID_CYCLES * REFRESH_EVERY)


def run(state: State, train: Scene, budget: Budget, listeners: Sequence[Listener] = ()) -> None:
    """Trains on pixels drawn uniformly until the budget is spent."""
    schedule = state.method.settings.schedule
    fit(state, lambda rays, rng: sample_batch(train, rays, rng), budget, schedule, listeners=listeners)


def instant_row(settings: Instant, train: Scene, views: Scene, minutes: float, seed: int) -> dict[str, Any]:
    """A whole training: its mean speed, when it reached which PSNR on validation views, its memory."""
    start = time.perf_counter()
    warm = fresh(settings, train, seed)
    run(warm, train, Budget(steps=COLD_STEPS))
    cold = time.perf_counter() - start
    state, curve = fresh(settings, train, seed), Curve(views)
    run(state, train, Budget(seconds=60 * minutes), [curve])
    if state.step == 0:
        raise DataError("bench", "--minutes", f"{minutes:g}", "time for a step at least", "raise it")
    seconds = state.clock.seconds
    return {
        "method": "instant",
        "seconds_per_step": seconds / state.step,
        "rays_per_second": state.rays / seconds,
        "steps": state.step,
        "seconds": seconds,
        "seconds_to": {f"{target:g} dB": curve.seconds_to(target) for target in TARGETS},
        "last_validation_psnr": curve.look(state),
        "curve": [{"seconds": s, "step": k, "psnr": p} for s, k, p in curve.points],
        f"first_{COLD_STEPS}_steps_with_compilation_seconds": cold,
        "peak_memory_bytes": peak_memory(train.cameras.c2w.device),
    }


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Inside, kernels that are not loaded yet are compiled anew, into a folder that goes afterwards."""
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
    """The most memory that this process has held so far, on a GPU that of the GPU [bytes]."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def fresh(settings: Settings, train: Scene, seed: int) -> State:
    """A new method with its optimizer on the scene's device."""
    device = train.cameras.c2w.device
    torch.manual_seed(seed)
    rng = Rng(torch.Generator(device).manual_seed(seed))
    clock = Clock()  # building is part of the training: it looks at every image
    method = settings.build(train).to(device)
    return State(method, build_optimizer(settings.optimizer, method.param_groups()), rng, clock)


def machine(device: torch.device) -> str:
    """The processor, or the GPU, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.is_file() else []


def commit() -> str:
    """The commit that was measured, with a plus where files differ from it."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def markdown(result: dict[str, Any]) -> str:
    """The comparison as a table."""
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. Data: {result['data']}, images at "
        f"1/{result['downscale']}; rays uniform over all training pixels; PSNR over {VALIDATION_VIEWS} validation "
        "views.",
        "",
        "| method | samples / ray | s / step | rays / s | times the textbook | "
        + " | ".join(f"s to {t:g} dB" for t in TARGETS)
        + " |",
        "| --- " * (5 + len(TARGETS)) + "|",
    ]
    for row in result["rows"]:
        reached = [row.get("seconds_to", {}).get(f"{t:g} dB") for t in TARGETS]
        samples = f"{row['samples_per_ray']:.1f}" if "samples_per_ray" in row else ""
        cells = [row["method"], samples, f"{row['seconds_per_step']:.4g}", f"{row['rays_per_second']:,.0f}"]
        cells += [f"{row['times_textbook']:.1f}"] + ["" if s is None else f"{s:.0f}" for s in reached]
        lines.append("| " + " | ".join(cells) + " |")
    instant = result["rows"][-1]
    peak, cold = instant["peak_memory_bytes"] / 1e9, instant[f"first_{COLD_STEPS}_steps_with_compilation_seconds"]
    lines += ["", f"`instant` takes {peak:.2f} GB of memory at most, the images and this program included."]
    lines += [f"Its first {COLD_STEPS} steps on a machine that has not compiled the kernels yet take {cold:.0f} s."]
    return "\n".join(lines) + "\n"
