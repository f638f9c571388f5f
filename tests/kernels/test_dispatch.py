from __future__ import annotations

import pytest
import torch
from loops import OFFSETS, RESOLUTIONS, Backend, packed

from lumifield import kernels
from lumifield.errors import DataError


@pytest.fixture(autouse=True)
def _unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUMIFIELD_KERNELS", raising=False)


def test_unwritten_memory_is_nan() -> None:
    """The guard under which every test of the kernels runs."""
    assert torch.empty(3).isnan().all()
    assert torch.empty_like(torch.zeros(3)).isnan().all()
    assert torch.zeros(1).new_empty(3).isnan().all()
    assert torch.empty(3, dtype=torch.int64).lt(0).all()


def test_each_device_has_its_back_end() -> None:
    pytest.importorskip("numba")
    assert kernels.live("cpu") == "numba"
    assert kernels.live("meta") == "reference"


def test_a_back_end_is_forced_inside_the_block_only() -> None:
    before = kernels.live("cpu")
    with kernels.backend("reference"):
        with kernels.backend("triton"):
            assert kernels.live("cpu") == "triton"
        assert kernels.live("cpu") == "reference"
    with pytest.raises(KeyError), kernels.backend("reference"):
        raise KeyError
    assert kernels.live("cpu") == before


def test_the_environment_forces_a_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIFIELD_KERNELS", "reference")
    assert kernels.live("cpu") == "reference"


def test_an_unknown_back_end_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIFIELD_KERNELS", "nubma")
    with pytest.raises(DataError, match=r"LUMIFIELD_KERNELS: value: found 'nubma'"):
        kernels.segment_sum(torch.ones(3, 1), packed(3))


def test_a_missing_back_end_is_replaced_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_module", lambda name: f"No module named '{name}'")
    assert kernels.live("cpu") == "reference"
    assert kernels.available() == {
        "reference": "ready",
        "numba": "missing: No module named 'numba'",
        "triton": "missing: No module named 'triton'",
    }
    with (
        kernels.backend("numba"),
        pytest.raises(DataError, match=r"backend: found numba, which is unavailable here \(No module named 'numba'\)"),
    ):
        kernels.segment_sum(torch.ones(3, 1), packed(3))


@pytest.mark.parametrize("operator", ["grid_encode", "packed_weights", "segment_sum"])
def test_operators_are_registered_soundly(fast: Backend, operator: str, generator: torch.Generator) -> None:
    """Schema, gradients and shapes as PyTorch's own checks want them."""
    offsets = packed(63).to(fast.device)
    points = torch.rand(63, 3, generator=generator).to(fast.device).requires_grad_()
    table = torch.rand(OFFSETS[-1], 2, generator=generator).to(fast.device).requires_grad_()
    arguments = {
        "grid_encode": (points, table, RESOLUTIONS, OFFSETS),
        "packed_weights": (points[:, 0].detach().requires_grad_(), offsets),
        "segment_sum": (points, offsets),
    }
    torch.library.opcheck(getattr(torch.ops.lumifield, operator).default, arguments[operator])
