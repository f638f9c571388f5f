"""A run never fails in silence: broken numbers are rolled back, a start that learns nothing is told."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch

from lumifield.training import TrainingError
from lumifield.training.fit import Report, State, total

log = logging.getLogger(__name__)

SNAPSHOT_EVERY = 500
MOST_ROLLBACKS = 5
FLAT_STEPS = 200
FLAT, LIVELY = 0.004, 0.04


class CollapsedError(TrainingError):
    """The method shows one color everywhere and does not leave that state."""


class DivergedError(TrainingError):
    """The numbers break again after every return to an earlier state."""


class Guard:
    """Watches each step; see `CollapsedError` and `DivergedError`."""

    def __init__(self) -> None:
        self._good: tuple[dict[str, Any], dict[str, Any], int] | None = None
        self._rollbacks = self._flat = 0

    def __call__(self, state: State, report: Report) -> None:
        """Rolls back when the loss is not finite; raises when that does not help or the start has collapsed."""
        if not torch.isfinite(torch.tensor(report.loss)):
            self._roll_back(state)
            return
        if self._good is None or state.step % SNAPSHOT_EVERY == 0:
            self._snapshot(state)
        flat = spread(report.predicted) < FLAT and spread(report.ground_truth) > LIVELY
        flat &= not state.method.carves(state.step - 1)
        lively = total(0 if flat else 1, state.rng.world)
        self._flat = 0 if lively else self._flat + 1
        if self._flat >= FLAT_STEPS:
            raise CollapsedError(f"every ray has shown one color for {FLAT_STEPS} steps up to step {state.step}")

    def _snapshot(self, state: State) -> None:
        if all(bool(torch.isfinite(p).all()) for p in state.method.parameters()):
            weights, moments = copy.deepcopy(state.method.state_dict()), copy.deepcopy(state.optimizer.state_dict())
            self._good = weights, moments, state.step

    def _roll_back(self, state: State) -> None:
        self._rollbacks += 1
        if self._good is None or self._rollbacks > MOST_ROLLBACKS:
            raise DivergedError(
                f"the loss is not finite at step {state.step}, also after {self._rollbacks - 1} returns"
            )
        weights, moments, step = self._good
        state.method.load_state_dict(weights)
        state.optimizer.load_state_dict(copy.deepcopy(moments))
        state.rate_factor *= 0.5
        log.warning(
            "the loss is not finite at step %d: back to the state of step %d with half the learning rate",
            state.step,
            step,
        )


def spread(rgb: torch.Tensor) -> float:
    """The largest standard deviation over the color channels."""
    return float(rgb.std(0).max()) if len(rgb) > 1 else float("inf")
