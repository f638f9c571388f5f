"""Training from a capture to a run folder, around the loop in `fit`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from lumifield import data
from lumifield.data import Source
from lumifield.data.capture import Capture
from lumifield.data.scene import Batch, Scene, sample_batch
from lumifield.errors import DataError
from lumifield.methods import Settings
from lumifield.optim.optimizers import build_optimizer
from lumifield.runs.checkpoint import CheckpointSaver
from lumifield.runs.driver import RunDriver
from lumifield.runs.initialization import initialize_from
from lumifield.runs.run_config import RunConfig
from lumifield.runs.state import Budget, TrainingClock
from lumifield.runtime.rng import Rng
from lumifield.training import Train
from lumifield.training.fit import Callback, TrainingState, fit
from lumifield.training.guard import CollapsedError, DivergenceGuard
from lumifield.training.monitor import Monitor, ViewValidator

log = logging.getLogger(__name__)

DEFAULT_MINUTES = 5.0
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class TrainingJob:
    """A method, the capture it trains on, how it is trained, and the run folder."""

    method: Settings
    source: Source
    settings: Train
    out: Path


def run_training(
    job: TrainingJob, *, resume: bool = False, console: Console | None = None, callbacks: Sequence[Callback] = ()
) -> Path:
    """Trains a method on the train split and writes a run folder; returns the folder.

    Starts again with another seed, with a warning, if the method collapses to one color. Under torchrun the first
    process calls `callbacks`. Ctrl-C stops after the current step with everything saved. Raises `DataError` for
    unusable data or settings.
    """
    config = RunConfig.of_training(job.method, job.source, "train", job.settings)
    driver = RunDriver(job.out, config, device=job.settings.device, resume=resume, console=console)
    capture = data.open_capture(job.source)
    scene = capture.read("train").to(driver.device)
    if not job.settings.loss_multipliers:
        scene = replace(scene, loss_weight=None)
    clock = TrainingClock()
    for seed in range(job.settings.seed, job.settings.seed + MAX_ATTEMPTS):
        state = initialize_state(job, scene, driver, seed, clock)
        try:
            train_once(job, capture, state, scene, driver, callbacks)
            return job.out
        except CollapsedError as collapsed:
            log.warning("%s: starting again with seed %d", collapsed, seed + 1)
            driver.resumes = False
    raise CollapsedError(f"training collapsed to one color with {MAX_ATTEMPTS} different seeds")


def initialize_state(
    job: TrainingJob, scene: Scene, driver: RunDriver, seed: int, clock: TrainingClock
) -> TrainingState:
    """A method with random parameters, or those of another run, and its optimizer at step 0."""
    torch.manual_seed(seed)
    rng = Rng(torch.Generator(driver.device).manual_seed(seed), driver.rank, driver.world)
    method = job.method.build(scene).to(driver.device)
    if job.settings.init is not None and not driver.resumes:
        initialize_from(method, job.settings.init)
    return TrainingState(method, build_optimizer(job.method.optimizer, method.param_groups()), rng, clock)


def train_once(
    job: TrainingJob,
    capture: Capture,
    state: TrainingState,
    scene: Scene,
    driver: RunDriver,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Trains from the first or the saved step to the end of the budget and saves the result."""
    settings, method = job.settings, state.method
    budget = Budget.of(settings.steps, settings.minutes, default_minutes=DEFAULT_MINUTES)
    history = driver.start(state, method.settings, lambda: read_all_cameras(capture, scene))
    driver.print(f"{sum(p.numel() for p in method.parameters()):,} parameters, {len(scene)} images")
    with driver.record(state) as writer:
        views = load_validation_views(capture, settings.num_validation_views, driver) if driver.is_first else None
        saver = CheckpointSaver(
            job.out,
            history,
            None if views is None else ViewValidator(views, writer, driver.print),
            validate_every=settings.validate_every,
            save_every=settings.save_every,
            num_train_images=len(scene),
            # Without the embedding of a validation image its PSNR does not rank weights.
            keep_latest=method.traits.num_appearance_dims > 0,
        )
        with closing(Monitor(writer, budget, driver.console)) as monitor:
            fit(
                state,
                partial(next_batch, scene, settings, method.traits.patch_size),
                budget,
                job.method.schedule,
                max_grad_norm=settings.max_grad_norm,
                max_grad_value=settings.max_grad_value,
                callbacks=[DivergenceGuard(), monitor] + ([saver, *callbacks] if driver.is_first else []),
            )
        if driver.is_first:
            saver.save(state)
    rays_per_second = state.rays / max(state.clock.seconds, 1e-9)
    driver.print(f"{state.step} steps, {rays_per_second:,.0f} rays/s, saved in {job.out}")


def next_batch(scene: Scene, settings: Train, patch_size: int, rays: int, rng: Rng) -> Batch:
    """Rays of random pixels, of all images or of one, for one step."""
    return sample_batch(scene, rays, rng, single_image=settings.single_image_batches, patch_size=patch_size)


def load_validation_views(capture: Capture, count: int, driver: RunDriver) -> Scene | None:
    """Evenly spaced images of the val split; None, with a note on the console, if there are none."""
    if count == 0 or "val" not in capture.splits:
        return None
    try:
        return capture.read("val", max_images=count)
    except DataError as missing:
        driver.print(f"no validation: {missing}")
        return None


def read_all_cameras(capture: Capture, scene: Scene) -> dict[str, Scene]:
    """Every split without its images; a split whose cameras cannot be read is left out with a warning."""
    scenes = {"train": scene.without_images().to("cpu")}
    for split in capture.splits:
        if split != "train":
            try:
                scenes[split] = capture.cameras(split)
            except DataError as missing:
                log.warning("the %s split is left out of the run: %s", split, missing)
    return scenes
