"""Disk cache of arrays that are slow to compute, mapped into memory."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import uuid4

import numpy as np
from jaxtyping import UInt8

# Maximum size of the cache [bytes]; the least recently used arrays are removed.
MAX_CACHE_BYTES = 16 * 2**30

log = logging.getLogger(__name__)

Parts = Callable[[], Iterable[UInt8[np.ndarray, "_ c"]]]


def folder() -> Path:
    """Folder of the cache: `LUMIFIELD_CACHE`, or the cache folder of the platform."""
    if named := os.environ.get("LUMIFIELD_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/lumifield"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lumifield"


def cached_array(key: tuple[object, ...], shape: tuple[int, int], make: Parts) -> UInt8[np.ndarray, "n c"]:
    """The cached array of `key`; computed by `make`, in parts of rows, if it is not cached.

    `key` contains everything that the array depends on, distinguished by `repr`. Writes to the array stay in this
    process. Processes may call it concurrently. If the cache cannot be written, the array is in memory.
    """
    path = folder() / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.npy"
    found = _load_cached(path, shape)
    if found is None:
        try:
            _write_cached(path, shape, make)
            found = _load_cached(path, shape)
        except OSError as error:
            log.warning("%s: decoded images are not cached (%s).", path.parent, error.strerror or error)
    return assemble_array(shape, make) if found is None else found


def assemble_array(shape: tuple[int, int], make: Parts) -> UInt8[np.ndarray, "n c"]:
    """The array in memory."""
    array, row = np.empty(shape, np.uint8), 0
    for part in make():
        array[row : row + len(part)] = part
        row += len(part)
    return array


def _load_cached(path: Path, shape: tuple[int, int]) -> UInt8[np.ndarray, "n c"] | None:
    """The array of a file, marked as used; None if it is missing or incomplete."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.uint8 and array.shape == shape else None


def _write_cached(path: Path, shape: tuple[int, int], make: Parts) -> None:
    """Writes the array part by part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _make_room(path.parent, shape[0] * shape[1])
    partial = path.with_name(f"{uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            about = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, about)
            for part in make():
                file.write(np.ascontiguousarray(part).data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _make_room(place: Path, size: int) -> None:
    """Removes the least recently used arrays to make room for `size` bytes."""
    kept = sorted((file.stat().st_mtime_ns, file.stat().st_size, file) for file in place.glob("*.npy"))
    total = size + sum(length for _, length, _ in kept)
    for _, length, file in kept:
        if total <= MAX_CACHE_BYTES:
            return
        file.unlink(missing_ok=True)
        total -= length
