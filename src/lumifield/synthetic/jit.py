"""Compilation of the tracer's loops, with a cache on disk where there is a place for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Rounding may be reordered and fused; NaN and infinity keep their meaning.
FAST = {"contract", "arcp", "nsz", "afn"}


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that compiled loops alone call: without the entries for Python and C, which take time to compile."""
    return numba.njit(fastmath=FAST, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """A parallel loop that Python calls, compiled once and kept on disk; once a process where no folder is writable."""
    options = {"parallel": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba finds no place for its cache
        return numba.njit(**options)(function)
