"""Monitoring, validation and checkpoints of meta-training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from lumifield.data import Source
from lumifield.data.scene_collection import Task
from lumifield.meta import MetaTrain
from lumifield.meta.few_shot import adapt_to_task, evenly_spaced_views, split_task
from lumifield.methods import Settings
from lumifield.runs import run_folder
from lumifield.training.checkpoint import capture_state
from lumifield.training.fit import TrainingState

LINE_EVERY_SECONDS = 20.0


@dataclass(frozen=True)
class MetaJob:
    """A method, the collection it is meta-trained on, the settings, and the run folder."""

    method: Settings
    source: Source
    meta: MetaTrain
    out: Path


class MetaMonitor:
    """Prints progress, validates by few-shot adaptation, and saves the best weights and the last state."""

    def __init__(
        self, job: MetaJob, val: Sequence[Task], history: list[dict[str, Any]], writer: SummaryWriter, console: Console
    ) -> None:
        self._job, self._writer, self._console, self.history = job, writer, console, history
        self._parts = [split_task(task, job.meta.few_shot) for task in val]
        self._shown, self._last_step = -math.inf, -1

    @property
    def best(self) -> float:
        """Best validation PSNR so far [dB], minus infinity before the first validation."""
        return max((entry["psnr"] for entry in self.history), default=-math.inf)

    def __call__(self, state: TrainingState, inner_psnr: float, fraction: float) -> None:
        """Records an outer step; validates and saves if due."""
        meta, seconds = self._job.meta, state.clock.seconds
        self._writer.add_scalar("inner/psnr", inner_psnr, state.step)
        if seconds - self._shown > LINE_EVERY_SECONDS:
            self._shown = seconds
            left = f"{seconds / fraction * (1 - fraction):.0f}" if fraction > 0 else "?"
            per_minute = state.step * meta.meta_batch_size / seconds * 60
            self._print(
                f"outer step {state.step:6d}  inner psnr {inner_psnr:5.2f} dB  {per_minute:7.1f} tasks/min  "
                f"{seconds:5.0f} s  {left} s left"
            )
        if meta.validate_every and state.step % meta.validate_every == 0:
            self.validate(state)
        if meta.save_every and state.step % meta.save_every == 0:
            self.save(state)

    def validate(self, state: TrainingState) -> None:
        """Adapts to the validation tasks and saves the weights if they are the best, or always without tasks."""
        if not self._parts:
            run_folder.write_tensors(self._job.out / run_folder.WEIGHTS, state.method.state_dict())
        if not self._parts or self._last_step == state.step:
            return
        self._last_step = state.step
        meta = self._job.meta
        loop = replace(meta.few_shot.loop, steps=meta.validation_steps)
        before, after = [], []
        for support, held_out in self._parts:
            views = evenly_spaced_views(held_out, meta.num_validation_views)
            _, found = adapt_to_task(state.method, support, views, loop, seed=meta.seed, eval_steps=(0, loop.steps))
            before.append(found[0])
            after.append(found[loop.steps])
        state.method.train()
        value, start = sum(after) / len(after), sum(before) / len(before)
        if value > self.best:
            run_folder.write_tensors(self._job.out / run_folder.WEIGHTS, state.method.state_dict())
        entry = {"step": state.step, "seconds": state.clock.seconds, "rays": state.rays, "psnr": value, "start": start}
        self.history.append(entry)
        run_folder.write_json(self._job.out / "log" / "history.json", self.history)
        self._writer.add_scalar("val/psnr", value, state.step)
        self._print(
            f"outer step {state.step}: validation psnr {start:.2f} dB, after {loop.steps} steps {value:.2f} dB, "
            f"at {state.clock.seconds:.0f} s"
        )

    def save(self, state: TrainingState) -> None:
        """Validates, then writes the whole state."""
        self.validate(state)
        summary = {"seconds": state.clock.seconds, "rays": state.rays, "steps": state.step}
        run_folder.write_json(self._job.out / run_folder.SUMMARY, summary)
        tensors, about = capture_state(state)
        run_folder.write_tensors(self._job.out / run_folder.STATE, tensors, about | {"history": self.history})

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False)
