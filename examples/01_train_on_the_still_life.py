"""Train from Python: make a small still life, learn it for some steps, score its test views.

Settings are frozen dataclasses. `Job` says what is trained, on what, how long and where the run goes.
"""

from pathlib import Path

import tyro
from rich.console import Console

from lumifield.data import Source
from lumifield.evaluation.evaluate import evaluate
from lumifield.methods import Instant
from lumifield.runs.run_folder import load_run
from lumifield.synthetic import StillLife, write
from lumifield.training import Train
from lumifield.training.job import TrainingJob, run_training


def main(folder: Path = Path("runs/example"), size: int = 96, steps: int = 500) -> None:
    """Leaves FOLDER/still-life and FOLDER/run."""
    scene, run = folder / "still-life", folder / "run"
    if not scene.exists():
        write(StillLife(size=size, train=30, val=4, test=4), scene)
    job = TrainingJob(method=Instant(), source=Source(scene), train=Train(steps=steps), out=run)
    run_training(job, console=Console())
    metrics = evaluate(load_run(run))
    print(f"psnr {metrics['psnr']:.2f} dB over {metrics['n_images']} test views, see {run / 'eval/test/report.html'}")


if __name__ == "__main__":
    tyro.cli(main)
