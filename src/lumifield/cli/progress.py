"""Progress bars and status lines on the terminal, as functions that long operations report to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, visible: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the remaining time, as a function of the completed and the total count."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True, disable=not visible) as bar:
        task = bar.add_task(label, total=None)
        yield lambda completed, total: bar.update(task, completed=completed, total=total)


@contextmanager
def transfer_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar per file, as a function of its name, the bytes completed and the total bytes."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(TextColumn("{task.description}"), BarColumn(), *columns, transient=True) as bar:
        tasks = {}

        def report_progress(name: str, completed: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, completed=completed, total=total)
            bar.update(tasks[name], completed=completed, total=total)

        yield report_progress


@contextmanager
def status_line(text: str) -> Iterator[Callable[[str], None]]:
    """A status line on the terminal, as a function that replaces its text."""
    from rich.console import Console

    with Console().status(text) as line:
        yield line.update
