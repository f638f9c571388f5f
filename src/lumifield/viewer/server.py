"""A run in the browser: a coarse image at once while the camera moves, finer ones when it rests."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import viser
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation
from torch import Tensor

from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras, pinhole_cameras
from lumifield.geometry.poses import estimate_up
from lumifield.geometry.rays import Ndc, Rays
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.rendering import camera_paths
from lumifield.rendering.render import Channel, compose_panels, scene_of_cameras
from lumifield.rendering.view import Normals, NormalSource, RenderedView, default_chunk, render_view
from lumifield.runs.run_folder import CAMERAS, LoadedRun, read_cameras
from lumifield.runtime.colormaps import quantile_range
from lumifield.training.fit import StepReport, TrainingState

HOST = "127.0.0.1"
CHANNELS: tuple[Channel, ...] = ("rgb", "depth", "bands", "normal", "opacity")
SOURCES: tuple[NormalSource, ...] = ("density", "depth")
FIRST_SECONDS = 0.1
"""How long the image of a moving camera may take."""
FIRST_SPEED = 2e4
LEAST_HEIGHT, MOST_HEIGHT = 24, 1080
MOST_FRUSTA = 200
RENEW_SECONDS = 2.0
"""How often the image of a camera that rests is made anew while the scene is still learned."""
STEP_BACK = 0.2
"""How far visitors begin behind a camera, as a share of its distance: they would not see its frustum from inside."""


@dataclass(frozen=True)
class Look:
    """What a visitor wants to see: a camera in the world (quaternion w x y z, OpenCV axes), and how it is shown.

    `fov` is the vertical angle [radians], `aspect` width over height, `height` that of the finest image [pixels].
    """

    wxyz: tuple[float, ...]
    position: tuple[float, ...]
    fov: float
    aspect: float
    height: int
    channel: Channel = "rgb"
    normals: NormalSource = "density"

    def camera(self, frame: Frame, height: int) -> Cameras:
        """Its camera in the scene, with an image of that height."""
        w, x, y, z = self.wxyz
        rotation = torch.from_numpy(Rotation.from_quat([x, y, z, w]).as_matrix()).float()
        c2w = torch.cat([rotation, torch.tensor(self.position, dtype=torch.float32)[:, None]], -1)
        size = max(round(height * self.aspect), 1), height
        return pinhole_cameras(frame.poses_to_scene(c2w[None]), 0.5 * height / math.tan(self.fov / 2), size)


@dataclass(frozen=True)
class Order:
    """One image to render: for whom, of what, how high [pixels], and whether it is the first of its look."""

    visitor: int
    look: Look
    height: int
    first: bool


class Desk:
    """Decides what is rendered next, and for whom; visitors and the renderer may be different threads.

    The first image of a look is as high as `FIRST_SECONDS` allow, each further one twice as high. It is always
    finished, so that something is seen while the camera moves; further ones are dropped when the look changes.
    """

    def __init__(self) -> None:
        self.speed = FIRST_SPEED
        self._looks: dict[int, tuple[Look, int]] = {}
        self._changed = threading.Condition()

    def ask(self, visitor: int, look: Look) -> None:
        """The visitor wants to see this from now on."""
        with self._changed:
            self._looks[visitor] = look, 0
            self._changed.notify()

    def leave(self, visitor: int) -> None:
        """The visitor is gone."""
        with self._changed:
            self._looks.pop(visitor, None)

    def order(self, patience: float) -> Order | None:
        """The image to render next: of those that somebody waits for the lowest; None after `patience` seconds."""
        with self._changed:
            if not self._waiting():
                self._changed.wait(patience)
            return min(self._waiting(), key=lambda order: order.height, default=None)

    def dropped(self, order: Order) -> bool:
        """Whether nobody waits for the image any more."""
        with self._changed:
            look, _ = self._looks.get(order.visitor, (None, 0))
            return look is None or (not order.first and look is not order.look)

    def renew(self) -> None:
        """What has been shown is out of date: the finest image of every look is wanted again."""
        with self._changed:
            for visitor, (look, done) in self._looks.items():
                self._looks[visitor] = look, min(done, (look.height + 1) // 2)

    def deliver(self, order: Order, rays: int, seconds: float) -> None:
        """The image is finished: it took that long."""
        with self._changed:
            self.speed = math.sqrt(self.speed * rays / max(seconds, 1e-4))
            look, _ = self._looks.get(order.visitor, (None, 0))
            if look is order.look:
                self._looks[order.visitor] = order.look, order.height

    def _waiting(self) -> list[Order]:
        return [
            Order(visitor, look, self._height(look, done), done == 0)
            for visitor, (look, done) in self._looks.items()
            if done < look.height
        ]

    def _height(self, look: Look, done: int) -> int:
        first = round(math.sqrt(self.speed * FIRST_SECONDS / look.aspect))
        return min(2 * done or max(first, LEAST_HEIGHT), look.height)


class Dropped(Exception):
    """Nobody waits for the image any more."""


class Dropping(Method):
    """A method that raises `Dropped` between two pieces of an image that nobody waits for any more."""

    def __init__(self, method: Method, dropped: Callable[[], bool]) -> None:
        super().__init__()
        self.method, self.dropped, self.patch_size = method, dropped, method.patch_size

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """What the method sees."""
        if self.dropped():
            raise Dropped
        return self.method(rays, context)

    def normals(self, points: Float[Tensor, "p 3"], step: Float[Tensor, " p"], ndc: Ndc | None) -> Float[Tensor, "p 3"]:
        """The normals of the method."""
        if self.dropped():
            raise Dropped
        return self.method.normals(points, step, ndc)


def rendered(run: LoadedRun, order: Order, desk: Desk) -> RenderedView:
    """The view that was ordered; raises `Dropped` as soon as nobody waits for it any more."""
    train = run.scenes["train"]
    scene = scene_of_cameras(run, order.look.camera(train.frame, order.height))
    normals = Normals.for_training_scene(train, order.look.normals) if order.look.channel == "normal" else None
    chunk = min(run.chunk or default_chunk(run.device), max(round(desk.speed * FIRST_SECONDS), 64))
    method = Dropping(run.method, lambda: desk.dropped(order))
    return render_view(method, scene, 0, device=run.device, chunk=chunk, normals=normals, fast_preview=True)


def timing(seen: RenderedView) -> str:
    """How long an image took, and its size."""
    height, width = seen.depth.shape
    return f"{1000 * seen.seconds:.0f} ms for {width}x{height}"


def image(seen: RenderedView, channel: Channel) -> UInt8[Tensor, "h w 3"]:
    """One channel of a view; depth in the range of colors of this view."""
    height, width = seen.depth.shape
    return compose_panels(seen, (channel,), (width, height), quantile_range(seen.depth[seen.hit_mask]))


def axial(seen: RenderedView, fov: float) -> Float[Tensor, "h w"]:
    """The depth of a view along the optical axis [world units]."""
    height, width = seen.depth.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    focal = 0.5 * height / math.tan(fov / 2)
    return seen.depth / (1 + ((x - width / 2) ** 2 + (y - height / 2) ** 2) / focal**2).sqrt()


class Viewer:
    """A server of one run; visitors see it at `address` until `close`."""

    def __init__(self, run: LoadedRun, port: int) -> None:
        if not 0 < port < 65536:
            raise DataError("--port", "port", str(port), "1 to 65535", "choose another")
        self.run, self.desk = run, Desk()
        # A browser that opens a connection and thinks better of it would be told of as an error, with a traceback.
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        self.server = viser.ViserServer(HOST, port, label=f"Lumifield: {run.folder.name}", verbose=False)
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self.address = f"http://{HOST}:{self.server.get_port()}"
        self._point_camera()
        self._show_cameras()
        self.server.on_client_connect(self._welcome)
        self.server.on_client_disconnect(lambda client: self.desk.leave(client.client_id))

    def work(self, patience: float = 0.5) -> RenderedView | None:
        """Renders the next image and shows it; None after `patience` seconds where nobody waits for one."""
        order = self.desk.order(patience)
        if order is None:
            return None
        start = time.perf_counter()
        try:
            seen = rendered(self.run, order, self.desk)
        except Dropped:
            return None
        self.desk.deliver(order, seen.depth.numel(), time.perf_counter() - start)
        client = self.server.get_clients().get(order.visitor)
        if client is not None:
            depth = axial(seen, order.look.fov).nan_to_num(0.0, 0.0, 0.0).numpy()
            pixels = image(seen, order.look.channel).numpy()
            client.scene.set_background_image(pixels, "jpeg", jpeg_quality=90, depth=depth)
        return seen

    def serve(self, say: Callable[[str], None]) -> None:
        """Works until it is interrupted, and says how long each image took."""
        while True:
            seen = self.work()
            if seen is not None:
                say(timing(seen))

    def close(self) -> None:
        """Ends the server."""
        self.server.stop()

    def _point_camera(self) -> None:
        """Visitors begin a step behind the camera that shows the whole scene, and turn about what it looks at."""
        train = self.run.scenes["train"]
        first, frame, target = camera_paths.overview_camera(train), train.frame, camera_paths.scene_focus(train)
        behind = first.positions[0] + STEP_BACK * (first.positions[0] - target)
        self.server.scene.set_up_direction(tuple((frame.rotation @ estimate_up(train.cameras.c2w)).tolist()))
        camera = self.server.initial_camera
        camera.position = tuple(frame.to_world(behind).tolist())
        camera.look_at = tuple(frame.to_world(target).tolist())
        camera.fov = 2 * math.atan(0.5 * float(first.size[0, 1] / first.focal[0, 1]))

    def _show_cameras(self) -> None:
        """The cameras of the training as frusta, at most `MOST_FRUSTA` of them."""
        train = self.run.scenes["train"]
        poses = train.frame.poses_to_world(train.cameras.c2w)
        distance = (train.cameras.positions - camera_paths.scene_focus(train)).norm(dim=-1).mean() * train.frame.scale
        for row in np.unique(np.linspace(0, len(train) - 1, MOST_FRUSTA).round().astype(int)):
            width, height = train.size(int(row))
            x, y, z, w = Rotation.from_matrix(poses[row, :, :3].numpy()).as_quat()
            self.server.scene.add_camera_frustum(
                f"/cameras/{row}",
                fov=2 * math.atan(0.5 * height / float(train.cameras.focal[row, 1])),
                aspect=width / height,
                scale=0.025 * float(distance),
                thickness=0.0005 * float(distance),
                wxyz=(w, x, y, z),
                position=tuple(poses[row, :, 3].tolist()),
            )

    def _welcome(self, client: viser.ClientHandle) -> None:
        """The controls of a new visitor, and what happens when they or the camera move."""
        gui = client.gui
        channel = gui.add_dropdown("Show", CHANNELS)
        normals = gui.add_dropdown("Normals from", SOURCES)
        height = gui.add_slider("Height [pixels]", LEAST_HEIGHT, MOST_HEIGHT, 1, self.finest)
        cameras = gui.add_checkbox("Cameras", True)
        frusta = client.scene.add_frame("/cameras", show_axes=False)

        def ask(_: object) -> None:
            at = client.camera
            pose = tuple(at.wxyz.tolist()), tuple(at.position.tolist())
            look = Look(*pose, at.fov, at.aspect, int(height.value), channel.value, normals.value)
            self.desk.ask(client.client_id, look)

        for control in (channel, normals, height):
            control.on_update(ask)
        cameras.on_update(lambda _: setattr(frusta, "visible", cameras.value))
        client.camera.on_update(ask)

    @property
    def finest(self) -> int:
        """The height of the finest image [pixels] before a visitor chooses another: that of the images."""
        return min(max(self.run.scenes["train"].size(0)[1], LEAST_HEIGHT), MOST_HEIGHT)


class LiveView:
    """A listener that shows a training in the browser, from the run's first step until `close`.

    Images are made between two steps, and after each one the training has as much time as it took.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], port: int = 8080) -> None:
        self._folder, self._say, self._port = folder, say, port
        self._viewer: Viewer | None = None
        self._free = self._renewed = 0.0

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Makes the next image that a visitor waits for, if it is not the training's turn."""
        start = time.perf_counter()
        if start < self._free:
            return
        viewer = self._opened(state)
        if start - self._renewed > RENEW_SECONDS:
            self._renewed = start
            viewer.desk.renew()
        state.method.eval()
        viewer.work(patience=0.0)
        state.method.train()
        now = time.perf_counter()
        self._free = 2 * now - start

    def close(self) -> None:
        """Ends the server."""
        if self._viewer is not None:
            self._viewer.close()

    def _opened(self, state: TrainingState) -> Viewer:
        """The viewer, on the method as it is now: a start that has collapsed leaves its viewer to the next one."""
        if self._viewer is None:
            scenes, device = read_cameras(self._folder / CAMERAS), state.rng.generator.device
            self._viewer = Viewer(LoadedRun(self._folder, state.method, {}, None, scenes, device, {}), self._port)
            self._say(f"shown at {self._viewer.address}")
        self._viewer.run = replace(self._viewer.run, method=state.method)
        return self._viewer
