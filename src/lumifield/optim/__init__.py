"""Settings of optimizers and learning-rate schedules, free of torch; `optimizers` builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lumifield.errors import DataError
from lumifield.runtime.config import check_min


@dataclass(frozen=True)
class Optimizer:
    """Optimizer and its hyperparameters."""

    kind: Literal["sgd", "adam", "radam", "ranger"] = "adam"
    """Optimizer: sgd, adam, radam (rectified Adam) or ranger (radam with lookahead)."""
    lr: float = 5e-4
    """Initial learning rate."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 0.0
    """Weight decay."""
    betas: tuple[float, float] | None = None
    """Adam betas for adam, radam, ranger (default: 0.9 0.999; ranger: 0.95 0.999)."""
    eps: float = 1e-8
    """Adam epsilon."""

    def __post_init__(self) -> None:
        check_min(self, lr=0, momentum=0, weight_decay=0, eps=0)
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise DataError("optimizer", "betas", str(self.betas), "numbers from 0 to below 1", "lower them")


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule: a factor between `floor` and 1, after a warm-up."""

    kind: Literal["constant", "step", "cosine", "poly", "exponential"] = "constant"
    """Schedule: constant; step (times gamma at milestones); cosine; poly, (1 - t)^power; exponential, gamma^t; with t
    the completed fraction of the run."""
    milestones: tuple[float, ...] = ()
    """Milestones of step as fractions of the run."""
    milestone_steps: tuple[int, ...] = ()
    """Additional milestones of step in training steps."""
    gamma: float = 0.1
    """Factor per milestone (step) or over the whole run (exponential)."""
    power: float = 0.9
    """Exponent of poly."""
    floor: float = 0.0
    """Minimum factor after decay."""
    warmup_steps: int = 0
    """Number of warm-up steps."""
    warmup_factor: float = 0.01
    """Factor at the first step of the warm-up."""
    warmup: Literal["linear", "sine"] = "linear"
    """Shape of the warm-up: linear, or the first quarter of a sine."""

    def __post_init__(self) -> None:
        check_min(self, gamma=0, power=0, floor=0, warmup_steps=0, warmup_factor=0)
