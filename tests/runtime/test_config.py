import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumifield.errors import DataError
from lumifield.methods import METHODS
from lumifield.methods.nerf import Nerf
from lumifield.optim import Optimizer
from lumifield.runtime.config import at_least, from_plain, mapping, read_json, to_plain

FILE = Path("config.json")


@dataclass(frozen=True)
class Inner:
    color: Literal["red", "blue"] = "red"
    pair: tuple[float, float] | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    share: float = 0.5
    on: bool = True
    place: Path | None = None
    steps: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)


FULL = Outer(3, 0.25, False, Path("/a/b"), (1, 2), Inner("blue", (0.5, 1.0)))
PLAIN = {
    "count": 3,
    "share": 0.25,
    "on": False,
    "place": "/a/b",
    "steps": [1, 2],
    "inner": {"color": "blue", "pair": [0.5, 1.0]},
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
        ({"cuont": 3}, "config.json: key is 'cuont', expected one of count, share, on, place, steps, inner; remove or"),
        ({"count": 3.5}, "config.json: count is 3.5, expected int; correct the value."),
        ({"count": True}, "count is True, expected int"),
        ({"share": "much"}, "share is 'much', expected float"),
        ({"share": True}, "share is True, expected float"),
        ({"on": 1}, "on is 1, expected bool"),
        ({"place": 3}, "place is 3, expected Path"),
        ({"steps": 3}, "steps is 3, expected tuple"),
        ({"steps": ["a"]}, "steps is 'a', expected int"),
        ({"inner": 3}, "inner is 3, expected Inner"),
        ({"inner": {"color": "green"}}, "color is 'green', expected 'red' or 'blue'"),
        ({"inner": {"color": ["red"]}}, "color is ['red'], expected 'red' or 'blue'"),
        ({"inner": {"color": "red"}}, "key is 'color', expected one of color, pair"),
        ({"inner": {"pair": [1.0]}}, "pair is [1.0], expected tuple"),
        ({"inner": {"pair": [1.0, 2.0, 3.0]}}, "pair is [1.0, 2.0, 3.0], expected tuple"),
        ({"count": None}, "count is None, expected int"),
    ],
)
def test_what_does_not_fit_is_an_error(changes, message):
    with pytest.raises(DataError) as caught:
        from_plain(Outer, {"count": 3, **changes}, FILE)
    assert message in str(caught.value)


def test_what_is_needed_is_asked_for():
    with pytest.raises(DataError, match="key is without 'count', expected one of type <class 'int'>; add it"):
        from_plain(Outer, {}, FILE)


@pytest.mark.parametrize("plain", [None, 3, "count", ["count"]])
def test_settings_are_an_object(plain):
    with pytest.raises(DataError, match=r"outer is .*, expected an object of settings; correct the value"):
        from_plain(Outer, plain, FILE)
    with pytest.raises(DataError, match=r"train is .*, expected an object of settings"):
        mapping(plain, FILE, "train")


def test_json_is_read_or_told_to_be_missing_unreadable_or_broken(tmp_path):
    file = tmp_path / "config.json"
    with pytest.raises(DataError, match=r"config.json: file is missing, expected a JSON file; check the path"):
        read_json(file)
    file.write_text('{\n"a": 1,\n}')
    with pytest.raises(DataError, match=r"config.json: JSON is broken at line 3 \(.*\), expected valid JSON; repair"):
        read_json(file)
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataError, match=r"config.json: file is unreadable"):
        read_json(file)
    with pytest.raises(DataError, match=r"file is unreadable"):
        read_json(tmp_path)
    file.write_text('{"a": "ä"}', encoding="utf-8")
    assert read_json(file) == {"a": "ä"}


def test_numbers_have_a_least_value():
    at_least(1, Nerf(), "width", "batch")
    with pytest.raises(DataError, match="nerf: batch is 0, expected at least 1; raise it"):
        Nerf(batch_size=0)
    with pytest.raises(DataError, match="nerf: noise is nan, expected at least 0"):
        Nerf(density_noise_std=float("nan"))


def test_no_setting_is_infinite():
    with pytest.raises(DataError, match="optimizer: lr is inf, expected a finite number; lower it"):
        Optimizer(lr=float("inf"))
