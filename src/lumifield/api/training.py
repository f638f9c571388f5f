"""Training from Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lumifield.api.capture import resolve_source
from lumifield.api.run import Run, open_run
from lumifield.data import Source
from lumifield.meta import MetaTrain
from lumifield.methods import Instant, Settings, SimpleNerf
from lumifield.training import Train
from lumifield.training.fit import Callback
from lumifield.training.job import TrainingJob, run_training


def train(
    data: str | os.PathLike[str] | Source,
    method: Settings | None = None,
    *,
    out: str | os.PathLike[str],
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    downscale: int | None = None,
    device: str | None = None,
    settings: Train | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool | None = None,
) -> Run:
    """Trains a method (`Instant()` by default) on a capture and returns the run, which is saved in `out`.

    `minutes`, `steps`, `seed` and `device` replace those of `settings`. Progress is printed on a terminal and not
    otherwise, unless `quiet` is set. Raises `DataError` for unusable data or settings and `TrainingError` if training
    diverges.
    """
    changes = {"minutes": minutes, "steps": steps, "seed": seed, "device": device}
    changes = {name: value for name, value in changes.items() if value is not None}
    job = TrainingJob(
        Instant() if method is None else method,
        resolve_source(data, downscale=downscale),
        replace(settings or Train(), **changes),
        Path(out),
    )
    run_training(job, resume=resume, console=progress_console(quiet), callbacks=callbacks)
    return open_run(job.out, device=job.settings.device)


def meta_train(
    data: str | os.PathLike[str] | Source,
    method: Settings | None = None,
    *,
    out: str | os.PathLike[str],
    settings: MetaTrain | None = None,
    resume: bool = False,
    quiet: bool | None = None,
) -> Path:
    """Meta-learns an initialization of a method (`SimpleNerf()` by default) over a collection of scenes.

    Returns the run folder `out`, which `Train.init` takes. Raises `DataError` for unusable data or settings.
    """
    from lumifield.meta.meta_training import MetaJob, run_meta_training

    method = SimpleNerf() if method is None else method
    job = MetaJob(method, resolve_source(data), settings or MetaTrain(), Path(out))
    return run_meta_training(job, resume=resume, console=progress_console(quiet))


def progress_console(quiet: bool | None) -> Console:
    """A console that prints on a terminal only, unless `quiet` is given."""
    return Console(quiet=not sys.stdout.isatty() if quiet is None else quiet)
