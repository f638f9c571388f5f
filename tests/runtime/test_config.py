import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumifield.errors import DataError
from lumifield.export import WebExport
from lumifield.methods import METHODS
from lumifield.methods.nerf import Nerf
from lumifield.optim import Optimizer
from lumifield.runtime.config import check_min, from_plain, mapping, read_json, to_plain

FILE = Path("config.json")


@dataclass(frozen=True)
class Inner:
    color: Literal["red", "blue"] = "red"
    pair: tuple[float, float] | None = None
    size: Literal["auto"] | int = "auto"


@dataclass(frozen=True)
class Outer:
    count: int
    share: float = 0.5
    on: bool = True
    place: Path | None = None
    steps: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)


FULL = Outer(3, 0.25, False, Path("/a/b"), (1, 2), Inner("blue", (0.5, 1.0), 7))
PLAIN = {
    "count": 3,
    "share": 0.25,
    "on": False,
    "place": "/a/b",
    "steps": [1, 2],
    "inner": {"color": "blue", "pair": [0.5, 1.0], "size": 7},
}


def test_settings_become_plain_json_and_come_back():
    assert to_plain(FULL) == PLAIN
    assert from_plain(Outer, json.loads(json.dumps(PLAIN)), FILE) == FULL


@given(st.integers(), st.floats(allow_nan=False), st.booleans(), st.lists(st.integers()))
def test_any_settings_come_back(count, share, on, steps):
    settings = Outer(count, share, on, None, tuple(steps))
    assert from_plain(Outer, json.loads(json.dumps(to_plain(settings))), FILE) == settings


@pytest.mark.parametrize("kind", METHODS.values())
def test_the_settings_of_every_method_come_back(kind):
    assert from_plain(kind, json.loads(json.dumps(to_plain(kind()))), FILE) == kind()


def test_what_is_left_out_has_its_default():
    assert from_plain(Outer, {"count": 3, "inner": {"pair": None}}, FILE) == Outer(3)


def test_whole_numbers_serve_as_floats():
    share = from_plain(Outer, {"count": 3, "share": 1}, FILE).share
    assert (share, type(share)) == (1.0, float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cuont": 3}, "config.json: key: found 'cuont'"),
        ({"count": 3.5}, "config.json: count: found 3.5"),
        ({"count": True}, "count: found True"),
        ({"share": "much"}, "share: found 'much'"),
        ({"share": True}, "share: found True"),
        ({"on": 1}, "on: found 1"),
        ({"place": 3}, "place: found 3"),
        ({"steps": 3}, "steps: found 3"),
        ({"steps": ["a"]}, "steps: found 'a'"),
        ({"inner": 3}, "inner: found 3"),
        ({"inner": {"color": "green"}}, "color: found 'green'"),
        ({"inner": {"color": ["red"]}}, "color: found ['red']"),
        ({"inner": {"hue": "red"}}, "key: found 'hue'"),
        ({"inner": {"pair": [1.0]}}, "pair: found [1.0]"),
        ({"inner": {"pair": [1.0, 2.0, 3.0]}}, "pair: found [1.0, 2.0, 3.0]"),
        ({"count": None}, "count: found None"),
    ],
)
def test_what_does_not_fit_is_an_error(changes, message):
    with pytest.raises(DataError) as caught:
        from_plain(Outer, {"count": 3, **changes}, FILE)
    assert message in str(caught.value)


def test_what_is_needed_is_asked_for():
    with pytest.raises(DataError, match=r"key: found no 'count'"):
        from_plain(Outer, {}, FILE)


@pytest.mark.parametrize("plain", [None, 3, "count", ["count"]])
def test_settings_are_an_object(plain):
    with pytest.raises(DataError, match=r"outer: found .*"):
        from_plain(Outer, plain, FILE)
    with pytest.raises(DataError, match=r"train: found .*"):
        mapping(plain, FILE, "train")


def test_json_is_read_or_told_to_be_missing_unreadable_or_broken(tmp_path):
    file = tmp_path / "config.json"
    with pytest.raises(DataError, match=r"config.json: file: found nothing"):
        read_json(file)
    file.write_text('{\n"a": 1,\n}')
    with pytest.raises(
        DataError,
        match=r"config.json: JSON: found an error in line 3 \(Expecting property name enclosed in double quotes\)",
    ):
        read_json(file)
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(
        DataError, match=r"config.json: file: found an unreadable file \('utf-8' codec can't decode byte 0xff in "
    ):
        read_json(file)
    with pytest.raises(DataError, match=r"file: found"):
        read_json(tmp_path)
    file.write_text('{"a": "ä"}', encoding="utf-8")
    assert read_json(file) == {"a": "ä"}


def test_numbers_have_a_minimum():
    check_min(Nerf(), hidden_dim=1, batch_size=1)
    with pytest.raises(DataError, match="nerf: batch_size: found 0"):
        Nerf(batch_size=0)
    with pytest.raises(DataError, match="nerf: density_noise_std: found nan"):
        Nerf(density_noise_std=float("nan"))
    with pytest.raises(DataError, match="web-export: num_rays: found 0"):
        WebExport(num_rays=0)


def test_no_setting_is_infinite():
    with pytest.raises(DataError, match="optimizer: lr: found inf"):
        Optimizer(lr=float("inf"))
