"""Monitoring and validation of meta-training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from lumifield.data import Source
from lumifield.data.scene_collection import Task
from lumifield.meta import MetaTrain
from lumifield.meta.few_shot import adapt_to_task, evenly_spaced_views, split_task
from lumifield.methods import Settings
from lumifield.runs.checkpoint import Validation
from lumifield.training.fit import TrainingState

LINE_EVERY_SECONDS = 20.0


@dataclass(frozen=True)
class MetaJob:
    """A method, the collection it is meta-trained on, the settings, and the run folder."""

    method: Settings
    source: Source
    meta: MetaTrain
    out: Path


@dataclass(frozen=True)
class OuterReport:
    """Result of one outer step: PSNR of the rays at the end of the inner loops [dB], completed fraction before it."""

    inner_psnr: float
    fraction: float


class MetaMonitor:
    """Prints progress and records the PSNR of the inner loops."""

    def __init__(self, job: MetaJob, writer: SummaryWriter, print_line: Callable[[str], None]) -> None:
        self._job, self._writer, self._print = job, writer, print_line
        self._shown = -math.inf

    def __call__(self, state: TrainingState, report: OuterReport) -> None:
        """Records an outer step."""
        seconds, fraction = state.clock.seconds, report.fraction
        self._writer.add_scalar("inner/psnr", report.inner_psnr, state.step)
        if seconds - self._shown > LINE_EVERY_SECONDS:
            self._shown = seconds
            left = f"{seconds / fraction * (1 - fraction):.0f}" if fraction > 0 else "?"
            per_minute = state.step * self._job.meta.meta_batch_size / seconds * 60
            self._print(
                f"outer step {state.step:6d}  inner psnr {report.inner_psnr:5.2f} dB  {per_minute:7.1f} tasks/min  "
                f"{seconds:5.0f} s  {left} s left"
            )


class TaskValidator:
    """Validates by few-shot adaptation to validation tasks."""

    def __init__(
        self, job: MetaJob, tasks: Sequence[Task], writer: SummaryWriter, print_line: Callable[[str], None]
    ) -> None:
        self._meta, self._writer, self._print = job.meta, writer, print_line
        self._parts = [split_task(task, job.meta.few_shot) for task in tasks]

    def __call__(self, state: TrainingState) -> Validation:
        """Scores the current initialization before and after adaptation."""
        meta = self._meta
        loop = replace(meta.few_shot.loop, steps=meta.validation_steps)
        before, after = [], []
        for support, held_out in self._parts:
            views = evenly_spaced_views(held_out, meta.num_validation_views)
            _, found = adapt_to_task(state.method, support, views, loop, seed=meta.seed, eval_steps=(0, loop.steps))
            before.append(found[0])
            after.append(found[loop.steps])
        state.method.train()
        value, start, seconds = sum(after) / len(after), sum(before) / len(before), state.clock.seconds
        self._writer.add_scalar("val/psnr", value, state.step)
        self._print(
            f"outer step {state.step}: validation psnr {start:.2f} dB, after {loop.steps} steps {value:.2f} dB, "
            f"at {seconds:.0f} s"
        )
        return Validation(state.step, seconds, state.rays, value, start)
