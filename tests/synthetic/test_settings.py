"""The settings: light to import, and checked before anything is written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lumifield.errors import DataError
from lumifield.synthetic import StillLife, synthesize_data


def test_the_settings_load_nothing_heavy():
    program = (
        "import sys, lumifield.synthetic; print([m for m in ('torch', 'numba', 'skimage', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, r"size: found 0"),
        ({"size": 30}, r"size: found 30"),
        ({"size": 36, "format": "multicam"}, r"size: found 36"),
        ({"train": 0}, r"train: found 0"),
        ({"test": -1}, r"test: found -1"),
        ({"samples": 0}, r"samples: found 0"),
    ],
)
def test_settings_that_make_no_scene_are_refused(tmp_path: Path, change: dict, message: str):
    with pytest.raises(DataError, match=f"still life: {message}"):
        synthesize_data(replace(StillLife(), **change), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
