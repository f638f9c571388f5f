"""Files that are either whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumifield.errors import DataError


def check_output(out: Path, endings: tuple[str, ...], expected: str) -> None:
    """Raises `DataError`, before any work, where `out` cannot become a file of one of the endings ("" is a folder).

    `expected` says in words what endings there are. Leaves nothing but the folder that `out` lies in.
    """
    if out.suffix not in endings:
        raise DataError(out, "ending", repr(out.suffix), expected, "change it")
    check_place(out, folder=out.suffix == "")


def check_place(out: Path, *, folder: bool) -> None:
    """Raises `DataError` where neither a file (or a folder) `out` stands nor one can be written."""
    if (out.is_file() and folder) or (out.is_dir() and not folder):
        found, wanted = ("a folder", "a file") if out.is_dir() else ("a file", "a folder")
        raise DataError(out, "output", found, wanted, "choose another name")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out if out.is_dir() else out.parent):
            pass


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; at the end it is flushed to the disk and renamed to `path`.

    Nothing stays behind when the block fails. An operating system error becomes a `DataError` that names `path`.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's errors into a `DataError` about the output `path`."""
    try:
        yield
    except OSError as error:
        found = (error.strerror or str(error).splitlines()[0]).lower()
        raise DataError(
            path, "output", f"not writable ({found})", "a place to write to", "free some space or choose another place"
        ) from error
