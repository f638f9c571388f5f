"""`train`: a run from its settings to its folder. The loop itself is `fit`."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import Scene, sample_batch
from lumifield.errors import DataError
from lumifield.methods import Settings, kind_of
from lumifield.methods.base import Method
from lumifield.optim.optimizers import build_optimizer
from lumifield.runs import bundled, run_folder
from lumifield.runtime import distributed
from lumifield.runtime.config import to_plain
from lumifield.runtime.files import writing
from lumifield.runtime.rng import Rng
from lumifield.training import Train
from lumifield.training.fit import Budget, Clock, Listener, Report, State, fit
from lumifield.training.guard import CollapsedError, Guard
from lumifield.training.monitor import Monitor, Validator

log = logging.getLogger(__name__)

DEFAULT_MINUTES = 5.0
MOST_STARTS = 3


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and where the result goes."""

    method: Settings
    source: Source
    train: Train
    out: Path


def train(
    job: Job, *, resume: bool = False, console: Console | None = None, listeners: Sequence[Listener] = ()
) -> Path:
    """Trains a method on the train split and leaves a run folder; returns it. The first process has `listeners`.

    Starts again with another seed, and says so, where a start collapses. Raises `DataError` for data or settings that
    cannot be used; Ctrl-C ends the run after the step, with everything saved.
    """
    rank, world = distributed.join()
    console = console if console is not None and rank == 0 else Console(quiet=True)
    if rank == 0:  # the others may find what the first has already begun to write
        check_folder(job.out, job.method, job.source, resume=resume)
    resume = resume and (job.out / run_folder.STATE).is_file()
    device = choose_device(job.train.device)
    scene = data.read(job.source, "train").to(device)
    if not job.train.loss_multipliers:
        scene = replace(scene, loss_weight=None)
    clock = Clock()
    for attempt in range(MOST_STARTS):
        rng = Rng(torch.Generator(device), rank, world)
        state = fresh_state(job, scene, device, attempt, rng, clock, init=None if resume else job.train.init)
        try:
            run_once(job, state, scene, console, resume=resume, listeners=listeners)
            return job.out
        except CollapsedError as collapsed:
            log.warning("%s: starting again with seed %d", collapsed, job.train.seed + attempt + 1)
            resume = False
    raise CollapsedError(f"{MOST_STARTS} starts with different seeds have shown one color everywhere")


def run_once(
    job: Job, state: State, scene: Scene, console: Console, *, resume: bool, listeners: Sequence[Listener] = ()
) -> None:
    """One start, from its first (or saved) step to its last folder."""
    history = restore(job.out, state) if resume else []
    first = state.rng.rank == 0
    if first and not resume:
        plan, cameras = {"train": job.train}, all_cameras(job.source, scene)
        run_folder.start(job.out, state.method, job.method, job.source, plan, cameras)
    numbers = sum(one.numel() for one in state.method.parameters())
    console.print(f"{numbers:,} parameters, {len(scene)} images", highlight=False)
    budget = budget_of(job.train)
    with closing_writer(job.out if first else None) as writer, interruptible(state):
        views = validation_views(job, console) if first else None
        monitor = Monitor(writer, budget, console)
        saver = Saver(job, views, history, len(scene), writer, console)
        all_listeners = [Guard(), monitor] + ([saver, *listeners] if first else [])
        try:
            fit(
                state,
                lambda rays, rng: sample_batch(
                    scene, rays, rng, one_image=job.train.one_image, patch=state.method.patch
                ),
                budget,
                job.method.schedule,
                clip=job.train.clip,
                clip_value=job.train.clip_value,
                listeners=all_listeners,
            )
        finally:
            monitor.close()
        if first:
            saver.save(state)
    rays_per_second = state.rays / max(state.clock.seconds, 1e-9)
    console.print(f"{state.step} steps, {rays_per_second:,.0f} rays/s, saved in {job.out}", highlight=False)


class Saver:
    """Validates, and writes the last state and the best weights, every so many steps."""

    def __init__(
        self,
        job: Job,
        views: Scene | None,
        history: list[dict[str, Any]],
        n_train_images: int,
        writer: SummaryWriter,
        console: Console,
    ) -> None:
        self._job, self._n = job, n_train_images
        every = job.train.validate_every
        self._validator = Validator(views, every, job.out / "log", writer, console.print, history, self._keep)

    def __call__(self, state: State, report: Report) -> None:
        """Looks and saves every so many steps."""
        self._validator(state, report)
        if self._job.train.save_every and state.step % self._job.train.save_every == 0:
            self.save(state)

    def save(self, state: State) -> None:
        """One checkpoint: a look at the validation views, then the whole state."""
        self._validator.look(state)
        summary = {"seconds": state.clock.seconds, "rays": state.rays, "steps": state.step, "n_train_images": self._n}
        run_folder.write_json(self._job.out / run_folder.SUMMARY, summary)
        tensors, about = snapshot(state)
        about |= {"history": self._validator.history}
        run_folder.write_tensors(self._job.out / run_folder.STATE, tensors, about)

    def _keep(self, state: State) -> None:
        run_folder.write_tensors(self._job.out / run_folder.WEIGHTS, state.method.state_dict())


def snapshot(state: State) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """All that an exact resumption needs."""
    moments, about = run_folder.flat_optimizer(state.optimizer.state_dict())
    tensors = {f"weights.{name}": value for name, value in state.method.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in moments.items()}
    tensors["generator"] = state.rng.generator.get_state()
    progress = {"step": state.step, "rays": state.rays, "seconds": state.clock.seconds}
    return tensors, {"optimizer": about, "rate_factor": state.rate_factor} | progress


def restore(out: Path, state: State) -> list[dict[str, Any]]:
    """Puts a saved state back; returns the history. Raises `DataError` where its method had other settings."""
    file = out / run_folder.STATE
    saved = run_folder.read_config(out)["method"]
    refuse_other(out, to_plain(state.method.settings), saved)
    tensors, about = run_folder.read_tensors(file)
    run_folder.set_weights(state.method, run_folder.part(tensors, "weights."), file)
    moments = run_folder.part(tensors, "optimizer.")
    state.optimizer.load_state_dict(run_folder.nested_optimizer(moments, about["optimizer"]))
    state.rng.generator.set_state(tensors["generator"])
    state.step, state.rays, state.rate_factor = about["step"], about["rays"], about["rate_factor"]
    state.clock = Clock(about["seconds"])
    return about["history"]


def fresh_state(
    job: Job, scene: Scene, device: torch.device, attempt: int, rng: Rng, clock: Clock, *, init: Path | None
) -> State:
    """A method with new parameters, or those of `init`, and its optimizer, at step 0."""
    seed = job.train.seed + attempt
    torch.manual_seed(seed)
    rng.generator.manual_seed(seed)
    method = job.method.build(scene).to(device)
    if init is not None:
        start_from(method, init)
    return State(method, build_optimizer(job.method.optimizer, method.param_groups()), rng, clock)


def start_from(method: Method, init: Path) -> None:
    """Takes over the adaptable parameters of a run folder or of a start of the package, or of a published folder.

    Raises `DataError` where one of them is missing or of another shape.
    """
    init = bundled.found(init)
    if init.is_file():
        method.load_published(init)
        return
    config, kind = run_folder.read_config(init), kind_of(method.settings)
    theirs = kind_of(run_folder.method_settings(config, init / run_folder.CONFIG))
    if theirs != kind:
        raise DataError(init, "method", theirs, f"{kind} as asked", "start from a run of the same method")
    file, own = init / run_folder.WEIGHTS, method.state_dict()
    other, _ = run_folder.read_tensors(file)
    for name in method.adaptable():
        found = list(other[name].shape) if name in other else "missing"
        if found != list(own[name].shape):
            fix = "start from a run of the same method and sizes"
            raise DataError(file, f"parameter {name!r}", str(found), f"{list(own[name].shape)} as in the method", fix)
    method.load_state_dict(own | {name: other[name] for name in method.adaptable()})


def budget_of(settings: Train) -> Budget:
    """The length of the run: the steps or minutes asked for, five minutes where neither is."""
    if settings.steps is None and settings.minutes is None:
        return Budget(seconds=DEFAULT_MINUTES * 60)
    return Budget(settings.steps, None if settings.minutes is None else settings.minutes * 60)


def validation_views(job: Job, console: Console) -> Scene | None:
    """A few images of the val split, evenly spread; None, and a word about it, where there are none."""
    if job.train.validation_views == 0:
        return None
    try:
        if "val" not in data.splits(job.source):
            return None
        return data.read(job.source, "val", at_most=job.train.validation_views)
    except DataError as missing:
        console.print(f"no validation: {missing}", highlight=False)
        return None


def all_cameras(source: Source, scene: Scene) -> dict[str, Scene]:
    """Every split without its images, as far as their cameras can be read."""
    scenes = {"train": scene.without_images().to("cpu")}
    for split in data.splits(source):
        if split != "train":
            try:
                scenes[split] = data.cameras(source, split)
            except DataError as missing:
                log.warning("the %s split is left out of the run: %s", split, missing)
    return scenes


def check_folder(out: Path, method: Settings, source: Source, *, resume: bool) -> None:
    """Refuses to overwrite a run, or to resume one with other settings."""
    holds_run = (out / run_folder.CONFIG).is_file()
    if not resume:
        if holds_run:
            raise DataError(out, "run folder", "taken by a run", "a new folder", "choose another --out or --resume")
        return
    config = run_folder.read_config(out)
    saved = run_folder.method_settings(config, out / run_folder.CONFIG)
    if kind_of(saved) != kind_of(method):
        fix = "resume with the method of the run"
        raise DataError(out, "method", kind_of(saved), f"{kind_of(method)} as asked", fix)
    refuse_other(out, to_plain(replace(source, data=source.data.resolve())), config["source"])


def refuse_other(out: Path, asked: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raises `DataError` where a run was begun with settings other than those asked for."""
    for key, value in asked.items():
        if saved.get(key) != value:
            fix = "resume with the settings of the run"
            raise DataError(out, key, repr(saved.get(key)), f"{value!r} as asked", fix)


def choose_device(asked: str) -> torch.device:
    """The device asked for; `auto` takes CUDA where there is one."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=asked)
        return torch.device(asked)
    except (RuntimeError, AssertionError):
        raise DataError("--device", "device", repr(asked), "one that torch can use here", "try cpu") from None


@contextmanager
def closing_writer(out: Path | None) -> Iterator[SummaryWriter]:
    """TensorBoard's writer for a run; writes to nowhere where `out` is None. Raises `DataError` on a full disk."""
    if out is None:
        yield SilentWriter()  # type: ignore[misc]
        return
    with quiet_threads(), writing(out / "log"):
        writer = SummaryWriter(str(out / "log"), flush_secs=10)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Inside, threads keep the operating system's errors to themselves: TensorBoard's raises its own in the caller."""
    before = threading.excepthook
    threading.excepthook = lambda failed: None if issubclass(failed.exc_type, OSError) else before(failed)
    try:
        yield
    finally:
        threading.excepthook = before


class SilentWriter:
    """Stands in for TensorBoard's writer in all processes but the first."""

    def add_scalar(self, *_: Any) -> None:
        """Writes nothing."""

    def add_image(self, *_: Any, **__: Any) -> None:
        """Writes nothing."""


@contextmanager
def interruptible(state: State) -> Iterator[None]:
    """Inside, the first Ctrl-C ends the run after its step; the second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: Any) -> None:
        state.stopped = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
