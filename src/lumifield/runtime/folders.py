"""Folders that are written completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lumifield.errors import DataError


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A temporary folder next to `out` that is renamed to `out` if the block succeeds, and removed if it fails.

    Raises `DataError` if `out` is a file, is not empty, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "a folder that is not empty" if out.is_dir() else "a file"
        raise DataError(out, "output folder", found, "a new or empty folder", "choose another one or empty it")
    partial = out.parent / f".{out.name}.{uuid4().hex}.partial"
    try:
        partial.mkdir(parents=True)
        try:
            yield partial
            flush(partial)
            os.replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        found = f"an error ({error.strerror or error})"
        fix = "free some space, change its permissions or choose another one"
        raise DataError(out, "output folder", found, "a writable folder", fix) from error


def flush(folder: Path) -> None:
    """Flushes all files of the folder to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
