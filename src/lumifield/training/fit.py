"""`fit`: the one training loop. Everything that watches, saves or stops a run is a listener."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from lumifield.data.scene import Batch
from lumifield.methods.base import Context, Method
from lumifield.optim import Schedule
from lumifield.optim.optimizers import TrainOptimizer, rate
from lumifield.runtime.rng import Rng


class Clock:
    """Seconds of training: stands still inside `paused`, goes on from `elapsed` after a resume."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self._before, self._since = elapsed, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.perf_counter() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Work that does not count as training."""
        self._before = self.seconds
        try:
            yield
        finally:
            self._since = time.perf_counter()


@dataclass(frozen=True)
class Budget:
    """When a run ends: after `steps` or `seconds`, whichever is set."""

    steps: int | None = None
    seconds: float | None = None

    def fraction(self, step: int, seconds: float) -> float:
        """How much of the run is over, 0 to 1."""
        parts = [0.0]
        if self.steps is not None:
            parts.append(step / self.steps if step < self.steps else 1.0)
        if self.seconds is not None:
            parts.append(seconds / self.seconds if seconds < self.seconds else 1.0)
        return max(parts)


@dataclass
class State:
    """What changes while a run goes on; all of it is saved and restored."""

    method: Method
    optimizer: TrainOptimizer
    rng: Rng
    clock: Clock = field(default_factory=Clock)
    step: int = 0
    rays: int = 0
    stopped: bool = False
    rate_factor: float = 1.0


@dataclass(frozen=True)
class Report:
    """What one step found: loss terms, rays and samples over all processes, this one's colors, the rate's factor."""

    losses: dict[str, float]
    predicted: torch.Tensor
    ground_truth: torch.Tensor
    rays: int
    samples: int
    rate: float
    fraction: float

    @property
    def loss(self) -> float:
        """The objective."""
        return sum(self.losses.values())


Listener = Callable[[State, Report], None]


def fit(
    state: State,
    batch_of: Callable[[int, Rng], Batch],
    budget: Budget,
    schedule: Schedule,
    *,
    clip: float = 0.0,
    clip_value: float = 0.0,
    listeners: Sequence[Listener] = (),
) -> State:
    """Trains `state.method` on batches until the budget is spent or a listener sets `state.stopped`."""
    state.method.train()
    world = state.rng.world
    while (fraction := shared(1.0 if state.stopped else budget.fraction(state.step, state.clock.seconds), world)) < 1:
        factor = rate(schedule, fraction, state.step) * state.rate_factor
        state.optimizer.set_rate(factor)
        report = train_step(state, batch_of, factor, fraction, clip=clip, clip_value=clip_value)
        state.step += 1
        state.rays += report.rays
        for listener in listeners:
            listener(state, report)
    return state


def train_step(
    state: State,
    batch_of: Callable[[int, Rng], Batch],
    factor: float,
    fraction: float,
    *,
    clip: float = 0.0,
    clip_value: float = 0.0,
) -> Report:
    """One batch forward, backward, averaged over the processes, and a step of the optimizer."""
    method, rng = state.method, state.rng
    method.before_step(state.step, rng)
    batch = batch_of(max(method.rays_per_step() // rng.world, 1), rng)
    rays = len(batch.rays)
    rendered = method(batch.rays, Context(batch.background, state.step, rng, patch=batch.patch))
    losses = method.losses(rendered, batch)
    state.optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    average_gradients(method, rng.world)
    if clip_value > 0:
        torch.nn.utils.clip_grad_value_(method.parameters(), clip_value)
    if clip > 0:
        torch.nn.utils.clip_grad_norm_(method.parameters(), clip)
    state.optimizer.step()
    samples = total(rendered.samples, rng.world)
    method.after_step(state.step, rays * rng.world, samples)
    return Report(
        dict(zip(losses, mean(torch.stack(list(losses.values())).detach(), rng.world), strict=True)),
        rendered.rgb.detach(),
        batch.rgb,
        rays * rng.world,
        samples,
        factor,
        fraction,
    )


def average_gradients(method: Method, world: int) -> None:
    """The mean gradient over all processes, so that together they step as one process would."""
    if world == 1:
        return
    for parameter in method.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world


def mean(values: torch.Tensor, world: int) -> list[float]:
    """Values averaged over all processes."""
    if world > 1:
        dist.all_reduce(values)
        values = values / world
    return values.tolist()


def total(count: int, world: int) -> int:
    """A count summed over all processes."""
    if world == 1:
        return count
    value = torch.tensor(count, dtype=torch.int64)
    dist.all_reduce(value)
    return int(value)


def shared(fraction: float, world: int) -> float:
    """The first process's number, so that all stop at the same step."""
    if world == 1:
        return fraction
    value = torch.tensor(fraction, dtype=torch.float64)
    dist.broadcast(value, 0)
    return float(value)
