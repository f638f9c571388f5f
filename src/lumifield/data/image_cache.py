"""Arrays that take long to make, kept on the disk from one run to the next and mapped into memory."""

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

# What the folder may hold [bytes] before those arrays go that were not used for longest.
MAX_CACHE_BYTES = 16 * 2**30

log = logging.getLogger(__name__)

Parts = Callable[[], Iterable[UInt8[np.ndarray, "_ c"]]]


def folder() -> Path:
    """Where the arrays are: what `LUMIFIELD_CACHE` names, or a folder of the platform's for such things."""
    if named := os.environ.get("LUMIFIELD_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/lumifield"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lumifield"


def cached_array(key: tuple[object, ...], shape: tuple[int, int], make: Parts) -> UInt8[np.ndarray, "n c"]:
    """The array of a key, which `make` gives in parts, row after row, where none is kept yet.

    The key is all that the array depends on, in values whose `repr` tells them apart. What is written to the array
    stays in this process. Several processes may ask at once. Where nothing can be kept the array is in memory.
    """
    path = folder() / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.npy"
    found = _kept(path, shape)
    if found is None:
        try:
            _keep(path, shape, make)
            found = _kept(path, shape)
        except OSError as error:
            log.warning("%s: decoded images are not kept (%s).", path.parent, error.strerror or error)
    return assemble_array(shape, make) if found is None else found


def assemble_array(shape: tuple[int, int], make: Parts) -> UInt8[np.ndarray, "n c"]:
    """The array in memory."""
    array, row = np.empty(shape, np.uint8), 0
    for part in make():
        array[row : row + len(part)] = part
        row += len(part)
    return array


def _kept(path: Path, shape: tuple[int, int]) -> UInt8[np.ndarray, "n c"] | None:
    """The array of a file, None where there is none that is whole; says that it is used."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.uint8 and array.shape == shape else None


def _keep(path: Path, shape: tuple[int, int], make: Parts) -> None:
    """Writes the array, without ever having more than a part of it in memory."""
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
    """Removes the arrays that were not used for longest until `size` more bytes may be kept."""
    kept = sorted((file.stat().st_mtime_ns, file.stat().st_size, file) for file in place.glob("*.npy"))
    total = size + sum(length for _, length, _ in kept)
    for _, length, file in kept:
        if total <= MAX_CACHE_BYTES:
            return
        file.unlink(missing_ok=True)
        total -= length
