from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "kernels.py"))


def test_every_kernel_is_timed_beside_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setitem(BENCHMARK["kernel_table"].__globals__, "SAMPLES", (128,))
    monkeypatch.setitem(BENCHMARK["kernel_table"].__globals__, "REPEATS", 1)
    rows = BENCHMARK["kernel_table"](torch.device("cpu"))
    assert len({row["kernel"] for row in rows}) == len(rows) == 8
    assert all(row["ms"] > 0 and row["reference_ms"] > 0 and row["difference"] < 1e-4 for row in rows)
    assert BENCHMARK["markdown"](rows).count("\n") == 10


def test_a_wrong_kernel_gets_no_row() -> None:
    def right() -> torch.Tensor:
        return torch.ones(3)

    def wrong() -> torch.Tensor:
        return torch.tensor([1.0, 1.0, 1.1])

    with pytest.raises(RuntimeError, match=r"the numba kernel differs from the reference by 0\.1"):
        BENCHMARK["compared"](wrong, right, "numba", torch.device("cpu"))


def test_a_device_without_a_fast_back_end_has_no_table() -> None:
    with pytest.raises(RuntimeError, match="no back end but the reference serves meta"):
        BENCHMARK["kernel_table"](torch.device("meta"))
