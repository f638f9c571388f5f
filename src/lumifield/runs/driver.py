"""What every long run needs: a device, a TensorBoard log, a clean stop on Ctrl-C, a folder that is not overwritten."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from lumifield.data import Source
from lumifield.errors import DataError
from lumifield.methods import Settings, method_name
from lumifield.runs import run_folder
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


def validate_run_folder(out: Path, method: Settings, source: Source, *, resume: bool) -> None:
    """Raises `DataError` if a new run would overwrite a run, or a resumed one would change its settings."""
    if not resume:
        if (out / run_folder.CONFIG).is_file():
            raise DataError(
                out, "run folder", "an existing run", "a new folder", "choose another --out or add --resume"
            )
        return
    config = run_folder.read_config(out)
    saved = run_folder.method_settings(config, out / run_folder.CONFIG)
    if method_name(saved) != method_name(method):
        raise DataError(out, "method", method_name(saved), method_name(method), "resume with the method of the run")
    require_equal_settings(out, to_plain(replace(source, data=source.data.resolve())), config["source"])


def require_equal_settings(out: Path, requested: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raises `DataError` for the first requested setting that differs from the saved one."""
    for key, value in requested.items():
        if saved.get(key) != value:
            fix = "resume with the settings of the run"
            raise DataError(out, key, repr(saved.get(key)), f"{value!r} as requested", fix)


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
