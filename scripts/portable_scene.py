"""Writes examples/still_life.zip: the still life as a portable scene, trained with a small hash grid.

Run `lumifield synthesize-data still-life --out demo/still-life`, then `python scripts/portable_scene.py`. It prints the
file size and the PSNR, and fails if the file exceeds two megabytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import tyro
from rich.console import Console

from lumifield.data import Source
from lumifield.evaluation.evaluate import evaluate
from lumifield.export import WeightsExport
from lumifield.methods import Instant
from lumifield.runs.run_folder import read_run
from lumifield.training import Train
from lumifield.training.job import TrainingJob, run_training

SMALL = Instant(log2_hashmap_size=15, hidden_dim=32, occupancy_resolution=64)
MAX_BYTES = 2_000_000


def main(data: Path = Path("demo/still-life"), out: Path = Path("examples/still_life.zip"), steps: int = 2000) -> None:
    """Trains on DATA for this number of steps and writes OUT."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_training(
            TrainingJob(SMALL, Source(data), Train(steps=steps), Path(folder) / "run"), console=Console()
        )
        WeightsExport(half=True).write(read_run(run), out)
        psnr = evaluate(read_run(run), "test", save_images=False).psnr
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB, {psnr:.2f} dB on the test views")
    if out.stat().st_size > MAX_BYTES:
        raise SystemExit("too large: lower log2_hashmap_size or occupancy_resolution")


if __name__ == "__main__":
    tyro.cli(main)
