"""Every test of the kernels runs with unwritten memory full of NaN, and, where it asks for it, on each back end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from loops import Backend

from lumifield import kernels


@pytest.fixture(autouse=True)
def _poisoned(poisoned: None) -> None:
    """Scratch memory is never clean."""


@pytest.fixture(params=["reference", "numba", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each back end in turn, on the device that it serves."""
    yield from _forced(request.param)


@pytest.fixture(params=["numba", "triton"])
def fast(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each back end but the reference."""
    yield from _forced(request.param)


def _forced(name: str) -> Iterator[Backend]:
    state = kernels.available()[name]
    if state.startswith("missing"):
        pytest.skip(f"{name} kernels: {state}")
    with kernels.backend(name):
        yield Backend(name, "cuda" if name == "triton" and torch.cuda.is_available() else "cpu")
