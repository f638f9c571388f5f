import math
import threading
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from lumifield.viewer import render_queue
from lumifield.viewer.render_queue import RenderQueue, ViewRequest
from view_requests import VIEW, ball_run


def test_a_request_with_the_pose_of_an_image_gives_its_camera(tmp_path):
    scene = ball_run(tmp_path).scenes["train"]
    pose = scene.frame.poses_to_world(scene.cameras.c2w)[1]
    x, y, z, w = Rotation.from_matrix(pose[:, :3].numpy()).as_quat()
    view = ViewRequest((w, x, y, z), tuple(pose[:, 3].tolist()), 2 * math.atan(24 / 64), 64 / 48, 48)
    camera = view.camera(scene.frame, 48)
    torch.testing.assert_close(camera.c2w[0], scene.cameras.c2w[1], atol=1e-5, rtol=0)
    assert camera.focal[0].tolist() == pytest.approx([64, 64])
    assert camera.size.tolist() == [[64, 48]]
    small = view.camera(scene.frame, 12)
    assert small.size.tolist() == [[16, 12]]
    assert small.focal[0].tolist() == pytest.approx([16, 16])


def queue_at(rays_per_second: float) -> RenderQueue:
    queue = RenderQueue()
    queue.rays_per_second = rays_per_second
    return queue


def completed_heights(queue: RenderQueue, max_tasks: int) -> list[int]:
    """Heights of the next images, each of which takes as long as the queue expects."""
    heights = []
    for _ in range(max_tasks):
        task = queue.next_task(0)
        if task is None:
            break
        heights.append(task.height)
        num_rays = task.height**2
        queue.complete_task(task, num_rays, num_rays / queue.rays_per_second)
    return heights


def test_the_height_doubles_up_to_the_requested_one():
    queue = queue_at(12_000.0)
    queue.request_view(0, replace(VIEW, height=200))
    assert completed_heights(queue, 9) == [30, 60, 120, 200]


@pytest.mark.parametrize(
    ("rays_per_second", "height"), [(1.0, render_queue.MIN_HEIGHT), (12_000.0, 30), (1e9, VIEW.height)]
)
def test_the_first_height_follows_from_the_speed(rays_per_second, height):
    queue = queue_at(rays_per_second)
    queue.request_view(0, VIEW)
    task = queue.next_task(0)
    assert (task.height, task.is_first) == (height, True)


def test_the_speed_converges_to_the_measured_one():
    queue = RenderQueue()
    queue.request_view(0, VIEW)
    for _ in range(30):
        queue.complete_task(queue.next_task(0), 1000, 0.01)
        queue.request_view(0, replace(VIEW))
    assert queue.rays_per_second == pytest.approx(1e5, rel=1e-3)


def test_a_new_view_restarts_and_cancels_all_but_first_images():
    queue = RenderQueue()
    queue.request_view(0, VIEW)
    first = queue.next_task(0)
    queue.request_view(0, replace(VIEW, fov=0.9))
    assert not queue.is_canceled(first), "a camera that always moves would never be shown"
    queue.complete_task(first, 100, 0.01)
    restarted = queue.next_task(0)
    assert restarted.is_first
    queue.complete_task(restarted, 100, 0.01)
    finer = queue.next_task(0)
    assert not finer.is_first
    assert not queue.is_canceled(finer)
    queue.request_view(0, VIEW)
    assert queue.is_canceled(finer)


def test_an_equal_view_is_rendered_again():
    """The client may have moved away and back, and show the image of another view."""
    queue = RenderQueue()
    queue.request_view(0, VIEW)
    queue.complete_task(queue.next_task(0), 100, 0.01)
    queue.request_view(0, replace(VIEW))
    assert queue.next_task(0).is_first


def test_clients_share_the_renderer_lowest_image_first():
    queue = queue_at(12_000.0)
    queue.request_view(0, VIEW)
    task = queue.next_task(0)
    queue.complete_task(task, 900, 900 / queue.rays_per_second)
    queue.request_view(1, VIEW)
    assert queue.next_task(0).client_id == 1
    queue.remove_client(1)
    assert queue.next_task(0).client_id == 0
    queue.remove_client(0)
    assert queue.next_task(0) is None
    assert queue.is_canceled(task)


def test_an_invalidated_view_is_rendered_again_at_its_final_height():
    queue = queue_at(12_000.0)
    queue.request_view(0, replace(VIEW, height=95))
    assert completed_heights(queue, 9) == [30, 60, 95]
    queue.invalidate_views()
    assert not queue.next_task(0).is_first
    assert completed_heights(queue, 9) == [95]


def test_invalidation_continues_the_refinement_of_coarse_images():
    queue = queue_at(12_000.0)
    queue.request_view(0, replace(VIEW, height=200))
    assert completed_heights(queue, 1) == [30]
    queue.invalidate_views()
    assert completed_heights(queue, 9) == [60, 120, 200]


def test_a_request_wakes_the_waiting_renderer(monkeypatch):
    queue = RenderQueue()
    wait = queue._changed.wait

    def wait_after_request(timeout: float) -> bool:
        # The thread can only enter once `wait` has released the lock.
        threading.Thread(target=queue.request_view, args=(7, VIEW)).start()
        return wait(timeout)

    monkeypatch.setattr(queue._changed, "wait", wait_after_request)
    assert queue.next_task(60).client_id == 7
