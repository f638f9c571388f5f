"""Meta-training from a collection of scenes to a run folder; the outer steps are in `outer_loop`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from lumifield.data.scene import Scene
from lumifield.data.scene_collection import Task, list_tasks
from lumifield.errors import DataError
from lumifield.meta import MetaTrain
from lumifield.meta.inner_loop import adapt_clones, adaptation_objective, initial_parameters, method_for_scene
from lumifield.meta.monitoring import MetaJob, MetaMonitor, OuterReport, TaskValidator
from lumifield.meta.outer_loop import maml, reptile
from lumifield.methods.base import Method
from lumifield.optim.optimizers import build_optimizer, learning_rate_factor
from lumifield.runs.checkpoint import CheckpointSaver
from lumifield.runs.driver import RunDriver
from lumifield.runs.initialization import initialize_from
from lumifield.runs.run_config import RunConfig
from lumifield.runs.state import Budget, remaining_steps
from lumifield.runtime.distributed import sum_over_processes
from lumifield.runtime.image_metrics import psnr
from lumifield.runtime.rng import Rng
from lumifield.training.fit import StepReport, TrainingState

log = logging.getLogger(__name__)

DEFAULT_MINUTES = 60.0
MAX_CACHED_SCENES = 256
MAX_CACHED_METHODS = 64


@dataclass
class InnerLoops:
    """Inner loops of a run: cached tasks and scene-dependent methods, and random numbers of their own per episode."""

    job: MetaJob
    tasks: Sequence[Task]
    device: torch.device
    errors: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scene = lru_cache(MAX_CACHED_SCENES)(self._scene)
        self.root = lru_cache(MAX_CACHED_METHODS)(self._root)

    def _scene(self, number: int) -> Scene:
        rows = slice(self.job.meta.num_views or None)
        return self.tasks[number].load_images(rows).to(self.device)

    def _root(self, initialization: Method, number: int) -> Method:
        # Parameters outside the initialization are the same whichever episode comes first, also after resuming.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.job.meta.seed)
            return method_for_scene(initialization, self.scene(number))

    def adapt_clones(self, initialization: Method, episodes: Sequence[TaskEpisode]) -> list[dict[str, torch.Tensor]]:
        """Adapted clones of the episodes; one with non-finite parameters stays at the initialization."""
        scenes, rng = [self.scene(episode.task) for episode in episodes], episodes[0].rng(self.device)

        def root(place: int) -> Method:
            return self.root(initialization, episodes[place].task)

        found = adapt_clones(initialization, scenes, self.job.meta.inner, rng, self._record_error, root=root)
        before = {name: value.detach() for name, value in initial_parameters(initialization).items()}
        whole = [all(bool(value.isfinite().all()) for value in clone.values()) for clone in found]
        for episode, fine in zip(episodes, whole, strict=True):
            if not fine:
                log.warning("the inner loop on %s diverges: lower its learning rate", self.tasks[episode.task].name)
        return [clone if fine else before for clone, fine in zip(found, whole, strict=True)]

    def adaptation_objective(self, initialization: Method, episodes: Sequence[TaskEpisode]) -> torch.Tensor:
        """Sum over the episodes of the loss after adaptation."""
        second_order, device = self.job.meta.algorithm == "maml", self.device
        losses = [
            adaptation_objective(
                initialization,
                self.scene(episode.task),
                self.job.meta.inner,
                episode.rng(device),
                second_order=second_order,
                root=self.root(initialization, episode.task),
            )
            for episode in episodes
        ]
        self.errors += [float(loss.detach()) for loss in losses]
        return torch.stack(losses).sum()

    def _record_error(self, report: StepReport) -> None:
        self.errors.append(float(((report.predicted - report.ground_truth) ** 2).mean()))

    def mean_inner_psnr(self) -> float:
        """PSNR of the rays at the end of the inner loops since the last call [dB]."""
        error = sum(self.errors) / len(self.errors) if self.errors else float("nan")
        self.errors.clear()
        return psnr(error)


@dataclass(frozen=True)
class TaskEpisode:
    """One task in one outer step; its random numbers depend only on seed, step and index."""

    task: int
    seed: int

    def rng(self, device: torch.device) -> Rng:
        """Random numbers of the episode."""
        return Rng(torch.Generator(device).manual_seed(self.seed))


def sample_episodes(count: int, step: int, meta: MetaTrain) -> list[TaskEpisode]:
    """Episodes of an outer step over `count` tasks: by epochs, or with replacement."""
    found = []
    for place in range(step * meta.meta_batch_size, (step + 1) * meta.meta_batch_size):
        if meta.sample_with_replacement:
            task = int(np.random.default_rng([meta.seed, 1, place]).integers(count))
        else:
            order = np.random.default_rng([meta.seed, 2, place // count]).permutation(count)
            task = int(order[place % count])
        found.append(TaskEpisode(task, int(np.random.SeedSequence([meta.seed, 3, place]).generate_state(1)[0])))
    return found


def run_meta_training(job: MetaJob, *, resume: bool = False, console: Console | None = None) -> Path:
    """Meta-learns an initialization over the train split of a collection and writes a run folder; returns it.

    Ctrl-C stops after the current outer step with everything saved. Raises `DataError` for unusable data or settings.
    """
    config = RunConfig.of_training(job.method, job.source, "meta", job.meta)
    driver = RunDriver(job.out, config, device=job.meta.device, resume=resume, console=console)
    inner = InnerLoops(job, list_tasks(job.source, "train"), driver.device)
    state = initialize_meta_state(job, inner.scene(0), driver)
    history = driver.start(state, state.method.settings, lambda: {"train": inner.scene(0).without_images().to("cpu")})
    with driver.record(state) as writer:
        tasks = validation_tasks(job, driver) if driver.is_first else []
        saver = CheckpointSaver(
            job.out,
            history,
            TaskValidator(job, tasks, writer, driver.print) if tasks else None,
            validate_every=job.meta.validate_every,
            save_every=job.meta.save_every,
        )
        callbacks = [MetaMonitor(job, writer, driver.print), saver] if driver.is_first else []
        train_initialization(state, job, inner, callbacks)
        if driver.is_first:
            saver.save(state)
    driver.print(f"{state.step} outer steps, {state.clock.seconds:.0f} s, saved in {job.out}")
    return job.out


def initialize_meta_state(job: MetaJob, scene: Scene, driver: RunDriver) -> TrainingState:
    """Initialization with random parameters, or those of another run, and the outer optimizer at step 0."""
    torch.manual_seed(job.meta.seed)
    method = job.method.build(scene).to(driver.device)
    if job.meta.init is not None and not driver.resumes:
        initialize_from(method, job.meta.init)
    rng = Rng(torch.Generator(driver.device), driver.rank, driver.world)
    return TrainingState(method, build_optimizer(job.meta.outer, outer_groups(method, job.meta)), rng)


def outer_groups(method: Method, meta: MetaTrain) -> list[dict[str, Any]]:
    """Parameters for the outer optimizer, in one group or in those of the method."""
    parameters = list(initial_parameters(method).values())
    if not meta.use_method_rates:
        return [{"params": parameters}]
    among = {id(parameter) for parameter in parameters}
    groups = [
        {**group, "params": [parameter for parameter in group["params"] if id(parameter) in among]}
        for group in method.param_groups()
    ]
    return [group for group in groups if group["params"]]


def train_initialization(
    state: TrainingState,
    job: MetaJob,
    inner: InnerLoops,
    callbacks: Sequence[Callable[[TrainingState, OuterReport], None]],
) -> None:
    """Outer steps until the budget is spent or the run is stopped."""
    for fraction in remaining_steps(state, meta_training_budget(job.meta, len(inner.tasks))):
        state.optimizer.set_rate(learning_rate_factor(job.meta.outer_schedule, fraction, state.step))
        outer_step(state, job.meta, inner)
        state.step += 1
        if callbacks:
            report = OuterReport(inner.mean_inner_psnr(), fraction)
            for callback in callbacks:
                callback(state, report)


def meta_training_budget(meta: MetaTrain, count: int) -> Budget:
    """Shortest requested length of a run over `count` tasks; an hour if none is set."""
    steps = [] if meta.steps is None else [meta.steps]
    steps += [] if meta.epochs is None else [math.ceil(meta.epochs * count / meta.meta_batch_size)]
    return Budget.of(min(steps, default=None), meta.minutes, default_minutes=DEFAULT_MINUTES)


def outer_step(state: TrainingState, meta: MetaTrain, inner: InnerLoops) -> None:
    """Inner loops of the tasks of this process, then one outer step over all processes."""
    every = sample_episodes(len(inner.tasks), state.step, meta)
    size = meta.vmap_batch_size or (len(every) if inner.device.type == "cuda" else 1)
    groups = [every[at : at + size] for at in range(0, len(every), size)]
    own = groups[state.rng.rank :: state.rng.world]
    initialization = initial_parameters(state.method)
    if meta.algorithm == "reptile":
        reptile(
            initialization,
            own,
            lambda group: inner.adapt_clones(state.method, group),
            state.optimizer,
            tasks=len(every),
        )
    else:
        maml(
            initialization,
            own,
            lambda _, group: inner.adaptation_objective(state.method, group),
            state.optimizer,
            tasks=len(every),
        )
    rays = sum(map(len, own)) * meta.inner.steps * (meta.inner.batch_size or state.method.rays_per_step())
    state.rays += sum_over_processes(rays, state.rng.world)


def validation_tasks(job: MetaJob, driver: RunDriver) -> Sequence[Task]:
    """First tasks of the val split; none, with a note on the console, if there are none."""
    if job.meta.num_validation_tasks == 0:
        return []
    try:
        return list_tasks(job.source, "val")[: job.meta.num_validation_tasks]
    except DataError as missing:
        driver.print(f"no validation: {missing}")
        return []
