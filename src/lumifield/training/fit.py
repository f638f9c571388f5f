"""`fit`, the one training loop; monitoring, saving and stopping are callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from lumifield.data.scene import Batch
from lumifield.methods.base import Method, RenderContext
from lumifield.optim import Schedule
from lumifield.optim.optimizers import TrainOptimizer, learning_rate_factor
from lumifield.runtime.rng import Rng


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

    def fraction(self, step: int, seconds: float) -> float:
        """Completed fraction of the run in [0, 1]."""
        parts = [0.0]
        if self.steps is not None:
            parts.append(step / self.steps if step < self.steps else 1.0)
        if self.seconds is not None:
            parts.append(seconds / self.seconds if seconds < self.seconds else 1.0)
        return max(parts)


@dataclass
class TrainingState:
    """Everything that changes during training; all of it is saved and restored."""

    method: Method
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


@dataclass(frozen=True)
class StepReport:
    """Result of one step: loss terms, colors of this process, rays and samples of all, learning-rate factor."""

    losses: dict[str, float]
    predicted: torch.Tensor
    ground_truth: torch.Tensor
    rays: int
    samples: int
    learning_rate_factor: float
    fraction: float

    @property
    def loss(self) -> float:
        """Sum of the loss terms."""
        return sum(self.losses.values())


Callback = Callable[[TrainingState, StepReport], None]


def fit(
    state: TrainingState,
    next_batch: Callable[[int, Rng], Batch],
    budget: Budget,
    schedule: Schedule,
    *,
    max_grad_norm: float = 0.0,
    max_grad_value: float = 0.0,
    callbacks: Sequence[Callback] = (),
) -> TrainingState:
    """Trains `state.method` on batches until the budget is spent or a listener sets `state.stopped`."""
    state.method.train()
    world = state.rng.world
    while (
        fraction := broadcast_fraction(
            1.0 if state.stopped else budget.fraction(state.step, state.clock.seconds), world
        )
    ) < 1:
        factor = learning_rate_factor(schedule, fraction, state.step) * state.rate_factor
        state.optimizer.set_rate(factor)
        report = train_step(
            state, next_batch, factor, fraction, max_grad_norm=max_grad_norm, max_grad_value=max_grad_value
        )
        state.step += 1
        state.rays += report.rays
        for callback in callbacks:
            callback(state, report)
    return state


def train_step(
    state: TrainingState,
    next_batch: Callable[[int, Rng], Batch],
    factor: float,
    fraction: float,
    *,
    max_grad_norm: float = 0.0,
    max_grad_value: float = 0.0,
) -> StepReport:
    """Forward and backward pass of one batch, gradients averaged over the processes, and an optimizer step."""
    method, rng = state.method, state.rng
    method.before_step(state.step, rng)
    batch = next_batch(max(method.rays_per_step() // rng.world, 1), rng)
    rays = len(batch.rays)
    rendered = method(batch.rays, RenderContext(batch.background, state.step, rng, patch_size=batch.patch_size))
    losses = method.losses(rendered, batch)
    state.optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    average_gradients(method, rng.world)
    if max_grad_value > 0:
        torch.nn.utils.clip_grad_value_(method.parameters(), max_grad_value)
    if max_grad_norm > 0:
        torch.nn.utils.clip_grad_norm_(method.parameters(), max_grad_norm)
    state.optimizer.step()
    samples = sum_over_processes(rendered.samples, rng.world)
    method.after_step(state.step, rays * rng.world, samples)
    return StepReport(
        dict(zip(losses, mean_over_processes(torch.stack(list(losses.values())).detach(), rng.world), strict=True)),
        rendered.rgb.detach(),
        batch.rgb,
        rays * rng.world,
        samples,
        factor,
        fraction,
    )


def average_gradients(method: Method, world: int) -> None:
    """Averages gradients over all processes, so that several processes take the step that one would."""
    if world == 1:
        return
    for parameter in method.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world


def mean_over_processes(values: torch.Tensor, world: int) -> list[float]:
    """Values averaged over all processes."""
    if world > 1:
        dist.all_reduce(values)
        values = values / world
    return values.tolist()


def sum_over_processes(count: int, world: int) -> int:
    """A count summed over all processes."""
    if world == 1:
        return count
    value = torch.tensor(count, dtype=torch.int64)
    dist.all_reduce(value)
    return int(value)


def broadcast_fraction(fraction: float, world: int) -> float:
    """The first process's value, so that all processes stop at the same step."""
    if world == 1:
        return fraction
    value = torch.tensor(fraction, dtype=torch.float64)
    dist.broadcast(value, 0)
    return float(value)
