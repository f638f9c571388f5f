"""Compilation of loops by numba, cached on disk if a cache folder is writable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, update_wrapper
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import numba

# Operations may be reordered and fused; NaN and infinity are preserved.
OPTIONS: dict[str, Any] = {"fastmath": {"contract", "arcp", "nsz", "afn"}, "error_model": "numpy"}
WITHOUT_ENTRIES: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@cache
def digest(folder: Path) -> str:
    """A digest of the source files in a folder."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that only compiled loops call: no entry points for Python and C, which take time to compile."""
    return numba.njit(**OPTIONS, **WITHOUT_ENTRIES)(function)


def loop(function: FunctionType) -> Callable[..., Any]:
    """A parallel loop called from Python, compiled once and cached on disk, or once per process if no folder is
    writable."""
    try:
        return numba.njit(parallel=True, cache=True, **OPTIONS)(with_source_digest(function))
    except RuntimeError:  # numba finds no writable cache folder
        return numba.njit(parallel=True, **OPTIONS)(function)


def with_source_digest(function: FunctionType) -> FunctionType:
    """The same function with a digest of the source files of its folder in its closure, part of the cache key of numba.

    numba itself notices changes in the file of a function, but not in those of the functions that it calls.
    """
    code = function.__code__.replace(co_freevars=("sources",))
    same = FunctionType(code, function.__globals__, closure=(CellType(digest(Path(code.co_filename).parent)),))
    update_wrapper(same, function)
    return same
