"""Compiled loops are kept on disk where they can be, run where they cannot, and are renewed with their sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from lumifield.runtime import jit

TRIPLE = """
from numba import prange

def triple(values):
    for i in prange(values.shape[0]):
        values[i] *= 3
"""
PROGRAM = """
import numpy as np
import triple
print(triple.triple.stats.cache_hits, triple.triple.stats.cache_misses)
values = np.ones(3)
triple.triple(values)
assert (values == triple.FACTOR).all()
print(sum(triple.triple.stats.cache_hits.values()))
"""


def test_without_a_place_for_the_cache_a_loop_is_compiled_all_the_same():
    names: dict[str, object] = {}
    exec(TRIPLE, names)  # a function without a file has no place
    triple = jit.loop(names["triple"])
    values = np.ones(4)
    triple(values)
    assert (values == 3).all()


def run(folder: Path, factor: int) -> int:
    """Runs a module with a cached loop that calls code elsewhere, and returns how often the cache served."""
    (folder / "factor.py").write_text(
        f"from lumifield.runtime.jit import inner\n@inner\ndef times(x):\n    return {factor} * x\n"
    )
    paths = os.pathsep.join([str(folder), *sys.path])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "FACTOR": str(factor)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def test_a_change_in_any_source_renews_the_cache(tmp_path: Path):
    (tmp_path / "triple.py").write_text(
        "import factor\n"
        "from numba import prange\n"
        "from lumifield.runtime import jit\n"
        "FACTOR = int(__import__('os').environ['FACTOR'])\n"
        "@jit.loop\n"
        "def triple(values):\n"
        "    for i in prange(values.shape[0]):\n"
        "        values[i] = factor.times(values[i])\n"
    )
    assert run(tmp_path, 3) == 0
    assert run(tmp_path, 3) == 1
    assert run(tmp_path, 4) == 0
