from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")
HERE = Path(__file__).parent

# What a read-only installation and a home that does not exist look like to numba, also for root.
WITHOUT_CACHE = """
import torch
from numba.core import caching

def refuse(self):
    raise PermissionError(self.get_cache_path())

caching._CacheLocator.ensure_cache_path = refuse
from lumifield import kernels

sums = kernels.segment_sum(torch.ones(3, 1), torch.tensor([0, 2, 3]))
print(sums.tolist(), kernels.available()["numba"])
"""


def run(arguments: list[str], **environment: str) -> str:
    """The output of a fresh Python process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "LUMIFIELD_"))}
    done = subprocess.run(
        [sys.executable, *arguments], env=inherited | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_results_depend_neither_on_threads_nor_on_their_layer() -> None:
    script = str(HERE / "numba_digest.py")
    one = json.loads(run([script], NUMBA_NUM_THREADS="1"))
    two = json.loads(run([script], NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="workqueue"))
    assert one["digest"] == two["digest"]
    assert "1 threads" in one["state"]
    assert "workqueue, 2 threads" in two["state"]


@pytest.mark.slow
def test_kernels_work_where_nothing_can_be_cached(tmp_path: Path) -> None:
    output = run(["-c", WITHOUT_CACHE], HOME=str(tmp_path / "missing"))
    assert output.startswith("[[2.0], [1.0]]")
    assert "compiled in each process" in output
