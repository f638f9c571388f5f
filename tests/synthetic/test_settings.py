"""Settings of synthetic datasets: light to import, and validated before anything is written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lumifield.synthetic import ObjectCaptures, StillLife, Tourists, synthesize_data
from refusals import refuses


def test_importing_the_settings_loads_no_heavy_module():
    program = (
        "import sys, lumifield.synthetic; print([m for m in ('torch', 'numba', 'skimage', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (StillLife(), "image_width", 0),
        (StillLife(), "image_width", 30),
        (StillLife(format="multicam"), "image_width", 36),
        (StillLife(), "num_train", 0),
        (StillLife(), "num_test", -1),
        (StillLife(), "samples_per_pixel", 0),
        (Tourists(), "image_width", 30),
        (Tourists(), "num_train", 1),
        (Tourists(), "num_test", -1),
        (Tourists(), "samples_per_pixel", 0),
        (ObjectCaptures(), "num_objects", 0),
        (ObjectCaptures(), "azimuth_range", 0.0),
        (ObjectCaptures(), "azimuth_range", 361.0),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, settings, field: str, value: float):
    with refuses(field, f"{value:g}", path="synthesize-data"):
        synthesize_data(replace(settings, **{field: value}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
