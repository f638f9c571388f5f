"""The comparison of grids and networks in benchmarks/instant_choices.py, on a toy scene."""

import json
import runpy
from pathlib import Path

from lumifield.methods import Instant
from scenes import written

BENCHMARK = Path(__file__).parents[2] / "benchmarks/instant_choices.py"
SMALL = {"log2_hashmap_size": 8, "hidden_dim": 8, "samples_per_step": 64, "occupancy_resolution": 8}


def test_each_choice_is_a_row_beside_the_first(tmp_path, capsys):
    script = runpy.run_path(str(BENCHMARK))
    assert all(hasattr(Instant(), name) for changed in script["CHOICES"].values() for name in changed)
    script["CHOICES"].clear()
    script["CHOICES"].update({"as it is": SMALL, "4 levels": {**SMALL, "num_levels": 4}})
    script["main"](written(tmp_path / "ball").data, seconds=0.2, out=tmp_path)
    first, second = json.loads((tmp_path / "instant_choices.json").read_text())["rows"]
    assert first["parameters"] > second["parameters"]
    table = (tmp_path / "instant_choices.md").read_text()
    assert f"{second['psnr'] - first['psnr']:+.2f} |" in table
    assert table in capsys.readouterr().out
