from dataclasses import replace

import pytest
import torch

from analytic import CPU, Ball, scene_of
from lumifield.data.scene import Frame
from lumifield.geometry.rays import Rays
from lumifield.methods.base import RenderContext, Rendered, Traits
from lumifield.rendering.view import RenderedView, render_view
from lumifield.runtime.colormaps import quantile_range
from lumifield.viewer.render_queue import RenderQueue
from lumifield.viewer.server import CHANNELS
from lumifield.viewer.task_rendering import (
    RenderCanceledError,
    axial_depth,
    compose_view_image,
    format_timing,
    render_task,
)
from view_requests import VIEW, ball_run, rotated_frame


@pytest.fixture
def run(tmp_path):
    return ball_run(tmp_path)


@pytest.fixture
def queue() -> RenderQueue:
    """A queue with one view of client 0."""
    queue = RenderQueue()
    queue.request_view(0, VIEW)
    return queue


def test_a_task_renders_the_view_of_its_camera(run, queue):
    task = replace(queue.next_task(0), height=30)
    view = render_task(run, task, queue)
    assert view.rgb.shape == (30, 40, 3)
    scene = replace(scene_of(VIEW.camera(rotated_frame(), 30), frame=rotated_frame()), near=torch.tensor([2.0]))
    torch.testing.assert_close(view.rgb, render_view(Ball(), scene, 0, device=CPU).rgb)
    assert view.normal is None
    normal_task = replace(task, view=replace(VIEW, channel="normal"))
    assert render_task(run, normal_task, queue).normal is not None


def test_a_canceled_task_stops_between_two_chunks(run, queue):
    class ThirdChunkMovesCamera(Ball):
        def forward(self, rays: Rays, context: RenderContext) -> Rendered:
            rendered = super().forward(rays, context)
            if self.calls == 3:
                queue.request_view(0, replace(VIEW))
            return rendered

    run = replace(run, method=ThirdChunkMovesCamera(), chunk=64)
    with pytest.raises(RenderCanceledError):
        render_task(run, replace(queue.next_task(0), height=96, is_first=False), queue)
    assert run.method.calls == 3


def test_normals_stop_when_the_client_leaves(run, queue):
    class ClientLeavesBeforeNormals(Ball):
        def normals(self, points, step, ndc):
            queue.remove_client(0)
            calls.append(len(points))
            return super().normals(points, step, ndc)

    calls: list[int] = []
    queue.request_view(0, replace(VIEW, channel="normal"))
    task = replace(queue.next_task(0), height=96, is_first=False)
    with pytest.raises(RenderCanceledError):
        render_task(replace(run, method=ClientLeavesBeforeNormals(), chunk=64), task, queue)
    assert calls == [64]


def test_patch_methods_render_whole_images_as_a_fast_preview(run, queue):
    calls = []

    class WholeImages(Ball):
        traits = Traits(patch_size=8)

        def forward(self, rays: Rays, context: RenderContext) -> Rendered:
            calls.append((len(rays), context.patch_size, context.fast_preview))
            return super().forward(rays, context)

    run = replace(run, method=WholeImages(), chunk=64)
    render_task(run, replace(queue.next_task(0), height=30), queue)
    ((num_rays, patch_size, camera),) = calls
    assert (num_rays, patch_size) == (1200, (30, 40))
    torch.testing.assert_close(camera.c2w, VIEW.camera(rotated_frame(), 30).c2w)


def test_timing_names_milliseconds_and_size():
    assert format_timing(RenderedView(torch.zeros(30, 40, 3), *torch.ones(2, 30, 40), 0.0314)) == "31 ms for 40x30"


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_is_an_image(channel):
    view = RenderedView(torch.rand(6, 8, 3), torch.rand(6, 8) + 2, torch.ones(6, 8), 0.0, torch.rand(6, 8, 3))
    image = compose_view_image(view, channel)
    assert image.shape == (6, 8, 3)
    assert image.dtype == torch.uint8
    if channel == "depth":
        assert torch.equal(image, view.depth_image(*quantile_range(view.depth.flatten())))


def test_axial_depth_of_a_fronto_parallel_wall_is_constant():
    camera = VIEW.camera(Frame.identity(), 30)
    x, y = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(30) + 0.5, indexing="xy")
    directions = camera.directions(torch.zeros(30, 40, dtype=torch.int64), x, y)
    view = RenderedView(torch.zeros(30, 40, 3), 5 * directions.norm(dim=-1), torch.ones(30, 40), 0.0)
    torch.testing.assert_close(axial_depth(view, VIEW.fov), torch.full((30, 40), 5.0))
