"""State of a long run: everything that changes while it trains, and how long it lasts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import nn

from lumifield.optim.optimizers import TrainOptimizer
from lumifield.runtime.distributed import broadcast_fraction
from lumifield.runtime.rng import Rng

Module = TypeVar("Module", bound=nn.Module)


class TrainingClock:
    """Seconds of training; does not advance inside `paused` and continues from `elapsed` after a resume."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self._before, self._since = elapsed, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time so far [s]."""
        return self._before + time.perf_counter() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, time does not count as training."""
        self._before = self.seconds
        try:
            yield
        finally:
            self._since = time.perf_counter()


@dataclass(frozen=True)
class Budget:
    """Length of a run: `steps` or `seconds`, whichever is reached first."""

    steps: int | None = None
    seconds: float | None = None

    @staticmethod
    def of(steps: int | None, minutes: float | None, *, default_minutes: float) -> Budget:
        """Budget of a number of steps, of minutes, or of both; `default_minutes` if neither is set."""
        if steps is None and minutes is None:
            minutes = default_minutes
        return Budget(steps, None if minutes is None else minutes * 60)

    def fraction(self, step: int, seconds: float) -> float:
        """Completed fraction of the run in [0, 1]."""
        parts = [0.0]
        if self.steps is not None:
            parts.append(step / self.steps if step < self.steps else 1.0)
        if self.seconds is not None:
            parts.append(seconds / self.seconds if seconds < self.seconds else 1.0)
        return max(parts)


@dataclass
class RunState(Generic[Module]):
    """Everything that changes during training; all of it is saved and restored."""

    method: Module
    optimizer: TrainOptimizer
    rng: Rng
    clock: TrainingClock = field(default_factory=TrainingClock)
    step: int = 0
    rays: int = 0
    stopped: bool = False
    rate_factor: float = 1.0

    def stop(self) -> None:
        """Ends training after the current step."""
        self.stopped = True


def remaining_steps(state: RunState[Module], budget: Budget) -> Iterator[float]:
    """Completed fraction of the run before each step, until the budget is spent or the run is stopped.

    All processes get the fraction of the first one, so that they stop at the same step.
    """
    while True:
        fraction = 1.0 if state.stopped else budget.fraction(state.step, state.clock.seconds)
        fraction = broadcast_fraction(fraction, state.rng.world)
        if fraction >= 1:
            return
        yield fraction
