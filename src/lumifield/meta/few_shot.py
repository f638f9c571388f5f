"""Few-shot protocols: the part of a task to adapt to, and the PSNR on the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from lumifield.data.scene import Images, Scene
from lumifield.data.scene_collection import Task
from lumifield.errors import DataError
from lumifield.meta import FewShot, InnerLoop, MetaTrain
from lumifield.meta.inner_loop import clone_for_scene, run_inner_loop
from lumifield.methods.base import Method
from lumifield.rendering.view import render_view, view_psnr
from lumifield.runs.run_folder import CONFIG, LoadedRun
from lumifield.runtime.config import from_plain
from lumifield.runtime.rng import Rng
from lumifield.training.fit import StepReport, TrainingState


def read_meta_settings(run: LoadedRun) -> MetaTrain:
    """Settings with which a run was meta-trained."""
    return from_plain(MetaTrain, run.config.training_settings, run.folder / CONFIG)


def split_task(task: Task, few_shot: FewShot) -> tuple[Scene, Scene]:
    """Support and held-out part of a task.

    A single image is split into its left and right half; objects into their first frames and those that `few_shot`
    selects; other scenes have their own held-out images. Raises `DataError` if the task has too few.
    """
    count = len(task.cameras())
    if count == 1:
        image = task.load_images()
        return mask_half(image, left=True), mask_half(image, left=False)
    others = task.held_out()
    if others is not None:
        return task.load_images(slice(few_shot.num_support_images)), others
    first, end = few_shot.held_out_frames
    if first >= count:
        fix = "choose frames that it has"
        raise DataError(task.name, "held-out frames", f"{first} to {end}", f"frames among 0 to {count - 1}", fix)
    return task.load_images(slice(few_shot.num_support_images)), task.load_images(slice(first, end))


def mask_half(image: Scene, *, left: bool) -> Scene:
    """An image of which one half is valid; the right half includes the middle column of an odd width."""
    (width, height), images = image.size(0), image.images
    assert images is not None
    column = torch.arange(width, device=images.pixels.device).repeat(height)
    is_half: Bool[Tensor, " p"] = (column < width // 2) == left
    mask = is_half if images.mask is None else is_half & images.mask
    return replace(image, images=Images(images.pixels, images.offsets, mask))


def adapt_to_task(
    initialization: Method,
    support: Scene,
    held_out: Scene,
    loop: InnerLoop,
    *,
    seed: int,
    eval_steps: Sequence[int] = (),
) -> tuple[Method, dict[int, float]]:
    """A clone of the initialization adapted to `support`, and its PSNR [dB] on `held_out` after `eval_steps`."""
    device = next(initialization.parameters()).device
    clone, support = clone_for_scene(initialization, support), support.to(device)
    found = {0: mean_psnr(clone, held_out)} if 0 in eval_steps else {}

    def evaluate_step(state: TrainingState, report: StepReport) -> None:
        if state.step in eval_steps:
            found[state.step] = mean_psnr(clone, held_out)
            clone.train()

    run_inner_loop(clone, [support], loop, Rng(torch.Generator(device).manual_seed(seed)), [evaluate_step])
    return clone.eval(), found


def mean_psnr(method: Method, scene: Scene) -> float:
    """Mean over views of the PSNR of each [dB]."""
    device = next(method.parameters()).device
    method.eval()
    scores = [view_psnr(render_view(method, scene, row, device=device), scene, row) for row in range(len(scene))]
    there = [score for score in scores if score is not None]
    return sum(there) / len(there)


def evenly_spaced_views(scene: Scene, count: int) -> Scene:
    """At most `count` of the images, evenly spaced."""
    return scene.select([row * len(scene) // count for row in range(count)]) if count < len(scene) else scene
