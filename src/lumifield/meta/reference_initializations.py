"""Initializations to compare a meta-learned one with (Tancik et al. 2021, section 4.3): random, output-matched,
shuffled."""

from __future__ import annotations

from dataclasses import replace

import torch

from lumifield.data.scene import Images, Scene
from lumifield.meta import InnerLoop
from lumifield.meta.inner_loop import initial_parameters, run_inner_loop
from lumifield.methods.base import Method
from lumifield.optim import Optimizer
from lumifield.rendering.view import render_view
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.image_metrics import mean_squared_error, psnr
from lumifield.runtime.rng import Rng
from lumifield.training import TrainingError

MATCHED_PSNR = 35.0
"""PSNR with which a matched initialization reproduces renderings of the learned one [dB]."""
MATCHING = InnerLoop(steps=250, batch_size=256, optimizer=Optimizer(kind="adam", lr=3e-4))
MAX_ROUNDS = 80


def random_initialization(initialization: Method, scene: Scene, seed: int) -> Method:
    """A method with the same settings and random parameters."""
    torch.manual_seed(seed)
    return initialization.settings.build(scene).to(next(initialization.parameters()).device)


def shuffled_initialization(initialization: Method, scene: Scene, seed: int) -> Method:
    """The initialization with the values of each parameter permuted: same distribution, no structure."""
    generator = torch.Generator().manual_seed(seed)
    method = random_initialization(initialization, scene, seed)
    with torch.no_grad():
        for name, value in initial_parameters(initialization).items():
            order = torch.randperm(value.numel(), generator=generator).to(value.device)
            method.get_parameter(name).copy_(value.reshape(-1)[order].view_as(value))
    return method


def matched_initialization(initialization: Method, scene: Scene, seed: int) -> Method:
    """A random method trained to reproduce renderings of the initialization from the cameras of `scene`.

    Raises `TrainingError` if it does not reach `MATCHED_PSNR`.
    """
    method, shown = random_initialization(initialization, scene, seed), with_rendered_images(initialization, scene)
    rng = Rng(torch.Generator(next(initialization.parameters()).device).manual_seed(seed))
    for _ in range(MAX_ROUNDS):
        run_inner_loop(method, [shown], MATCHING, rng)
        if rendering_psnr(method, shown) >= MATCHED_PSNR:
            return method
    raise TrainingError(
        f"a matched initialization is still {rendering_psnr(method, shown):.1f} dB from the meta-learned one"
    )


def with_rendered_images(initialization: Method, scene: Scene) -> Scene:
    """The scene with its images replaced by renderings of the initialization."""
    device = next(initialization.parameters()).device
    initialization.eval()
    views = [to_uint8(render_view(initialization, scene, row, device=device).rgb) for row in range(len(scene))]
    sizes = torch.tensor([0, *(view.shape[0] * view.shape[1] for view in views)])
    images = Images(torch.cat([view.reshape(-1, 3) for view in views]), sizes.cumsum(0))
    return replace(scene, images=images).to(device)


def rendering_psnr(method: Method, shown: Scene) -> float:
    """PSNR of the renderings of a method over all images [dB]."""
    device = next(method.parameters()).device
    method.eval()
    views = [render_view(method, shown, row, device=device).rgb.clamp(0, 1) for row in range(len(shown))]
    errors = [mean_squared_error(view, shown.ground_truth(row).cpu()) for row, view in enumerate(views)]
    return psnr(sum(errors) / len(errors))
