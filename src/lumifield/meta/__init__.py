"""Learned starts: the settings of a meta-training. `outer.py` holds Reptile and MAML, `run.py` what surrounds them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lumifield.errors import DataError
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import at_least

Start = Literal["meta", "standard", "matched", "shuffled"]


@dataclass(frozen=True)
class InnerLoop:
    """How a copy of the start learns one task."""

    steps: int = 32
    """Steps."""
    batch: int | None = None
    """Rays of a step (as many as the method takes)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="sgd", lr=0.5, momentum=0.0))
    """How the copy's parameters move; MAML takes the rate alone."""

    def __post_init__(self) -> None:
        at_least(0, self, "steps")
        at_least(1, self, "batch")


@dataclass(frozen=True)
class FewShot:
    """How a start is judged: what it may learn from an unknown object, and for how long."""

    support: int = 1
    """Images of an object to learn from, its first ones."""
    held_out: tuple[int, int] = (25, 50)
    """Frames of an object to score, from the first up to before the second (learnit; nerf-meta: 1 26)."""
    loop: InnerLoop = field(default_factory=lambda: InnerLoop(steps=1000, batch=64))
    """How it learns them."""

    def __post_init__(self) -> None:
        at_least(1, self, "support")
        at_least(0, self, "held_out")
        if self.held_out[0] >= self.held_out[1]:
            raise DataError("few-shot", "held_out", f"{self.held_out}", "a first frame before the last", "correct it")


@dataclass(frozen=True)
class Adapt:
    """Of a meta-trained run: how it adapts before it is scored (what is not given is as in its training)."""

    starts: tuple[Start, ...] = ("meta",)
    """Which starts adapt: the learned one, a fresh one (standard), a fresh one trained to show the same (matched), and
    the learned one with its numbers in disorder (shuffled)."""
    support: int | None = None
    """Images of an object to learn from, its first ones."""
    held_out: tuple[int, int] | None = None
    """Frames of an object to score, from the first up to before the second."""
    adapt_steps: int | None = None
    """Steps of the adaptation."""
    adapt_batch: int | None = None
    """Rays of a step."""
    adapt_rate: float | None = None
    """Its learning rate."""
    curve_views: int = 5
    """How many held-out views of each task the curves are of, evenly spread."""
    keep: bool = False
    """Leave what the learned start became on each task beside its images: a scene to render, view and export."""
    seed: int = 0
    """Seed of the random numbers."""

    def __post_init__(self) -> None:
        at_least(1, self, "support", "adapt_batch", "curve_views")
        at_least(0, self, "adapt_steps", "adapt_rate")

    def of(self, trained: FewShot) -> FewShot:
        """The protocol that the training had, with what is asked for."""
        loop = trained.loop
        optimizer = loop.optimizer if self.adapt_rate is None else replace(loop.optimizer, lr=self.adapt_rate)
        steps = loop.steps if self.adapt_steps is None else self.adapt_steps
        loop = InnerLoop(steps, self.adapt_batch or loop.batch, optimizer)
        return FewShot(self.support or trained.support, self.held_out or trained.held_out, loop)


@dataclass(frozen=True)
class MetaTrain:
    """How to learn a start for many scenes of a kind."""

    steps: int | None = None
    """Length of the run in outer steps."""
    epochs: float | None = None
    """Length of the run in visits to every task."""
    minutes: float | None = None
    """Length of the run in minutes of wall clock; 60 where no length is given."""
    seed: int = 0
    """Seed of every random number of the run."""
    algorithm: Literal["reptile", "maml", "first-order-maml"] = "reptile"
    """reptile: towards what copies have learned; maml: along the gradient of their loss, through their steps or not."""
    tasks: int = 1
    """Tasks of an outer step, over all processes."""
    group: int = 0
    """Tasks whose inner loops run as one, where the method can (0: all on a GPU, one on a CPU)."""
    replacement: bool = False
    """Draw tasks anew each time, as learnit does, instead of each once before any comes again."""
    views: int = 25
    """Images of a task to learn from, its first ones (0: all)."""
    inner: InnerLoop = field(default_factory=InnerLoop)
    """How a copy learns a task."""
    outer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4, momentum=0.0))
    """How the start moves; sgd is Reptile's plain step, lr the share of the way."""
    by_part: bool = False
    """The outer rates of a method's parts are to each other as its inner ones (nlr: that of the shape)."""
    outer_schedule: Schedule = field(default_factory=Schedule)
    """How the outer rate falls."""
    few_shot: FewShot = field(default_factory=FewShot)
    """How the start is judged: the steps of an evaluation; a validation takes `validation_steps`."""
    validate_every: int = 500
    """Outer steps between two validations (0: only at the end)."""
    validation_tasks: int = 2
    """How many tasks of the val split are looked at, the first ones (0: none)."""
    num_validation_views: int = 4
    """How many held-out views of each, evenly spread."""
    validation_steps: int = 100
    """Steps of each before it is looked at."""
    save_every: int = 500
    """Outer steps between two checkpoints."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps (auto: cuda where there is one, else cpu)."""
    init: Path | None = None
    """A run whose parameters the start begins with."""

    def __post_init__(self) -> None:
        at_least(1, self, "tasks", "validation_views")
        at_least(0, self, "steps", "epochs", "minutes", "group", "views", "validate_every", "validation_tasks")
        at_least(0, self, "validation_steps", "save_every")
