"""Optimizers and learning rates: their settings (free of torch); `optimizers.py` builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lumifield.errors import DataError
from lumifield.runtime.config import at_least


@dataclass(frozen=True)
class Optimizer:
    """How parameters move."""

    kind: Literal["sgd", "adam", "radam", "ranger"] = "adam"
    """sgd; adam; radam: Adam with a rectified start; ranger: radam with lookahead."""
    lr: float = 5e-4
    """Learning rate at its highest."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 0.0
    """Pull of the parameters towards zero."""
    betas: tuple[float, float] | None = None
    """Memory of the two averages of adam, radam and ranger (None: 0.9 0.999, for ranger 0.95 0.999)."""
    eps: float = 1e-8
    """Added to the root of the second average."""

    def __post_init__(self) -> None:
        at_least(0, self, "lr", "momentum", "weight_decay", "eps")
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise DataError("optimizer", "betas", str(self.betas), "numbers from 0 to below 1", "lower them")


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes over the run: a factor, squeezed between `floor` and 1."""

    kind: Literal["constant", "step", "cosine", "poly", "exponential"] = "constant"
    """constant; step: times gamma at each milestone; cosine; poly: (1 - run)^power; exponential: gamma^run."""
    milestones: tuple[float, ...] = ()
    """Where step falls, as fractions of the run."""
    milestone_steps: tuple[int, ...] = ()
    """Where step falls besides, in steps."""
    gamma: float = 0.1
    """Factor of step at a milestone, and of exponential over the whole run."""
    power: float = 0.9
    """Exponent of poly."""
    floor: float = 0.0
    """Lowest factor of the decay."""
    warmup_steps: int = 0
    """Steps over which the rate rises to its full value."""
    warmup_factor: float = 0.01
    """The factor at the first step of the warm-up."""
    warmup: Literal["linear", "sine"] = "linear"
    """How the rate rises: evenly, or like the first quarter of a sine."""

    def __post_init__(self) -> None:
        at_least(0, self, "gamma", "power", "floor", "warmup_steps", "warmup_factor")
