"""`lumifield bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lumifield.data import Source


@dataclass(frozen=True)
class BenchCommand:
    """Measure training speed against a plain NeRF step, and the time to reach a PSNR, in one run."""

    name: Positional[Literal["cpu", "gpu"]]
    """Device to measure."""
    source: Annotated[Source, arg(name="")]
    minutes: float = 5.0
    """Training time [minutes]."""
    seed: int = 0
    """Seed of all random numbers."""
    out: Path = Path("benchmarks/results")
    """Folder to write NAME.json and NAME.md to."""

    def run(self) -> None:
        """Measures."""
        from lumifield.bench.benchmark import format_benchmark, run_benchmark

        print(format_benchmark(run_benchmark(self.source, self.minutes, self.seed, self.out, self.name)))
