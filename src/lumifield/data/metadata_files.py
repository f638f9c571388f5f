"""Content of metadata files, opened once although detection and parsing both need it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


def read_metadata(path: Path) -> bytes:
    """Content of a file, remembered for the last few files until they change."""
    status = path.stat()
    return _read(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, size: int, modified: int) -> bytes:
    return path.read_bytes()
