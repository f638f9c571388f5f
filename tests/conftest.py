"""Shared fixtures. Without a CUDA device Triton runs in its interpreter, which it decides when first imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from commands import refusal, tree

# The same examples in every run, however slow the machine.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Images are kept in a folder of the tests'."""
    os.environ["LUMIFIELD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written holds NaN, or the lowest integer."""

    def fill(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def filled(*args: object, **kwargs: object) -> Tensor:
            memory = make(*args, **kwargs)
            if memory.dtype == torch.bool:
                return memory
            return memory.fill_(torch.nan if memory.is_floating_point() else torch.iinfo(memory.dtype).min)

        return filled

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, fill(getattr(owner, name)))


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that has to be refused without a trace below `tmp_path`; returns what it says."""

    def run(*arguments: str | Path) -> str:
        before = tree(tmp_path)
        said = refusal(capsys, *arguments)
        assert tree(tmp_path) == before
        return said

    return run
