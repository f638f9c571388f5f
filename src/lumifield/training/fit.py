"""`fit`, the one training loop; monitoring, saving and stopping are callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from lumifield.data.scene import Batch
from lumifield.methods.base import Method, TrainingContext
from lumifield.optim import Schedule
from lumifield.optim.optimizers import learning_rate_factor
from lumifield.runs.state import Budget, RunState, remaining_steps
from lumifield.runtime.distributed import mean_over_processes, sum_over_processes
from lumifield.runtime.rng import Rng

TrainingState = RunState[Method]


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
    """Trains `state.method` on batches until the budget is spent or a callback sets `state.stopped`."""
    state.method.train()
    for fraction in remaining_steps(state, budget):
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
    rendered = method(batch.rays, TrainingContext(batch.background, state.step, rng, patch_size=batch.patch_size))
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
