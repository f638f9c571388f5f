"""The driver of every long run: device, folder, resumption, TensorBoard log, and a clean stop on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from lumifield.data import Source
from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.methods import Settings, method_name
from lumifield.runs import run_folder
from lumifield.runs.checkpoint import Validation, restore_state
from lumifield.runs.run_config import RunConfig
from lumifield.runs.state import Module, RunState
from lumifield.runtime import distributed
from lumifield.runtime.config import to_plain
from lumifield.runtime.files import writing


def select_device(name: str) -> torch.device:
    """The torch device of this name; `auto` selects CUDA if available, else the CPU. Raises `DataError` if unusable."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError):
        raise DataError("--device", "device", repr(name), "a device that torch can use here", "use cpu") from None


class RunDriver:
    """What every long run shares: processes, device, console, and a folder that is new or resumed.

    `is_first` is whether this process writes the folder, `resumes` whether the folder holds a state to resume from.
    """

    def __init__(
        self, out: Path, config: RunConfig, *, device: str, resume: bool = False, console: Console | None = None
    ) -> None:
        self.rank, self.world = distributed.join()
        self.is_first = self.rank == 0
        self.console = console if console is not None and self.is_first else Console(quiet=True)
        self.out, self.config = out, config
        if self.is_first:  # later processes may find what the first one has already begun to write
            require_usable_folder(out, config, resume=resume)
        self.resumes = resume and (out / run_folder.STATE).is_file()
        self.device = select_device(device)

    def print(self, line: str) -> None:
        """Prints a line, in the first process only."""
        self.console.print(line, highlight=False)

    def start(
        self, state: RunState[Module], method: Settings, cameras: Callable[[], dict[str, Scene]]
    ) -> list[Validation]:
        """Restores a saved state, or writes the configuration and the cameras of a new run.

        `method` are the settings of the built method. Returns the validation history. Raises `DataError` if the saved
        state is of other settings.
        """
        if self.resumes:
            require_equal_settings(self.out, method, run_folder.read_config(self.out).method)
            return restore_state(self.out / run_folder.STATE, state)
        if self.is_first:
            scenes = cameras()
            replace(self.config, method=method).write(self.out)
            if scenes:
                run_folder.write_cameras(self.out / run_folder.CAMERAS, scenes)
        return []

    @contextmanager
    def record(self, state: RunState[Module]) -> Iterator[SummaryWriter]:
        """A TensorBoard writer; inside, Ctrl-C stops the run after the current step."""
        with open_summary_writer(self.out if self.is_first else None) as writer, stop_on_interrupt(state.stop):
            yield writer


def require_usable_folder(out: Path, config: RunConfig, *, resume: bool) -> None:
    """Raises `DataError` if a new run would overwrite a run, or a resumed one has another method or source."""
    if not resume:
        if (out / run_folder.CONFIG).is_file():
            raise DataError(
                out, "run folder", "an existing run", "a new folder", "choose another --out or add --resume"
            )
        return
    saved = run_folder.read_config(out)
    if method_name(saved.method) != method_name(config.method):
        found, expected = method_name(saved.method), method_name(config.method)
        raise DataError(out, "method", found, expected, "resume with the method of the run")
    require_equal_settings(out, config.source, saved.source)


def require_equal_settings(out: Path, requested: Settings | Source | None, saved: Settings | Source | None) -> None:
    """Raises `DataError` for the first requested setting that differs from the saved one."""
    if requested == saved:
        return
    before = to_plain(saved) or {}
    for key, value in (to_plain(requested) or {}).items():
        if before.get(key) != value:
            fix = "resume with the settings of the run"
            raise DataError(out, key, repr(before.get(key)), f"{value!r} as requested", fix)


@contextmanager
def open_summary_writer(out: Path | None) -> Iterator[SummaryWriter]:
    """TensorBoard writer in `out`/log, or one that discards everything if `out` is None.

    Raises `DataError` if the disk is full.
    """
    if out is None:
        yield DiscardingWriter()  # type: ignore[misc]
        return
    with silence_writer_threads(), writing(out / "log"):
        writer = SummaryWriter(str(out / "log"), flush_secs=10)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def silence_writer_threads() -> Iterator[None]:
    """Inside, threads do not print operating system errors: TensorBoard raises its own again in the caller."""
    before = threading.excepthook
    threading.excepthook = lambda failed: None if issubclass(failed.exc_type, OSError) else before(failed)
    try:
        yield
    finally:
        threading.excepthook = before


class DiscardingWriter:
    """Replaces TensorBoard's writer in all processes but the first."""

    def add_scalar(self, *_: Any) -> None:
        """Discards a scalar."""

    def add_image(self, *_: Any, **__: Any) -> None:
        """Discards an image."""


@contextmanager
def stop_on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Inside, the first Ctrl-C calls `stop` so that the run ends after its step; the second interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(*_: Any) -> None:
        stop()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
