"""What a learned start is compared with (Tancik et al. 2021, section 4.3): standard, matched and shuffled starts."""

from __future__ import annotations

from dataclasses import replace

import torch

from lumifield.data.scene import Images, Scene
from lumifield.meta import InnerLoop
from lumifield.meta.inner import carried, learn
from lumifield.methods.base import Method
from lumifield.optim import Optimizer
from lumifield.rendering.view import render_view
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.image_metrics import mean_squared_error, psnr
from lumifield.runtime.rng import Rng
from lumifield.training import TrainingError

MATCHED_PSNR = 35.0
"""How close a matched start comes to what the learned one shows [dB]."""
MATCHING = InnerLoop(steps=250, batch=256, optimizer=Optimizer(kind="adam", lr=3e-4))
MOST_ROUNDS = 80


def standard(start: Method, scene: Scene, seed: int) -> Method:
    """A method as the start's settings make it, with fresh parameters."""
    torch.manual_seed(seed)
    return start.settings.build(scene).to(next(start.parameters()).device)


def shuffled(start: Method, scene: Scene, seed: int) -> Method:
    """The start's numbers, each parameter's in random order: the same values a layer, no structure."""
    generator = torch.Generator().manual_seed(seed)
    method = standard(start, scene, seed)
    with torch.no_grad():
        for name, value in carried(start).items():
            order = torch.randperm(value.numel(), generator=generator).to(value.device)
            method.get_parameter(name).copy_(value.reshape(-1)[order].view_as(value))
    return method


def matched(start: Method, scene: Scene, seed: int) -> Method:
    """A fresh method trained to show what the start shows along the cameras of `scene`: its outputs, not its weights.

    Raises `TrainingError` where it does not come within `MATCHED_PSNR`.
    """
    method, shown = standard(start, scene, seed), pictured(start, scene)
    rng = Rng(torch.Generator(next(start.parameters()).device).manual_seed(seed))
    for _ in range(MOST_ROUNDS):
        learn(method, [shown], MATCHING, rng)
        if likeness(method, shown) >= MATCHED_PSNR:
            return method
    raise TrainingError(f"a matched start is still {likeness(method, shown):.1f} dB from the learned one")


def pictured(start: Method, scene: Scene) -> Scene:
    """The scene with images of what the start shows in place of its own."""
    device = next(start.parameters()).device
    start.eval()
    views = [to_uint8(render_view(start, scene, row, device=device).rgb) for row in range(len(scene))]
    sizes = torch.tensor([0, *(view.shape[0] * view.shape[1] for view in views)])
    images = Images(torch.cat([view.reshape(-1, 3) for view in views]), sizes.cumsum(0))
    return replace(scene, images=images).to(device)


def likeness(method: Method, shown: Scene) -> float:
    """PSNR over all images of what a method shows [dB]."""
    device = next(method.parameters()).device
    method.eval()
    views = [render_view(method, shown, row, device=device).rgb.clamp(0, 1) for row in range(len(shown))]
    errors = [mean_squared_error(view, shown.ground_truth(row).cpu()) for row, view in enumerate(views)]
    return psnr(sum(errors) / len(errors))
