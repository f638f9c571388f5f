"""A new folder that appears whole or not at all."""

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
    """A temporary folder beside `out` that takes its name when the block ends well, and vanishes when it does not.

    Raises `DataError` where `out` is a file, holds anything already, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "not empty" if out.is_dir() else "a file"
        raise DataError(out, "the output folder", found, "a new or empty folder", "name another one or empty it")
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
        found = f"not writable ({error.strerror or error})"
        fix = "free some space, change its permissions or name another one"
        raise DataError(out, "the output folder", found, "a folder that can be written", fix) from error


def flush(folder: Path) -> None:
    """Sees that all files of the folder have reached the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
