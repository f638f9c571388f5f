"""Training steps of a method without the training loop."""

from __future__ import annotations

import torch

from lumifield.data.scene import Batch, Scene, sample_batch
from lumifield.methods.base import Method, Rendered, TrainingContext
from lumifield.runtime.rng import Rng


def rng(seed: int = 0) -> Rng:
    return Rng(torch.Generator().manual_seed(seed))


def render_step(method: Method, scene: Scene, step: int, source: Rng) -> tuple[Rendered, Batch]:
    """The rendering of a training step and its batch."""
    method.before_step(step, source)
    batch = sample_batch(scene, method.rays_per_step(), source, patch_size=method.traits.patch_size)
    return method(batch.rays, TrainingContext(batch.background, step, source, patch_size=batch.patch_size)), batch


def take_step(method: Method, optimizer: torch.optim.Optimizer, scene: Scene, step: int, source: Rng) -> None:
    """One step of the optimizer."""
    rendered, batch = render_step(method, scene, step, source)
    optimizer.zero_grad()
    torch.stack(list(method.losses(rendered, batch).values())).sum().backward()
    optimizer.step()
    method.after_step(step, len(batch.rays), rendered.samples)
