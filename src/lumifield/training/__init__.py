"""Settings of a training run; `fit` holds the loop and `job` runs it from a capture to a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lumifield.runtime.config import check_min


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why in one sentence."""


@dataclass(frozen=True)
class Train:
    """Length, seed, validation, checkpoints and device of a training run."""

    steps: int | None = None
    """Number of training steps."""
    minutes: float | None = None
    """Training time in minutes of wall clock (5 if neither steps nor minutes is set)."""
    seed: int = 0
    """Seed of all random numbers of the run."""
    validate_every: int = 1000
    """Steps between validations (0: only at the end)."""
    num_validation_views: int = 4
    """Number of validation views to render, evenly spaced over the split (0: none)."""
    save_every: int = 2000
    """Steps between checkpoints (0: only at the end)."""
    max_grad_norm: float = 0.0
    """Clip the norm of the gradient to this value (0: no clipping)."""
    max_grad_value: float = 0.0
    """Clip each element of the gradient to this absolute value, before its norm (0: no clipping)."""
    single_image_batches: bool = False
    """Sample the rays of a step from one random image instead of all images."""
    loss_multipliers: bool = True
    """Sample pixels in proportion to the loss multiplier of their image (mip-NeRF's area loss)."""
    device: str = "auto"
    """Device to train on: cpu, cuda or mps (auto: cuda if available, else cpu)."""
    init: Path | None = None
    """Initial weights: a run folder, a bundled initialization (chairs, cars, lamps, sculptures, features), or a
    published nerf_pl checkpoint for method nerf."""

    def __post_init__(self) -> None:
        check_min(
            self,
            steps=0,
            minutes=0,
            validate_every=0,
            num_validation_views=0,
            save_every=0,
            max_grad_norm=0,
            max_grad_value=0,
        )
