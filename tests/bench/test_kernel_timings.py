from __future__ import annotations

import pytest
import torch

from lumifield.bench import kernel_timings


def test_every_kernel_is_timed_beside_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(kernel_timings, "SAMPLES", (128,))
    monkeypatch.setattr(kernel_timings, "REPEATS", 1)
    rows = kernel_timings.time_kernels(torch.device("cpu"))
    assert len({row["kernel"] for row in rows}) == len(rows) == 8
    assert all(row["ms"] > 0 and row["reference_ms"] > 0 and row["difference"] < 1e-4 for row in rows)
    assert kernel_timings.format_timings(rows).count("\n") == 10


def test_a_wrong_kernel_gets_no_row() -> None:
    def right() -> torch.Tensor:
        return torch.ones(3)

    def wrong() -> torch.Tensor:
        return torch.tensor([1.0, 1.0, 1.1])

    with pytest.raises(RuntimeError, match=r"the numba kernel differs from the reference by 0\.1"):
        kernel_timings.time_pair(wrong, right, "numba", torch.device("cpu"))


def test_a_device_without_a_fast_back_end_has_no_table() -> None:
    with pytest.raises(RuntimeError, match="only the reference kernels run on meta"):
        kernel_timings.time_kernels(torch.device("meta"))
