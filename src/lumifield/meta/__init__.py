"""Settings of meta-learning and of few-shot evaluation, free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lumifield.errors import DataError
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import check_min

Initialization = Literal["meta", "random", "matched", "shuffled"]


@dataclass(frozen=True)
class InnerLoop:
    """Adaptation of a clone of the initialization to one task."""

    steps: int = 32
    """Number of inner steps."""
    batch_size: int | None = None
    """Rays per inner step (default: that of the method)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="sgd", lr=0.5, momentum=0.0))
    """Inner optimizer; MAML uses only its learning rate."""

    def __post_init__(self) -> None:
        check_min(self, steps=0, batch_size=1)


@dataclass(frozen=True)
class FewShot:
    """Few-shot protocol: images to adapt to, frames to score, and the adaptation."""

    num_support_images: int = 1
    """Images of an object to adapt to, the first ones."""
    held_out_frames: tuple[int, int] = (25, 50)
    """Range of frames of an object to score, first and last + 1 (learnit; nerf-meta: 1 26)."""
    loop: InnerLoop = field(default_factory=lambda: InnerLoop(steps=1000, batch_size=64))
    """Adaptation to the support images."""

    def __post_init__(self) -> None:
        check_min(self, num_support_images=1, held_out_frames=0)
        if self.held_out_frames[0] >= self.held_out_frames[1]:
            raise DataError(
                "few-shot",
                "held_out_frames",
                f"{self.held_out_frames}",
                "a first frame before the last",
                "correct the frames",
            )


@dataclass(frozen=True)
class Adapt:
    """Adaptation of a meta-learned initialization before it is scored (defaults: as in its training)."""

    initializations: tuple[Initialization, ...] = ("meta",)
    """Initializations to compare: meta (learned), random, matched (random, trained to reproduce renderings of the
    learned one), shuffled (learned, with the values of each parameter permuted)."""
    num_support_images: int | None = None
    """Images of an object to adapt to, the first ones."""
    held_out_frames: tuple[int, int] | None = None
    """Range of frames of an object to score, first and last + 1."""
    adapt_steps: int | None = None
    """Number of adaptation steps."""
    adapt_batch_size: int | None = None
    """Rays per adaptation step."""
    adapt_learning_rate: float | None = None
    """Learning rate of the adaptation."""
    num_curve_views: int = 5
    """Held-out views per task for the adaptation curves, evenly spaced."""
    save_adapted: bool = False
    """Save the adapted clone of each task next to its images, as a scene to render, view and export."""
    seed: int = 0
    """Seed of the random numbers."""

    def __post_init__(self) -> None:
        check_min(
            self, num_support_images=1, adapt_batch_size=1, num_curve_views=1, adapt_steps=0, adapt_learning_rate=0
        )

    def of(self, trained: FewShot) -> FewShot:
        """Few-shot protocol of the training with these changes."""
        loop = trained.loop
        optimizer = (
            loop.optimizer if self.adapt_learning_rate is None else replace(loop.optimizer, lr=self.adapt_learning_rate)
        )
        steps = loop.steps if self.adapt_steps is None else self.adapt_steps
        loop = InnerLoop(steps, self.adapt_batch_size or loop.batch_size, optimizer)
        return FewShot(
            self.num_support_images or trained.num_support_images, self.held_out_frames or trained.held_out_frames, loop
        )


@dataclass(frozen=True)
class MetaTrain:
    """Meta-learning of an initialization over many scenes of a category."""

    steps: int | None = None
    """Number of outer steps."""
    epochs: float | None = None
    """Number of passes over all tasks."""
    minutes: float | None = None
    """Training time in minutes of wall clock (60 if no length is set)."""
    seed: int = 0
    """Seed of all random numbers of the run."""
    algorithm: Literal["reptile", "maml", "first-order-maml"] = "reptile"
    """Meta-learning algorithm: reptile, maml, or first-order-maml."""
    meta_batch_size: int = 1
    """Tasks per outer step, over all processes."""
    vmap_batch_size: int = 0
    """Tasks whose inner loops run vmapped, if the method supports it (0: all on a GPU, one on a CPU)."""
    sample_with_replacement: bool = False
    """Sample tasks with replacement, as learnit does, instead of by epochs."""
    num_views: int = 25
    """Training images per task, the first ones (0: all)."""
    inner: InnerLoop = field(default_factory=InnerLoop)
    """Inner loop."""
    outer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4, momentum=0.0))
    """Outer optimizer; sgd is the plain step of Reptile, with lr as its step size."""
    use_method_rates: bool = False
    """Scale outer learning rates like the parameter groups of the method (nlr: that of the shape)."""
    outer_schedule: Schedule = field(default_factory=Schedule)
    """Schedule of the outer learning rate."""
    few_shot: FewShot = field(default_factory=FewShot)
    """Few-shot protocol of evaluations; validation uses `validation_steps`."""
    validate_every: int = 500
    """Outer steps between validations (0: only at the end)."""
    num_validation_tasks: int = 2
    """Number of tasks of the val split to validate on, the first ones (0: none)."""
    num_validation_views: int = 4
    """Held-out views per validation task, evenly spaced."""
    validation_steps: int = 100
    """Adaptation steps before a validation view is scored."""
    save_every: int = 500
    """Outer steps between checkpoints."""
    device: str = "auto"
    """Device to train on: cpu, cuda or mps (auto: cuda if available, else cpu)."""
    init: Path | None = None
    """Run to initialize the initialization from."""

    def __post_init__(self) -> None:
        check_min(
            self,
            meta_batch_size=1,
            num_validation_views=1,
            steps=0,
            epochs=0,
            minutes=0,
            vmap_batch_size=0,
            num_views=0,
            validate_every=0,
            num_validation_tasks=0,
            validation_steps=0,
            save_every=0,
        )
