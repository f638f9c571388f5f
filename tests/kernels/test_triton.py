from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")


LAUNCHED = {
    "_encode",
    "_encode_points_gradient",
    "_encode_table_gradient",
    "_march",
    "_packed_weights",
    "_packed_weights_gradient",
    "_segment_sum",
    "_spread",
}


@pytest.mark.slow
def test_every_kernel_compiles_for_hopper(tmp_path: Path) -> None:
    """Its interpreter accepts what the compiler refuses; the compiler needs no GPU."""
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas").exists():
        pytest.skip("this Triton comes without NVIDIA's assembler")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "compile_for_hopper.py")],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    assert {entry["kernel"] for entry in compiled} == LAUNCHED
    assert all(entry["bytes"] > 1000 for entry in compiled)


def test_nothing_is_launched_without_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of zero programs is an error on a GPU."""
    from lumifield.kernels import triton_backend

    launches = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            return lambda *_, **__: launches.append(grid)

    triton_backend._launch(Kernel(), (0,), torch.zeros(0))
    triton_backend._launch(Kernel(), (0, 3), torch.zeros(0))
    assert launches == []
    triton_backend._launch(Kernel(), (2, 3), torch.zeros(0))
    assert launches == [(2, 3)]
