"""Viewer of a run in the browser: a coarse image while the camera moves, finer ones when it rests."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import numpy as np
import viser
from scipy.spatial.transform import Rotation

from lumifield.errors import DataError
from lumifield.geometry.poses import estimate_up
from lumifield.rendering import camera_paths
from lumifield.rendering.view import RenderedView
from lumifield.runs.run_folder import LoadedRun
from lumifield.viewer.local_requests import refuse_foreign_requests
from lumifield.viewer.render_queue import CHANNELS, MAX_HEIGHT, MIN_HEIGHT, NORMAL_SOURCES, RenderQueue, ViewRequest
from lumifield.viewer.task_rendering import (
    RenderCanceledError,
    axial_depth,
    compose_view_image,
    format_timing,
    render_task,
)

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MAX_FRUSTA = 200
FRUSTUM_SCALE, FRUSTUM_LINE_WIDTH = 0.025, 0.0005
"""Size and line width of the frusta relative to the mean distance of the cameras from the scene."""
INITIAL_OFFSET = 0.2
"""Offset of the initial camera behind a training camera relative to its distance, so that its frustum is visible."""


class Viewer:
    """Server of one run at `address` until `close`; port 0 selects any free port."""

    def __init__(self, run: LoadedRun, port: int) -> None:
        if not 0 <= port < 65536:
            raise DataError("view", "port", str(port), "a number from 0 to 65535", "choose another --port")
        self.run, self.queue = run, RenderQueue()
        # A browser that closes a connection right after opening it would be logged with a traceback.
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        with refuse_foreign_requests():
            self.server = viser.ViserServer(HOST, port, label=f"Lumifield: {run.folder.name}", verbose=False)
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self.address = f"http://{HOST}:{self.server.get_port()}"
        self._set_initial_camera()
        self._add_camera_frusta()
        self.server.on_client_connect(self._add_client)
        self.server.on_client_disconnect(lambda client: self.queue.remove_client(client.client_id))

    @property
    def default_height(self) -> int:
        """Initial height of the final image [pixels]: that of the training images."""
        return min(max(self.run.scenes["train"].size(0)[1], MIN_HEIGHT), MAX_HEIGHT)

    def render_next(self, timeout: float = 0.5) -> RenderedView | None:
        """Renders the next image and sends it to its client; None if there is no task for `timeout` seconds.

        A view that cannot be rendered is logged and removed: no client can end the server or a training.
        """
        task = self.queue.next_task(timeout)
        if task is None:
            return None
        start = time.perf_counter()
        try:
            view = render_task(self.run, task, self.queue)
        except RenderCanceledError:
            return None
        except Exception as error:
            logger.warning("view of client %d cannot be rendered: %s: %s", task.client_id, type(error).__name__, error)
            self.queue.fail_task(task)
            return None
        self.queue.complete_task(task, view.depth.numel(), time.perf_counter() - start)
        client = self.server.get_clients().get(task.client_id)
        if client is not None:
            depth = axial_depth(view, task.view.fov).nan_to_num(0.0, 0.0, 0.0).numpy()
            pixels = compose_view_image(view, task.view.channel).numpy()
            client.scene.set_background_image(pixels, "jpeg", jpeg_quality=90, depth=depth)
        return view

    def serve(self, report_status: Callable[[str], None]) -> None:
        """Renders until interrupted, and reports the rendering time of each image."""
        while True:
            view = self.render_next()
            if view is not None:
                report_status(format_timing(view))

    def close(self) -> None:
        """Stops the server."""
        self.server.stop()

    def _set_initial_camera(self) -> None:
        """Places the camera of new clients behind the training camera that gives an overview, to orbit its target."""
        train = self.run.scenes["train"]
        overview, frame, target = camera_paths.overview_camera(train), train.frame, camera_paths.scene_focus(train)
        position = overview.positions[0] + INITIAL_OFFSET * (overview.positions[0] - target)
        self.server.scene.set_up_direction(tuple((frame.rotation @ estimate_up(train.cameras.c2w)).tolist()))
        camera = self.server.initial_camera
        camera.position = tuple(frame.to_world(position).tolist())
        camera.look_at = tuple(frame.to_world(target).tolist())
        camera.fov = 2 * math.atan(0.5 * float(overview.size[0, 1] / overview.focal[0, 1]))

    def _add_camera_frusta(self) -> None:
        """Adds the training cameras as frusta, at most `MAX_FRUSTA`, evenly spaced."""
        train = self.run.scenes["train"]
        poses = train.frame.poses_to_world(train.cameras.c2w)
        distance = (train.cameras.positions - camera_paths.scene_focus(train)).norm(dim=-1).mean() * train.frame.scale
        for row in np.unique(np.linspace(0, len(train) - 1, MAX_FRUSTA).round().astype(int)):
            width, height = train.size(int(row))
            x, y, z, w = Rotation.from_matrix(poses[row, :, :3].numpy()).as_quat()
            self.server.scene.add_camera_frustum(
                f"/cameras/{row}",
                fov=2 * math.atan(0.5 * height / float(train.cameras.focal[row, 1])),
                aspect=width / height,
                scale=FRUSTUM_SCALE * float(distance),
                thickness=FRUSTUM_LINE_WIDTH * float(distance),
                wxyz=(w, x, y, z),
                position=tuple(poses[row, :, 3].tolist()),
            )

    def _add_client(self, client: viser.ClientHandle) -> None:
        """Adds the controls of a new client, which request a view when they or the camera change."""
        gui = client.gui
        channel = gui.add_dropdown("Channel", CHANNELS)
        normals = gui.add_dropdown("Normals from", NORMAL_SOURCES)
        height = gui.add_slider("Height [pixels]", MIN_HEIGHT, MAX_HEIGHT, 1, self.default_height)
        show_cameras = gui.add_checkbox("Training cameras", True)
        frusta = client.scene.add_frame("/cameras", show_axes=False)

        def request_view(_: object) -> None:
            camera = client.camera
            try:
                pose = tuple(map(float, camera.wxyz)), tuple(map(float, camera.position))
                view = ViewRequest(*pose, camera.fov, camera.aspect, int(height.value), channel.value, normals.value)
            except (TypeError, ValueError, ArithmeticError):
                return
            self.queue.request_view(client.client_id, view)

        for control in (channel, normals, height):
            control.on_update(request_view)
        show_cameras.on_update(lambda _: setattr(frusta, "visible", show_cameras.value))
        client.camera.on_update(request_view)
        request_view(None)
