"""Rendering of the tasks of the viewer, which stops between two chunks if a task is canceled."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lumifield.rendering.render import Channel, compose_panels, scene_of_cameras
from lumifield.rendering.view import Normals, RenderedView, default_chunk, render_view
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.colormaps import quantile_range
from lumifield.viewer.render_queue import FIRST_FRAME_SECONDS, RenderQueue, RenderTask

MIN_CHUNK = 64
"""Minimum number of rays between two checks for cancellation."""


class RenderCanceledError(Exception):
    """The image is obsolete."""


def render_task(run: LoadedRun, task: RenderTask, queue: RenderQueue) -> RenderedView:
    """Renders the image of a task; raises `RenderCanceledError` once `queue` has canceled it."""
    train = run.scenes["train"]
    scene = scene_of_cameras(run, task.view.camera(train.frame, task.height))
    normals = Normals.for_training_scene(train, task.view.normals) if task.view.channel == "normal" else None
    responsive_chunk = max(round(queue.rays_per_second * FIRST_FRAME_SECONDS), MIN_CHUNK)
    chunk = min(run.chunk or default_chunk(run.device), responsive_chunk)

    def stop_if_canceled() -> None:
        if queue.is_canceled(task):
            raise RenderCanceledError

    return render_view(
        run.method,
        scene,
        0,
        device=run.device,
        chunk=chunk,
        normals=normals,
        fast_preview=True,
        before_chunk=stop_if_canceled,
    )


def format_timing(view: RenderedView) -> str:
    """Rendering time and size of a view."""
    height, width = view.depth.shape
    return f"{1000 * view.seconds:.0f} ms for {width}x{height}"


def compose_view_image(view: RenderedView, channel: Channel) -> UInt8[Tensor, "h w 3"]:
    """One channel of a view as an image; depth is colored over its own range."""
    height, width = view.depth.shape
    return compose_panels(view, (channel,), (width, height), quantile_range(view.depth[view.hit_mask]))


def axial_depth(view: RenderedView, fov: float) -> Float[Tensor, "h w"]:
    """Depth along the optical axis [world units] from the distance along the rays, for a vertical angle [radians]."""
    height, width = view.depth.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    focal = 0.5 * height / math.tan(fov / 2)
    return view.depth / (1 + ((x - width / 2) ** 2 + (y - height / 2) ** 2) / focal**2).sqrt()
