"""Files that are written completely or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lumifield.errors import DataError


def check_output(out: Path, extensions: tuple[str, ...], expected: str) -> None:
    """Raises `DataError`, before any work, where `out` cannot become a file of one of the extensions ("" is a folder).

    `expected` says in words what extensions there are. Leaves nothing but the folder that `out` lies in.
    """
    if out.suffix not in extensions:
        raise DataError(out, "extension", repr(out.suffix), expected, "change it")
    check_writable(out, folder=out.suffix == "")


def check_writable(out: Path, *, folder: bool) -> None:
    """Raises `DataError` where neither a file (or a folder) `out` stands nor one can be written."""
    if (out.is_file() and folder) or (out.is_dir() and not folder):
        found, wanted = ("a folder", "a file") if out.is_dir() else ("a file", "a folder")
        raise DataError(out, "output", found, wanted, "choose another path")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out if out.is_dir() else out.parent):
            pass


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` to write to; afterwards it is flushed to disk and renamed to `path`.

    Nothing remains if the block fails. An operating system error becomes a `DataError` that names `path`.
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


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns operating system errors into a `DataError` about the output `path`."""
    try:
        yield
    except OSError as error:
        found = (error.strerror or str(error).splitlines()[0]).lower()
        raise DataError(
            path, "output", f"an error ({found})", "a writable path", "free some space or choose another path"
        ) from error
