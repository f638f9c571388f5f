"""Files that are either whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumifield.errors import DataError


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
