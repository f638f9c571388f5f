"""Progress bars on the terminal, as the functions that long work reports to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counted(what: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left, as a function of the number done and to do."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def transfers() -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar for each file, as a function of its name and the bytes done and to do."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(TextColumn("{task.description}"), BarColumn(), *columns, transient=True) as bar:
        tasks = {}

        def note(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, completed=done, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield note


@contextmanager
def changing(first: str) -> Iterator[Callable[[str], None]]:
    """A line on the terminal, as a function that puts another in its place."""
    from rich.console import Console

    with Console().status(first) as line:
        yield line.update
