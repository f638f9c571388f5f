"""Long measurements in pieces: what a benchmark has made already it does not make again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumifield.runs.run_folder import STATE, SUMMARY, LoadedRun, read_run
from lumifield.runtime.config import read_json
from lumifield.runtime.files import write_json
from lumifield.training.job import TrainingJob, run_training


def trained(job: TrainingJob) -> LoadedRun:
    """The run of a job that states its minutes: as it lies there, gone on with from its checkpoint, or begun."""
    if not whole(job):
        run_training(job, resume=(job.out / STATE).is_file())
    if not whole(job):
        raise SystemExit(f"{job.out}: stopped early; the same command goes on")
    return read_run(job.out)


def whole(job: TrainingJob) -> bool:
    """Whether a run has had its minutes."""
    summary = job.out / SUMMARY
    assert job.settings.minutes is not None
    return summary.is_file() and read_json(summary)["seconds"] >= 60 * job.settings.minutes


def once(record: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is measured, from its record where there is one."""
    if not record.is_file():
        write_json(record, measure())
    return read_json(record)
