"""Detects diverging and collapsing training: rolls back from non-finite losses, stops if all rays have one color."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch

from lumifield.training import TrainingError
from lumifield.training.fit import StepReport, TrainingState, sum_over_processes

log = logging.getLogger(__name__)

SNAPSHOT_EVERY = 500
MAX_ROLLBACKS = 5
COLLAPSED_STEPS = 200
MAX_COLLAPSED_STD, MIN_TARGET_STD = 0.004, 0.04


class CollapsedError(TrainingError):
    """The method renders one color everywhere and does not recover."""


class DivergedError(TrainingError):
    """The loss becomes non-finite again after every rollback."""


class DivergenceGuard:
    """Checks each training step; raises `CollapsedError` and `DivergedError`."""

    def __init__(self) -> None:
        self._good: tuple[dict[str, Any], dict[str, Any], int] | None = None
        self._rollbacks = self._collapsed_steps = 0

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Rolls back if the loss is not finite; raises if that does not help or training has collapsed."""
        if not torch.isfinite(torch.tensor(report.loss)):
            self._roll_back(state)
            return
        if self._good is None or state.step % SNAPSHOT_EVERY == 0:
            self._snapshot(state)
        is_flat = max_channel_std(report.predicted) < MAX_COLLAPSED_STD
        is_flat &= max_channel_std(report.ground_truth) > MIN_TARGET_STD
        is_flat &= not state.method.is_mask_only_step(state.step - 1)
        num_varied = sum_over_processes(0 if is_flat else 1, state.rng.world)
        self._collapsed_steps = 0 if num_varied else self._collapsed_steps + 1
        if self._collapsed_steps >= COLLAPSED_STEPS:
            raise CollapsedError(f"all rays have had one color for {COLLAPSED_STEPS} steps up to step {state.step}")

    def _snapshot(self, state: TrainingState) -> None:
        if all(bool(torch.isfinite(p).all()) for p in state.method.parameters()):
            weights, moments = copy.deepcopy(state.method.state_dict()), copy.deepcopy(state.optimizer.state_dict())
            self._good = weights, moments, state.step

    def _roll_back(self, state: TrainingState) -> None:
        self._rollbacks += 1
        if self._good is None or self._rollbacks > MAX_ROLLBACKS:
            raise DivergedError(f"the loss is not finite at step {state.step}, after {self._rollbacks - 1} rollbacks")
        weights, moments, step = self._good
        state.method.load_state_dict(weights)
        state.optimizer.load_state_dict(copy.deepcopy(moments))
        state.rate_factor *= 0.5
        log.warning(
            "the loss is not finite at step %d: rolled back to step %d with half the learning rate",
            state.step,
            step,
        )


def max_channel_std(rgb: torch.Tensor) -> float:
    """Largest standard deviation over the color channels."""
    return float(rgb.std(0).max()) if len(rgb) > 1 else float("inf")
