"""Every benchmark starts: its names exist in the package, and it describes its options."""

import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LIBRARIES = {"rasterizer.py", "resumable.py"}
"""Modules that benchmarks import."""
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name not in LIBRARIES)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_describes_its_options(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("sys.argv", [script, "--help"])
    with pytest.raises(SystemExit) as exit_status:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    assert exit_status.value.code == 0
    assert "usage:" in capsys.readouterr().out
