"""Queue of the images to render for the clients of the viewer, each view at increasing resolution."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import torch
from scipy.spatial.transform import Rotation

from lumifield.data.scene import Frame
from lumifield.geometry.cameras import Cameras, pinhole_cameras
from lumifield.rendering.render import Channel
from lumifield.rendering.view import NormalSource

FIRST_FRAME_SECONDS = 0.1
"""Target rendering time of the first image of a view."""
INITIAL_RAYS_PER_SECOND = 2e4
MIN_HEIGHT, MAX_HEIGHT = 24, 1080
CHANNELS: tuple[Channel, ...] = ("rgb", "depth", "bands", "normal", "opacity")
NORMAL_SOURCES: tuple[NormalSource, ...] = ("density", "depth")
MIN_FOV, MAX_FOV = 0.01, 3.1
MAX_ASPECT = 10.0
MAX_COORDINATE = 1e9


@dataclass(frozen=True)
class ViewRequest:
    """View that a client requests: world camera (quaternion w x y z, OpenCV axes) and output channel.

    `fov` is the vertical angle [radians], `aspect` width over height, `height` that of the final image [pixels]. Raises
    `ValueError` for values that no camera has: clients are not trusted.
    """

    wxyz: tuple[float, ...]
    position: tuple[float, ...]
    fov: float
    aspect: float
    height: int
    channel: Channel = "rgb"
    normals: NormalSource = "density"

    def __post_init__(self) -> None:
        is_valid = (
            len(self.wxyz) == 4
            and len(self.position) == 3
            and 1e-3 < math.hypot(*self.wxyz) < 1e3
            and all(abs(coordinate) <= MAX_COORDINATE for coordinate in self.position)
            and MIN_FOV <= self.fov <= MAX_FOV
            and 1 / MAX_ASPECT <= self.aspect <= MAX_ASPECT
            and MIN_HEIGHT <= self.height <= MAX_HEIGHT
            and self.channel in CHANNELS
            and self.normals in NORMAL_SOURCES
        )
        if not is_valid:
            raise ValueError("not the view of a camera")

    def camera(self, frame: Frame, height: int) -> Cameras:
        """Camera in scene coordinates for an image of the given height."""
        w, x, y, z = self.wxyz
        rotation = torch.from_numpy(Rotation.from_quat([x, y, z, w]).as_matrix()).float()
        c2w = torch.cat([rotation, torch.tensor(self.position, dtype=torch.float32)[:, None]], -1)
        size = max(round(height * self.aspect), 1), height
        return pinhole_cameras(frame.poses_to_scene(c2w[None]), 0.5 * height / math.tan(self.fov / 2), size)


@dataclass(frozen=True)
class RenderTask:
    """One image to render for a client; `is_first` for the first image of a requested view."""

    client_id: int
    view: ViewRequest
    height: int
    is_first: bool


class RenderQueue:
    """Selects the next image to render; clients and the renderer may be different threads.

    The height of the first image of a view follows from `FIRST_FRAME_SECONDS` and the measured speed, each further one
    is twice as high. First images are always completed, so that a moving camera is shown; further ones are canceled
    when the client requests another view.
    """

    def __init__(self) -> None:
        self.rays_per_second = INITIAL_RAYS_PER_SECOND
        self._views: dict[int, tuple[ViewRequest, int]] = {}  # with the height of the last completed image
        self._changed = threading.Condition()

    def request_view(self, client_id: int, view: ViewRequest) -> None:
        """Replaces the view of a client."""
        with self._changed:
            self._views[client_id] = view, 0
            self._changed.notify()

    def remove_client(self, client_id: int) -> None:
        """Removes the view of a client."""
        with self._changed:
            self._views.pop(client_id, None)

    def next_task(self, timeout: float) -> RenderTask | None:
        """Pending image with the lowest height; None if there is none for `timeout` seconds."""
        with self._changed:
            if not self._pending_tasks():
                self._changed.wait(timeout)
            return min(self._pending_tasks(), key=lambda task: task.height, default=None)

    def is_canceled(self, task: RenderTask) -> bool:
        """Whether the image is obsolete: the client left, or requested another view (unless it is a first image)."""
        with self._changed:
            view, _ = self._views.get(task.client_id, (None, 0))
            return view is None or (not task.is_first and view is not task.view)

    def invalidate_views(self) -> None:
        """Queues the final image of every view again, because the scene has changed."""
        with self._changed:
            for client_id, (view, completed) in self._views.items():
                self._views[client_id] = view, min(completed, (view.height + 1) // 2)

    def complete_task(self, task: RenderTask, num_rays: int, seconds: float) -> None:
        """Records a rendered image and updates the speed, the geometric mean of the last and the new one."""
        with self._changed:
            self.rays_per_second = math.sqrt(self.rays_per_second * num_rays / max(seconds, 1e-4))
            view, _ = self._views.get(task.client_id, (None, 0))
            if view is task.view:
                self._views[task.client_id] = task.view, task.height

    def fail_task(self, task: RenderTask) -> None:
        """Removes the view of a task that cannot be rendered, until the client requests another one."""
        with self._changed:
            view, _ = self._views.get(task.client_id, (None, 0))
            if view is task.view:
                self._views.pop(task.client_id)

    def _pending_tasks(self) -> list[RenderTask]:
        return [
            RenderTask(client_id, view, self._next_height(view, completed), is_first=completed == 0)
            for client_id, (view, completed) in self._views.items()
            if completed < view.height
        ]

    def _next_height(self, view: ViewRequest, completed: int) -> int:
        first = round(math.sqrt(self.rays_per_second * FIRST_FRAME_SECONDS / view.aspect))
        return min(2 * completed or max(first, MIN_HEIGHT), view.height)
