"""A folder appears whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lumifield.errors import DataError
from lumifield.runtime.folders import fresh_folder


def test_the_folder_appears_at_the_end(tmp_path: Path):
    out = tmp_path / "a" / "b"
    with fresh_folder(out) as folder:
        (folder / "file").write_text("x")
        assert not out.exists()
    assert (out / "file").read_text() == "x"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    (tmp_path / "ordinary").mkdir()
    assert out.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_an_empty_folder_is_taken(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with fresh_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
    assert (tmp_path / "out" / "file").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_stays_of_a_broken_attempt(tmp_path: Path, error: type[BaseException]):
    def attempt() -> None:
        with fresh_folder(tmp_path / "out") as folder:
            (folder / "file").touch()
            raise error

    with pytest.raises(error):
        attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path: Path):
    with (
        pytest.raises(DataError, match=r"out: output folder: found an error \(No space left on device\)"),
        fresh_folder(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=r"output folder: found a folder that is not empty"):
        fresh_folder(tmp_path).__enter__()
    with pytest.raises(DataError, match=r"output folder: found a file"):
        fresh_folder(tmp_path / "file").__enter__()
    with pytest.raises(DataError, match=r"output folder: found an error \(Not a directory\)"):
        fresh_folder(tmp_path / "file" / "below" / "out").__enter__()
    assert (tmp_path / "file").read_text() == "mine"
