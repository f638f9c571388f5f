"""Optimizers and learning rates from their settings."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, pi, sin
from typing import Any

import torch
from torch import Tensor

from lumifield.optim import Optimizer, Schedule

LOOKAHEAD_EVERY, LOOKAHEAD_SHARE = 6, 0.5


class TrainOptimizer:
    """A torch optimizer whose learning rate is scaled by a factor, with lookahead if `lookahead_every` is not 0.

    Lookahead (Zhang et al. 2019): every few steps the slow weights are interpolated towards the fast ones, which then
    continue from there. Slow weights are part of the optimizer state, so `state_dict` is complete.
    """

    def __init__(self, inner: torch.optim.Optimizer, lookahead_every: int = 0) -> None:
        self.inner, self.lookahead_every = inner, lookahead_every
        self._rates = [group["lr"] for group in inner.param_groups]

    def zero_grad(self) -> None:
        """Clears all gradients."""
        self.inner.zero_grad()

    def set_rate(self, factor: float) -> None:
        """Sets learning rates to `factor` times those of the settings (times `lr_factor` of the group)."""
        for group, base_rate in zip(self.inner.param_groups, self._rates, strict=True):
            group["lr"] = base_rate * factor

    def step(self) -> None:
        """Updates the parameters that have a gradient."""
        starts = {
            p: p.detach().clone()
            for p in self._parameters_with_gradient()
            if self.lookahead_every and "slow" not in self.inner.state[p]
        }
        self.inner.step()
        for p, start in starts.items():
            self.inner.state[p]["slow"] = start
        if self.lookahead_every:
            self._update_slow_weights()

    def state_dict(self) -> dict[str, Any]:
        """Complete state for exact resumption."""
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`."""
        self.inner.load_state_dict(state)

    @torch.no_grad()
    def _update_slow_weights(self) -> None:
        for p in self._parameters_with_gradient():
            state = self.inner.state[p]
            if int(state["step"]) % self.lookahead_every == 0:
                p.copy_(state["slow"].lerp_(p, LOOKAHEAD_SHARE))

    def _parameters_with_gradient(self) -> Iterator[Tensor]:
        return (p for group in self.inner.param_groups for p in group["params"] if p.grad is not None)


def build_optimizer(settings: Optimizer, groups: list[dict[str, Any]]) -> TrainOptimizer:
    """Builds the optimizer; a parameter group may scale the learning rate by `lr_factor`."""
    groups = [{**group, "lr": settings.lr * group.get("lr_factor", 1.0)} for group in groups]
    decay, eps = settings.weight_decay, settings.eps
    betas = settings.betas or ((0.95, 0.999) if settings.kind == "ranger" else (0.9, 0.999))
    match settings.kind:
        case "sgd":
            return TrainOptimizer(torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=decay))
        case "adam":
            return TrainOptimizer(torch.optim.Adam(groups, betas=betas, eps=eps, weight_decay=decay, fused=True))
        case "radam" | "ranger":
            inner = torch.optim.RAdam(groups, betas=betas, eps=eps, weight_decay=decay, decoupled_weight_decay=True)
            return TrainOptimizer(inner, LOOKAHEAD_EVERY if settings.kind == "ranger" else 0)


def learning_rate_factor(schedule: Schedule, progress: float, step: int) -> float:
    """Factor of the learning rate at a step (from 0) at completed fraction `progress` of the run."""
    shape = decay(schedule, progress, step)
    if step >= schedule.warmup_steps:
        warm = 1.0
    else:
        warmed = step / schedule.warmup_steps
        warmed = warmed if schedule.warmup == "linear" else sin(0.5 * pi * warmed)
        warm = schedule.warmup_factor + (1 - schedule.warmup_factor) * warmed
    return warm * (schedule.floor + (1 - schedule.floor) * shape)


def decay(schedule: Schedule, progress: float, step: int) -> float:
    """Decay of the schedule without warm-up and floor, starting at 1."""
    match schedule.kind:
        case "constant":
            return 1.0
        case "step":
            count = sum(progress >= at for at in schedule.milestones)
            count += sum(step >= at for at in schedule.milestone_steps)
            return schedule.gamma**count
        case "cosine":
            return 0.5 * (1 + cos(pi * progress))
        case "poly":
            return (1 - progress) ** schedule.power
        case "exponential":
            return schedule.gamma**progress
