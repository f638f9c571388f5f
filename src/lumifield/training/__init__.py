"""Training: the settings of a run. `fit.py` holds the loop, `run.py` what surrounds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lumifield.runtime.config import at_least


class TrainingError(RuntimeError):
    """A training that cannot go on, in one sentence."""


@dataclass(frozen=True)
class Train:
    """How long and how carefully to train."""

    steps: int | None = None
    """Length of the run in steps."""
    minutes: float | None = None
    """Length of the run in minutes of wall clock; 5 where neither is given."""
    seed: int = 0
    """Seed of every random number of the run."""
    validate_every: int = 1000
    """Steps between two looks at validation views (0: only at the end)."""
    validation_views: int = 4
    """How many validation views are looked at, evenly spread over the split."""
    save_every: int = 2000
    """Steps between two checkpoints."""
    clip: float = 0.0
    """Largest norm of the gradient (0: unlimited)."""
    clip_value: float = 0.0
    """Largest absolute value of each number of the gradient, cut before its norm (0: unlimited)."""
    one_image: bool = False
    """Draw the rays of a step from one image, each time another, instead of from all."""
    loss_multipliers: bool = True
    """Draw pixels as often as the data states for their image, so that small images count (the area loss)."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps (auto: cuda where there is one, else cpu)."""
    init: Path | None = None
    """A run, a start of the package (chairs, cars, lamps), or a published nerf_pl checkpoint for method nerf, whose
    parameters the training starts from."""

    def __post_init__(self) -> None:
        at_least(0, self, "steps", "minutes", "validate_every", "validation_views", "save_every", "clip", "clip_value")
