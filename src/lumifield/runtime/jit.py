"""Compilation of loops, with a cache on disk where there is a place for one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, update_wrapper
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import numba

# Rounding may be reordered and fused; NaN and infinity keep their meaning.
OPTIONS: dict[str, Any] = {"fastmath": {"contract", "arcp", "nsz", "afn"}, "error_model": "numpy"}
WITHOUT_ENTRIES: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@cache
def digest(folder: Path) -> str:
    """A digest of the sources in a folder."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that compiled loops alone call: without the entries for Python and C, which take time to compile."""
    return numba.njit(**OPTIONS, **WITHOUT_ENTRIES)(function)


def loop(function: FunctionType) -> Callable[..., Any]:
    """A parallel loop that Python calls, compiled once and kept on disk; once a process where no folder is writable."""
    try:
        return numba.njit(parallel=True, cache=True, **OPTIONS)(stamped(function))
    except RuntimeError:  # numba finds no place for its cache
        return numba.njit(parallel=True, **OPTIONS)(function)


def stamped(function: FunctionType) -> FunctionType:
    """The same function with a digest of its folder's sources in its closure, which is part of numba's cache key.

    By itself the cache notices changes in the function's own file, not in those of the functions that it calls.
    """
    code = function.__code__.replace(co_freevars=("sources",))
    same = FunctionType(code, function.__globals__, closure=(CellType(digest(Path(code.co_filename).parent)),))
    update_wrapper(same, function)
    return same
