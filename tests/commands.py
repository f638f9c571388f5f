"""The command line called in this process, and what it leaves behind."""

from __future__ import annotations

import hashlib
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lumifield.cli import main

SENTENCE = re.compile(r"lumifield: [^\n]+: found [^\n]+, expected [^\n]+\. Fix: [^\n]+\.\n")
TINY = (
    *("--num-levels", "2", "--log2-hashmap-size", "10", "--hidden-dim", "8", "--occupancy-resolution", "8"),
    *("--samples-per-step", "64", "--bf16", "off", "--steps", "2"),
)


def called(*arguments: str | Path) -> None:
    """Runs a command."""
    main.main([str(argument) for argument in arguments])


def train(data: Path, out: Path, *options: str) -> tuple[str | Path, ...]:
    """The arguments of a training that takes a moment."""
    return "train", "instant", "--data", data, "--out", out, *TINY, *options


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one sentence that a command ends with, after checking its form and the exit code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        called(*arguments)
    said = capsys.readouterr().err
    assert SENTENCE.fullmatch(said), said
    assert stopped.value.code == 2
    return said


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below a folder, with a digest of what the files hold."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def files(folder: Path) -> dict[str, str]:
    """The files of `tree`."""
    return {name: content for name, content in tree(folder).items() if content != "folder"}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Inside, no file grows beyond `size` bytes, which a program sees as it sees a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
