"""Training from a capture to a run folder, around the loop in `fit`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import Batch, Scene, sample_batch
from lumifield.errors import DataError
from lumifield.methods import Settings
from lumifield.optim.optimizers import build_optimizer
from lumifield.runs import run_folder
from lumifield.runs.driver import open_summary_writer, select_device, stop_on_interrupt, validate_run_folder
from lumifield.runtime import distributed
from lumifield.runtime.rng import Rng
from lumifield.training import Train
from lumifield.training.checkpoint import CheckpointSaver, initialize_from, restore_state
from lumifield.training.fit import Budget, Callback, TrainingClock, TrainingState, fit
from lumifield.training.guard import CollapsedError, DivergenceGuard
from lumifield.training.monitor import Monitor, Validator

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
    rank, world = distributed.join()
    console = console if console is not None and rank == 0 else Console(quiet=True)
    if rank == 0:  # later processes may find what the first one has already begun to write
        validate_run_folder(job.out, job.method, job.source, resume=resume)
    resume = resume and (job.out / run_folder.STATE).is_file()
    device = select_device(job.settings.device)
    scene = data.read_scene(job.source, "train").to(device)
    if not job.settings.loss_multipliers:
        scene = replace(scene, loss_weight=None)
    clock = TrainingClock()
    for attempt in range(MAX_ATTEMPTS):
        rng = Rng(torch.Generator(device), rank, world)
        state = initialize_state(job, scene, device, attempt, rng, clock, init=None if resume else job.settings.init)
        try:
            train_once(job, state, scene, console, resume=resume, callbacks=callbacks)
            return job.out
        except CollapsedError as collapsed:
            log.warning("%s: starting again with seed %d", collapsed, job.settings.seed + attempt + 1)
            resume = False
    raise CollapsedError(f"training collapsed to one color with {MAX_ATTEMPTS} different seeds")


def train_once(
    job: TrainingJob,
    state: TrainingState,
    scene: Scene,
    console: Console,
    *,
    resume: bool,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Trains from the first or the saved step to the end of the budget and saves the result."""
    history = restore_state(job.out, state) if resume else []
    is_first = state.rng.rank == 0
    if is_first and not resume:
        cameras = read_all_cameras(job.source, scene)
        run_folder.create_run(job.out, state.method, job.method, job.source, {"train": job.settings}, cameras)
    num_parameters = sum(parameter.numel() for parameter in state.method.parameters())
    console.print(f"{num_parameters:,} parameters, {len(scene)} images", highlight=False)
    budget, settings = training_budget(job.settings), job.settings
    with open_summary_writer(job.out if is_first else None) as writer, stop_on_interrupt(state.stop):
        views = load_validation_views(job, console) if is_first else None
        monitor = Monitor(writer, budget, console)
        validator = Validator(views, settings.validate_every, job.out, writer, console.print, history)
        saver = CheckpointSaver(job.out, validator, settings.save_every, len(scene))

        def next_batch(rays: int, rng: Rng) -> Batch:
            return sample_batch(
                scene, rays, rng, single_image=settings.single_image_batches, patch_size=state.method.patch_size
            )

        try:
            fit(
                state,
                next_batch,
                budget,
                job.method.schedule,
                max_grad_norm=settings.max_grad_norm,
                max_grad_value=settings.max_grad_value,
                callbacks=[DivergenceGuard(), monitor] + ([saver, *callbacks] if is_first else []),
            )
        finally:
            monitor.close()
        if is_first:
            saver.save(state)
    rays_per_second = state.rays / max(state.clock.seconds, 1e-9)
    console.print(f"{state.step} steps, {rays_per_second:,.0f} rays/s, saved in {job.out}", highlight=False)


def initialize_state(
    job: TrainingJob,
    scene: Scene,
    device: torch.device,
    attempt: int,
    rng: Rng,
    clock: TrainingClock,
    *,
    init: Path | None,
) -> TrainingState:
    """A method with random parameters, or those of `init`, and its optimizer at step 0."""
    seed = job.settings.seed + attempt
    torch.manual_seed(seed)
    rng.generator.manual_seed(seed)
    method = job.method.build(scene).to(device)
    if init is not None:
        initialize_from(method, init)
    return TrainingState(method, build_optimizer(job.method.optimizer, method.param_groups()), rng, clock)


def training_budget(settings: Train) -> Budget:
    """The number of steps or the time to train for; five minutes if neither is set."""
    if settings.steps is None and settings.minutes is None:
        return Budget(seconds=DEFAULT_MINUTES * 60)
    return Budget(settings.steps, None if settings.minutes is None else settings.minutes * 60)


def load_validation_views(job: TrainingJob, console: Console) -> Scene | None:
    """Evenly spaced images of the val split; None, with a note on the console, if there are none."""
    if job.settings.num_validation_views == 0:
        return None
    try:
        if "val" not in data.list_splits(job.source):
            return None
        return data.read_scene(job.source, "val", at_most=job.settings.num_validation_views)
    except DataError as missing:
        console.print(f"no validation: {missing}", highlight=False)
        return None


def read_all_cameras(source: Source, scene: Scene) -> dict[str, Scene]:
    """Every split without its images; a split whose cameras cannot be read is left out with a warning."""
    scenes = {"train": scene.without_images().to("cpu")}
    for split in data.list_splits(source):
        if split != "train":
            try:
                scenes[split] = data.read_cameras(source, split)
            except DataError as missing:
                log.warning("the %s split is left out of the run: %s", split, missing)
    return scenes
