"""Long measurements that continue where they were stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumifield.runs.run_folder import STATE, SUMMARY, LoadedRun, read_run, write_json
from lumifield.runtime.config import read_json
from lumifield.training.job import TrainingJob, run_training


def train_or_resume(job: TrainingJob) -> LoadedRun:
    """The run of a job with `minutes`: loaded if complete, else resumed or trained."""
    if not is_complete(job):
        run_training(job, resume=(job.out / STATE).is_file())
    if not is_complete(job):
        raise SystemExit(f"{job.out}: stopped early; run the same command to resume")
    return read_run(job.out)


def is_complete(job: TrainingJob) -> bool:
    """Whether a run was trained for its minutes."""
    summary = job.out / SUMMARY
    assert job.settings.minutes is not None
    return summary.is_file() and read_json(summary)["seconds"] >= 60 * job.settings.minutes


def read_or_measure(record: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result in `record`, measured and written first if there is none."""
    if not record.is_file():
        write_json(record, measure())
    return read_json(record)
