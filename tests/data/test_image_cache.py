import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lumifield.data import image_cache
from lumifield.data.image_cache import cached_array


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("LUMIFIELD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Gives `count` rows of `value` in two parts, and counts how often it is asked."""

    def __init__(self, value: int, count: int = 5) -> None:
        self.value, self.count, self.asked = value, count, 0

    def __call__(self):
        self.asked += 1
        whole = np.full((self.count, 3), self.value, np.uint8)
        yield whole[:2]
        yield whole[2:]


def test_an_array_is_made_once(place):
    first, second = Maker(7), Maker(8)
    assert (cached_array(("a", 1), (5, 3), first) == 7).all()
    assert (cached_array(("a", 1), (5, 3), second) == 7).all()
    assert (first.asked, second.asked) == (1, 0)
    assert isinstance(cached_array(("a", 1), (5, 3), second), np.memmap)
    assert [path.suffix for path in place.iterdir()] == [".npy"]


@pytest.mark.parametrize("other", [("a", 2), ("a", "1"), ("a", 1.5), ("a", 1, None), ("b", 1)])
def test_other_keys_are_other_arrays(other):
    assert (cached_array(("a", 1), (5, 3), Maker(7)) == 7).all()
    assert (cached_array(other, (5, 3), Maker(8)) == 8).all()


def test_what_is_written_to_it_stays_in_the_process():
    cached_array(("a",), (5, 3), Maker(7))[:] = 0
    assert (cached_array(("a",), (5, 3), Maker(8)) == 7).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"x" * 200),
        lambda path: np.save(path, np.zeros((5, 4), np.uint8)),
        lambda path: np.save(path, np.zeros((5, 3))),
        lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    ],
)
def test_files_that_are_no_such_array_are_made_again(place, damage):
    cached_array(("a",), (5, 3), Maker(7))
    damage(next(place.iterdir()))
    assert (cached_array(("a",), (5, 3), Maker(8)) == 8).all()
    assert (cached_array(("a",), (5, 3), Maker(9)) == 8).all()


def test_nothing_stays_of_a_broken_attempt(place):
    def broken():
        yield np.zeros((2, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_array(("a",), (5, 3), broken)
    assert list(place.iterdir()) == []


def test_a_place_that_cannot_be_written_is_no_mistake(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUMIFIELD_CACHE", str(tmp_path / "file" / "below"))
    array = cached_array(("a",), (5, 3), Maker(7))
    assert (array == 7).all()
    assert "below: decoded images are not cached (Not a directory)." in caplog.text


def test_the_least_recently_used_go_first(place, monkeypatch):
    monkeypatch.setattr(image_cache, "MAX_CACHE_BYTES", 600)
    for number in range(3):
        cached_array((number,), (5, 3), Maker(number))
        newest = max(place.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number + 1, number + 1))
    assert len(list(place.iterdir())) == 3
    cached_array((0,), (5, 3), Maker(9))
    cached_array((3,), (100, 3), Maker(3, 100))
    kept = [bool((cached_array((number,), (5, 3), Maker(9)) != 9).all()) for number in (0, 2, 1)]
    assert kept == [True, True, False]


def test_two_processes_at_once(place):
    code = (
        f"import numpy as np, sys; sys.path[:0] = {sys.path!r}; from lumifield.data.image_cache import cached_array;"
        "print(int(cached_array(('a',), (9000, 3), lambda: (np.full((3000, 3), 7, np.uint8) for _ in range(3))).min()))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["7\n", "7\n"]
    assert [path.suffix for path in place.iterdir()] == [".npy"]


def test_places_of_the_platform(monkeypatch):
    monkeypatch.delenv("LUMIFIELD_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(sys, "platform", "linux")
    assert image_cache.folder() == Path("/home/somebody/.cache/lumifield")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert image_cache.folder() == Path("/fast/lumifield")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert image_cache.folder() == Path("/home/somebody/Library/Caches/lumifield")
