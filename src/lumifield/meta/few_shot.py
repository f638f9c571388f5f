"""Few-shot protocols: which part of a task a start may learn from, and what it then knows of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from lumifield.data.collection import Task
from lumifield.data.scene import Images, Scene
from lumifield.errors import DataError
from lumifield.meta import FewShot, InnerLoop
from lumifield.meta.inner import copy_for, learn
from lumifield.methods.base import Method
from lumifield.rendering.view import render_view, view_psnr
from lumifield.runtime.rng import Rng
from lumifield.training.fit import StepReport, TrainingState


def divided(task: Task, few_shot: FewShot) -> tuple[Scene, Scene]:
    """What may be learned from a task, and what is held out to score.

    An image by itself is learned from in its left half and scored in its right one; of an object the first frames
    are learned from and those that `few_shot` says are scored; other scenes have images of their own for that.
    Raises `DataError` where the task has too few.
    """
    count = len(task.cameras())
    if count == 1:
        photograph = task.photographs()
        return half(photograph, left=True), half(photograph, left=False)
    others = task.held_out()
    if others is not None:
        return task.photographs(slice(few_shot.support)), others
    first, end = few_shot.held_out
    if first >= count:
        fix = "name frames that it has"
        raise DataError(task.name, "held-out frames", f"{first} to {end}", f"some of 0 to {count - 1}", fix)
    return task.photographs(slice(few_shot.support)), task.photographs(slice(first, end))


def half(photograph: Scene, *, left: bool) -> Scene:
    """An image of which one half counts; the right one has the middle column of an odd width."""
    (width, height), images = photograph.size(0), photograph.images
    assert images is not None
    column = torch.arange(width, device=images.pixels.device).repeat(height)
    counts: Bool[Tensor, " p"] = (column < width // 2) == left
    mask = counts if images.mask is None else counts & images.mask
    return replace(photograph, images=Images(images.pixels, images.offsets, mask))


def taught(
    start: Method, support: Scene, held_out: Scene, loop: InnerLoop, *, seed: int, looks: Sequence[int] = ()
) -> tuple[Method, dict[int, float]]:
    """A copy of the start that has learned `support`, and its PSNR [dB] on `held_out` after the steps of `looks`."""
    device = next(start.parameters()).device
    copy, support = copy_for(start, support), support.to(device)
    found = {0: mean_psnr(copy, held_out)} if 0 in looks else {}

    def look(state: TrainingState, report: StepReport) -> None:
        if state.step in looks:
            found[state.step] = mean_psnr(copy, held_out)
            copy.train()

    learn(copy, [support], loop, Rng(torch.Generator(device).manual_seed(seed)), [look])
    return copy.eval(), found


def mean_psnr(method: Method, scene: Scene) -> float:
    """The mean over the views of each one's PSNR [dB]."""
    device = next(method.parameters()).device
    method.eval()
    scores = [view_psnr(render_view(method, scene, row, device=device), scene, row) for row in range(len(scene))]
    there = [score for score in scores if score is not None]
    return sum(there) / len(there)


def spread(scene: Scene, count: int) -> Scene:
    """At most `count` of the images, evenly spread."""
    return scene.select([row * len(scene) // count for row in range(count)]) if count < len(scene) else scene
