"""Optimizers and learning rates from their settings."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, pi, sin
from typing import Any

import torch
from torch import Tensor

from lumifield.optim import Optimizer, Schedule

LOOK_EVERY, LOOK_SHARE = 6, 0.5


class TrainOptimizer:
    """A torch optimizer whose rate is set as a factor of its settings, with lookahead where `look_every` is not 0.

    Lookahead (Zhang et al. 2019): slow weights follow the fast ones by a share of the way every few steps, and the
    fast ones start again from there. They are kept in the optimizer's state, so `state_dict` holds everything.
    """

    def __init__(self, inner: torch.optim.Optimizer, look_every: int = 0) -> None:
        self.inner, self.look_every = inner, look_every
        self._rates = [group["lr"] for group in inner.param_groups]

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        self.inner.zero_grad()

    def set_rate(self, factor: float) -> None:
        """Learning rates of this factor of the settings' (times the group's `lr_factor`)."""
        for group, rate in zip(self.inner.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def step(self) -> None:
        """Moves the parameters that have a gradient."""
        starts = {
            p: p.detach().clone() for p in self._moving() if self.look_every and "slow" not in self.inner.state[p]
        }
        self.inner.step()
        for p, start in starts.items():
            self.inner.state[p]["slow"] = start
        if self.look_every:
            self._look()

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resumption needs."""
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        self.inner.load_state_dict(state)

    @torch.no_grad()
    def _look(self) -> None:
        for p in self._moving():
            state = self.inner.state[p]
            if int(state["step"]) % self.look_every == 0:
                p.copy_(state["slow"].lerp_(p, LOOK_SHARE))

    def _moving(self) -> Iterator[Tensor]:
        return (p for group in self.inner.param_groups for p in group["params"] if p.grad is not None)


def build_optimizer(settings: Optimizer, groups: list[dict[str, Any]]) -> TrainOptimizer:
    """The optimizer of the settings; a group may scale the rate by `lr_factor`."""
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
            return TrainOptimizer(inner, LOOK_EVERY if settings.kind == "ranger" else 0)


def rate(schedule: Schedule, progress: float, step: int) -> float:
    """The factor of the learning rate at a step (from 0), when `progress` of the run is over [0 to 1]."""
    shape = decay(schedule, progress, step)
    if step >= schedule.warmup_steps:
        warm = 1.0
    else:
        risen = step / schedule.warmup_steps
        risen = risen if schedule.warmup == "linear" else sin(0.5 * pi * risen)
        warm = schedule.warmup_factor + (1 - schedule.warmup_factor) * risen
    return warm * (schedule.floor + (1 - schedule.floor) * shape)


def decay(schedule: Schedule, progress: float, step: int) -> float:
    """The shape of the schedule without warm-up and floor: from 1 downwards."""
    match schedule.kind:
        case "constant":
            return 1.0
        case "step":
            passed = sum(progress >= at for at in schedule.milestones)
            passed += sum(step >= at for at in schedule.milestone_steps)
            return schedule.gamma**passed
        case "cosine":
            return 0.5 * (1 + cos(pi * progress))
        case "poly":
            return (1 - progress) ** schedule.power
        case "exponential":
            return schedule.gamma**progress
