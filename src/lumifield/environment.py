"""Process-wide settings that make training on a CPU fast: how threads wait and how freed memory is kept."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Literal, get_args

from lumifield.errors import DataError

BF16_VARIABLE = "LUMIFIELD_BF16"
KERNELS_VARIABLE = "LUMIFIELD_KERNELS"
Backend = Literal["reference", "numba", "triton"]


def configure_process() -> None:
    """Sets how OpenMP threads wait, which torch reads when it is first imported, and keeps freed memory in the process.

    Variables that are set in the environment are left alone.
    """
    # Threads that spin while waiting slow down a busy machine many times; threads that sleep at once wake up late for
    # each of many small matrix products. GNU OpenMP spins for microseconds, others do not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    keep_freed_memory()


def validate_environment() -> None:
    """Raises `DataError` for a LUMIFIELD_ variable with an unknown value, before any work is done."""
    forced_bf16()
    forced_kernels()


def forced_bf16() -> bool | None:
    """Whether LUMIFIELD_BF16 forces bfloat16 on (1) or off (0); None if it is unset or auto."""
    value = os.environ.get(BF16_VARIABLE, "")
    if value not in ("", "auto", "0", "1"):
        raise DataError(BF16_VARIABLE, "value", repr(value), "auto, 0 or 1", "unset it to let a benchmark decide")
    return None if value in ("", "auto") else value == "1"


def forced_kernels() -> Backend | None:
    """Backend that LUMIFIELD_KERNELS forces; None if it is unset."""
    value = os.environ.get(KERNELS_VARIABLE, "")
    if value and value not in get_args(Backend):
        expected = f"one of {', '.join(get_args(Backend))}"
        raise DataError(KERNELS_VARIABLE, "value", repr(value), expected, "unset it to let the device decide")
    return value or None  # type: ignore[return-value]


def keep_freed_memory() -> None:
    """Makes glibc reuse the memory that a training step frees instead of mapping new pages for the next step."""
    trim_threshold, mmap_threshold = -1, -3  # parameters of mallopt in malloc.h; 32 MiB is the largest mmap threshold
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)
        libc.mallopt(trim_threshold, 2**31 - 1)
