"""`meta_train`: a learned start from its settings to its run folder. The outer steps themselves are in `outer.py`."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from lumifield.data.collection import Task, tasks
from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.meta import MetaTrain
from lumifield.meta.inner import adapted, carried, objective, rooted
from lumifield.meta.outer import maml, reptile
from lumifield.meta.watch import MetaJob, Watch
from lumifield.methods.base import Method
from lumifield.optim.optimizers import build_optimizer, learning_rate_factor
from lumifield.runs import run_folder
from lumifield.runs.driver import open_summary_writer, select_device, stop_on_interrupt, validate_run_folder
from lumifield.runtime import distributed
from lumifield.runtime.image_metrics import psnr
from lumifield.runtime.rng import Rng
from lumifield.training.checkpoint import initialize_from, restore_state
from lumifield.training.fit import (
    Budget,
    StepReport,
    TrainingClock,
    TrainingState,
    broadcast_fraction,
    sum_over_processes,
)

log = logging.getLogger(__name__)

DEFAULT_MINUTES = 60.0
KEPT_SCENES = 256
KEPT_ROOTS = 64


@dataclass
class Inner:
    """The inner loops of a run: tasks by number, each read once and kept, each visit with random numbers of its own.

    So is what a method has to know of the scene of a task before it learns.
    """

    job: MetaJob
    tasks: Sequence[Task]
    device: torch.device
    errors: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scene = lru_cache(KEPT_SCENES)(self._scene)
        self.root = lru_cache(KEPT_ROOTS)(self._root)

    def _scene(self, number: int) -> Scene:
        rows = slice(self.job.meta.views or None)
        return self.tasks[number].photographs(rows).to(self.device)

    def _root(self, start: Method, number: int) -> Method:
        # Fresh numbers for what is not carried over, the same whichever visit is the first, after a resume too.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.job.meta.seed)
            return rooted(start, self.scene(number))

    def adapted(self, start: Method, visits: Sequence[Visit]) -> list[dict[str, torch.Tensor]]:
        """What copies of the start become in their visits of tasks; one whose numbers break stays where it began."""
        scenes, rng = [self.scene(visit.task) for visit in visits], visits[0].rng(self.device)

        def root(place: int) -> Method:
            return self.root(start, visits[place].task)

        found = adapted(start, scenes, self.job.meta.inner, rng, self._note, root=root)
        before = {name: value.detach() for name, value in carried(start).items()}
        whole = [all(bool(value.isfinite().all()) for value in copy.values()) for copy in found]
        for visit, fine in zip(visits, whole, strict=True):
            if not fine:
                log.warning("the inner loop on %s breaks: lower its rate", self.tasks[visit.task].name)
        return [copy if fine else before for copy, fine in zip(found, whole, strict=True)]

    def objective(self, start: Method, visits: Sequence[Visit]) -> torch.Tensor:
        """The sum over the visits of what adapted copies still do wrong."""
        second_order, device = self.job.meta.algorithm == "maml", self.device
        losses = [
            objective(
                start,
                self.scene(visit.task),
                self.job.meta.inner,
                visit.rng(device),
                second_order=second_order,
                root=self.root(start, visit.task),
            )
            for visit in visits
        ]
        self.errors += [float(loss.detach()) for loss in losses]
        return torch.stack(losses).sum()

    def _note(self, report: StepReport) -> None:
        self.errors.append(float(((report.predicted - report.ground_truth) ** 2).mean()))

    def told(self) -> float:
        """PSNR of the rays seen at the end of the inner loops since the last call [dB]."""
        error = sum(self.errors) / len(self.errors) if self.errors else float("nan")
        self.errors.clear()
        return psnr(error)


@dataclass(frozen=True)
class Visit:
    """One task in one outer step. Its random numbers depend on the seed, the step and its place alone."""

    task: int
    seed: int

    def rng(self, device: torch.device) -> Rng:
        """Random numbers of the visit."""
        return Rng(torch.Generator(device).manual_seed(self.seed))


def visits(count: int, step: int, meta: MetaTrain) -> list[Visit]:
    """The visits of an outer step to `count` tasks: each once before any comes again, or drawn anew."""
    found = []
    for place in range(step * meta.tasks, (step + 1) * meta.tasks):
        if meta.replacement:
            task = int(np.random.default_rng([meta.seed, 1, place]).integers(count))
        else:
            order = np.random.default_rng([meta.seed, 2, place // count]).permutation(count)
            task = int(order[place % count])
        found.append(Visit(task, int(np.random.SeedSequence([meta.seed, 3, place]).generate_state(1)[0])))
    return found


def meta_train(job: MetaJob, *, resume: bool = False, console: Console | None = None) -> Path:
    """Learns a start over the train split of a collection and leaves a run folder; returns it.

    Raises `DataError` for data or settings that cannot be used; Ctrl-C ends the run after the outer step, with
    everything saved.
    """
    rank, world = distributed.join()
    console = console if console is not None and rank == 0 else Console(quiet=True)
    if rank == 0:  # the others may find what the first has already begun to write
        validate_run_folder(job.out, job.method, job.source, resume=resume)
    resume = resume and (job.out / run_folder.STATE).is_file()
    device = select_device(job.meta.device)
    inner = Inner(job, tasks(job.source, "train"), device)
    state = initialize_state(job, inner.scene(0), Rng(torch.Generator(device), rank, world), resumed=resume)
    history = restore_state(job.out, state) if resume else []
    first = rank == 0
    if first and not resume:
        cameras = {"train": inner.scene(0).without_images().to("cpu")}
        run_folder.create_run(job.out, state.method, job.method, job.source, {"meta": job.meta}, cameras)
    with open_summary_writer(job.out if first else None) as writer, stop_on_interrupt(state.stop):
        watch = Watch(job, validation_tasks(job, console) if first else [], history, writer, console) if first else None
        learn_start(state, job, inner, watch)
        if watch is not None:
            watch.save(state)
    console.print(f"{state.step} outer steps, {state.clock.seconds:.0f} s, saved in {job.out}", highlight=False)
    return job.out


def initialize_state(job: MetaJob, scene: Scene, rng: Rng, *, resumed: bool) -> TrainingState:
    """A start with new parameters, or those of an earlier run, and the outer optimizer, at step 0."""
    torch.manual_seed(job.meta.seed)
    method = job.method.build(scene).to(scene.cameras.c2w.device)
    if job.meta.init is not None and not resumed:
        initialize_from(method, job.meta.init)
    return TrainingState(method, build_optimizer(job.meta.outer, outer_groups(method, job.meta)), rng, TrainingClock())


def outer_groups(method: Method, meta: MetaTrain) -> list[dict[str, Any]]:
    """The parameters of the start for the outer optimizer, all as one or in the method's own groups."""
    start = list(carried(method).values())
    if not meta.by_part:
        return [{"params": start}]
    among = {id(parameter) for parameter in start}
    groups = [
        {**group, "params": [parameter for parameter in group["params"] if id(parameter) in among]}
        for group in method.param_groups()
    ]
    return [group for group in groups if group["params"]]


def learn_start(state: TrainingState, job: MetaJob, inner: Inner, watch: Watch | None) -> None:
    """Outer steps until the time is over or the run is stopped."""
    meta, world = job.meta, state.rng.world
    budget = training_budget(meta, len(inner.tasks))
    while (
        fraction := broadcast_fraction(
            1.0 if state.stopped else budget.fraction(state.step, state.clock.seconds), world
        )
    ) < 1:
        state.optimizer.set_rate(learning_rate_factor(meta.outer_schedule, fraction, state.step))
        outer_step(state, meta, inner)
        state.step += 1
        if watch is not None:
            watch(state, inner.told(), fraction)


def training_budget(meta: MetaTrain, count: int) -> Budget:
    """The length of a run over `count` tasks: the shortest that is asked for, an hour where none is."""
    steps = [] if meta.steps is None else [meta.steps]
    steps += [] if meta.epochs is None else [math.ceil(meta.epochs * count / meta.tasks)]
    if not steps and meta.minutes is None:
        return Budget(seconds=DEFAULT_MINUTES * 60)
    return Budget(min(steps, default=None), None if meta.minutes is None else meta.minutes * 60)


def outer_step(state: TrainingState, meta: MetaTrain, inner: Inner) -> None:
    """This process's share of the step's tasks, then one step that all processes take together."""
    every = visits(len(inner.tasks), state.step, meta)
    size = meta.group or (len(every) if inner.device.type == "cuda" else 1)
    groups = [every[at : at + size] for at in range(0, len(every), size)]
    own = groups[state.rng.rank :: state.rng.world]
    start = carried(state.method)
    if meta.algorithm == "reptile":
        reptile(start, own, lambda group: inner.adapted(state.method, group), state.optimizer, tasks=len(every))
    else:
        maml(start, own, lambda _, group: inner.objective(state.method, group), state.optimizer, tasks=len(every))
    rays = sum(map(len, own)) * meta.inner.steps * (meta.inner.batch or state.method.rays_per_step())
    state.rays += sum_over_processes(rays, state.rng.world)


def validation_tasks(job: MetaJob, console: Console) -> Sequence[Task]:
    """The first tasks of the val split; none, and a word about it, where there are none."""
    if job.meta.validation_tasks == 0:
        return []
    try:
        return tasks(job.source, "val")[: job.meta.validation_tasks]
    except DataError as missing:
        console.print(f"no validation: {missing}", highlight=False)
        return []
