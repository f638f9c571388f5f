import io
import math
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from analytic import CPU, Ball, around, run_of, scene_of
from browser import CHROMIUM, PATIENCE, opened
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.geometry.rays import Rays
from lumifield.methods.base import RenderContext, Rendered
from lumifield.rendering.view import RenderedView, render_view
from lumifield.runtime.colormaps import quantile_range
from lumifield.training import Train
from lumifield.training.fit import StepReport, TrainingState
from lumifield.training.job import TrainingJob, run_training
from lumifield.viewer import server
from lumifield.viewer.server import Desk, Dropped, LiveView, Look, Viewer, axial, image, rendered
from scenes import INSTANT, written

LOOK = Look((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -8.0), 0.8, 4 / 3, 96)


def moved() -> Frame:
    c, s = math.cos(0.3), math.sin(0.3)
    return Frame(torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]), torch.tensor([5.0, -2.0, 1.0]), 2.5)


@pytest.fixture
def run(tmp_path):
    return run_of(tmp_path / "ball", Ball(), {"train": scene_of(around(6, (64, 48)), frame=moved())})


def test_a_look_is_the_camera_of_a_photograph(run):
    """From the quaternion, position and angle in the world come the rays of the scene's own camera."""
    scene = run.scenes["train"]
    pose = scene.frame.poses_to_world(scene.cameras.c2w)[1]
    x, y, z, w = server.Rotation.from_matrix(pose[:, :3].numpy()).as_quat()
    look = Look((w, x, y, z), tuple(pose[:, 3].tolist()), 2 * math.atan(24 / 64), 64 / 48, 48)
    camera = look.camera(scene.frame, 48)
    torch.testing.assert_close(camera.c2w[0], scene.cameras.c2w[1], atol=1e-5, rtol=0)
    assert camera.focal[0].tolist() == pytest.approx([64, 64])
    assert camera.size.tolist() == [[64, 48]]
    small = look.camera(scene.frame, 12)
    assert small.size.tolist() == [[16, 12]]
    assert small.focal[0].tolist() == pytest.approx([16, 16])


def heights(desk: Desk, count: int) -> list[int]:
    """The heights of the next images, each of which takes as long as the desk expects."""
    found = []
    for _ in range(count):
        order = desk.order(0)
        if order is None:
            break
        found.append(order.height)
        rays = order.height**2
        desk.deliver(order, rays, rays / desk.speed)
    return found


def test_images_become_finer_until_the_height_is_reached():
    desk = Desk()
    desk.speed = 12_000.0
    desk.ask(0, replace(LOOK, height=200))
    assert heights(desk, 9) == [30, 60, 120, 200]


def test_the_first_image_is_as_high_as_the_speed_allows():
    desk = Desk()
    for speed, first in ((1.0, server.LEAST_HEIGHT), (12_000.0, 30), (1e9, 96)):
        desk.speed = speed
        desk.ask(0, LOOK)
        order = desk.order(0)
        assert (order.height, order.first) == (first, True)


def test_the_speed_follows_what_was_measured():
    desk = Desk()
    desk.ask(0, LOOK)
    for _ in range(30):
        desk.deliver(desk.order(0), 1000, 0.01)
        desk.ask(0, replace(LOOK))
    assert desk.speed == pytest.approx(1e5, rel=1e-3)


def test_a_new_look_begins_anew_and_drops_all_but_first_images():
    desk = Desk()
    desk.ask(0, LOOK)
    first = desk.order(0)
    desk.ask(0, replace(LOOK, fov=0.9))
    assert not desk.dropped(first), "a camera that never rests would never be answered"
    desk.deliver(first, 100, 0.01)
    again = desk.order(0)
    assert again.first
    desk.deliver(again, 100, 0.01)
    finer = desk.order(0)
    assert not finer.first
    assert not desk.dropped(finer)
    desk.ask(0, LOOK)
    assert desk.dropped(finer)


def test_an_equal_look_is_asked_anew():
    """Whoever asks twice has moved and come back: the image on the screen may be another."""
    desk = Desk()
    desk.ask(0, LOOK)
    desk.deliver(desk.order(0), 100, 0.01)
    desk.ask(0, replace(LOOK))
    assert desk.order(0).first


def test_visitors_share_the_renderer_lowest_image_first():
    desk = Desk()
    desk.speed = 12_000.0
    desk.ask(0, LOOK)
    order = desk.order(0)
    desk.deliver(order, 900, 900 / desk.speed)
    desk.ask(1, LOOK)
    assert desk.order(0).visitor == 1
    desk.leave(1)
    assert desk.order(0).visitor == 0
    desk.leave(0)
    assert desk.order(0) is None
    assert desk.dropped(order)


def test_what_is_out_of_date_is_made_anew_at_its_finest():
    desk = Desk()
    desk.speed = 12_000.0
    desk.ask(0, replace(LOOK, height=95))
    assert heights(desk, 9) == [30, 60, 95]
    desk.renew()
    order = desk.order(0)
    assert not order.first
    assert heights(desk, 9) == [95]


def test_a_renewal_leaves_coarse_images_to_be_refined():
    desk = Desk()
    desk.speed = 12_000.0
    desk.ask(0, replace(LOOK, height=200))
    assert heights(desk, 1) == [30]
    desk.renew()
    assert heights(desk, 9) == [60, 120, 200]


def test_the_renderer_wakes_when_something_is_asked():
    desk = Desk()
    threading.Timer(0.05, desk.ask, (7, LOOK)).start()
    assert desk.order(60).visitor == 7


def test_what_is_ordered_is_what_a_view_of_the_camera_shows(run):
    desk = Desk()
    desk.ask(0, LOOK)
    order = replace(desk.order(0), height=30)
    seen = rendered(run, order, desk)
    assert seen.rgb.shape == (30, 40, 3)
    scene = replace(scene_of(LOOK.camera(moved(), 30), frame=moved()), near=torch.tensor([2.0]))
    torch.testing.assert_close(seen.rgb, render_view(Ball(), scene, 0, device=CPU).rgb)
    assert seen.normal is None
    normal = rendered(run, replace(order, look=replace(LOOK, channel="normal")), desk)
    assert normal.normal is not None


def test_an_image_is_dropped_between_its_pieces(run):
    desk = Desk()

    class Leaving(Ball):
        def forward(self, rays: Rays, context: RenderContext) -> Rendered:
            seen = super().forward(rays, context)
            if self.calls == 3:
                desk.ask(0, replace(LOOK))
            return seen

    run = replace(run, method=Leaving(), chunk=64)
    desk.ask(0, LOOK)
    order = replace(desk.order(0), height=96, first=False)
    with pytest.raises(Dropped):
        rendered(run, order, desk)
    assert run.method.calls == 3
    desk.ask(0, LOOK)
    gone = replace(desk.order(0), first=False)
    desk.leave(0)
    with pytest.raises(Dropped):
        server.Dropping(Ball(), lambda: desk.dropped(gone)).normals(torch.zeros(1, 3), torch.ones(1), None)


def test_methods_of_whole_images_are_asked_for_them_and_soon(run):
    asked = []

    class Whole(Ball):
        patch_size = 8

        def forward(self, rays: Rays, context: RenderContext) -> Rendered:
            asked.append((len(rays), context.patch_size, context.fast_preview))
            return super().forward(rays, context)

    desk = Desk()
    desk.ask(0, LOOK)
    seen = rendered(replace(run, method=Whole(), chunk=64), replace(desk.order(0), height=30), desk)
    ((rays, patch, camera),) = asked
    assert (rays, patch) == (1200, (30, 40))
    torch.testing.assert_close(camera.c2w, LOOK.camera(moved(), 30).c2w)
    assert server.timing(replace(seen, seconds=0.0314)) == "31 ms for 40x30"


@pytest.mark.parametrize("channel", server.CHANNELS)
def test_every_channel_is_an_image(channel):
    seen = RenderedView(torch.rand(6, 8, 3), torch.rand(6, 8) + 2, torch.ones(6, 8), 0.0, torch.rand(6, 8, 3))
    shown = image(seen, channel)
    assert shown.shape == (6, 8, 3)
    assert shown.dtype == torch.uint8
    if channel == "depth":
        assert torch.equal(shown, seen.depth_image(*quantile_range(seen.depth.flatten())))


def test_depth_along_the_axis_of_a_wall_is_even():
    camera = LOOK.camera(Frame.identity(), 30)
    x, y = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(30) + 0.5, indexing="xy")
    towards = camera.directions(torch.zeros(30, 40, dtype=torch.int64), x, y)
    seen = RenderedView(torch.zeros(30, 40, 3), 5 * towards.norm(dim=-1), torch.ones(30, 40), 0.0)
    torch.testing.assert_close(axial(seen, LOOK.fov), torch.full((30, 40), 5.0))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_one_sentence(run, port):
    with pytest.raises(DataError, match=f"--port: port: found {port}"):
        Viewer(run, port)


def test_serving_says_how_long_each_image_took():
    images, said = iter([None, RenderedView(torch.zeros(30, 40, 3), torch.ones(30, 40), torch.ones(30, 40), 0.02)]), []
    with pytest.raises(StopIteration):
        Viewer.serve(SimpleNamespace(work=lambda: next(images)), said.append)
    assert said == ["20 ms for 40x30"]


def shot(page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_the_scene_and_turns_it(run, tmp_path):
    page_of = Viewer(run, 8700)
    try:
        assert page_of.address.startswith("http://127.0.0.1:")
        with opened(page_of.address, tmp_path / "profile", (900, 700)) as page:
            delivered = until_rest(page_of)
            assert delivered[-1] == 48
            assert delivered == sorted(delivered)
            # The ball is colored by its normals, before a white backdrop.
            before = awaited(page_of, page, lambda now: np.ptp(now[330, 450]) > 40)
            page.drag((380, 330), (560, 320))
            until_rest(page_of)
            awaited(page_of, page, lambda now: np.abs(now - before)[220:400, 350:550].mean() > 5)
    finally:
        page_of.close()


def until_rest(page_of: Viewer) -> list[int]:
    """Works until the finest image is shown; the heights of the images of the last look."""
    heights = []
    while not heights or heights[-1] < page_of.finest or page_of.desk.order(0.5) is not None:
        order = page_of.desk.order(60)
        assert order is not None, "the browser never said where it looks from"
        heights = [order.height] if order.first else [*heights, order.height]
        page_of.work()
    return heights


def awaited(page_of: Viewer, page, wanted: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The page once it shows what is wanted, and two looks at it are equal: images arrive after they are sent.

    It is served meanwhile: a slow browser says late where it looks from.
    """
    last = shot(page)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        page_of.work(patience=0.0)
        now = shot(page)
        if wanted(now) and (now == last).all():
            return now
        last = now
    raise TimeoutError("the browser never showed it")


class Visit:
    """Listeners of a training: a visitor who comes at the first step, and every image that is made for him."""

    def __init__(self, folder, monkeypatch) -> None:
        self.heights: list[int] = []
        self.said: list[str] = []
        self.live = LiveView(folder, self.said.append, 8720)
        deliver = Desk.deliver
        monkeypatch.setattr(server, "RENEW_SECONDS", 0.0)

        def noted(desk, order, rays, seconds):
            self.heights.append(order.height)
            deliver(desk, order, rays, seconds)

        monkeypatch.setattr(Desk, "deliver", noted)

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        self.live._free = 0.0
        self.live(state, report)
        if state.step == 1:
            self.live._viewer.desk.ask(0, replace(LOOK, height=48))


def test_a_training_is_shown_and_not_changed(tmp_path, monkeypatch):
    source, settings = written(tmp_path / "data"), Train(steps=6, num_validation_views=0)
    run_training(TrainingJob(INSTANT, source, settings, tmp_path / "alone"))
    visit = Visit(tmp_path / "seen", monkeypatch)
    with closing(visit.live):
        run_training(TrainingJob(INSTANT, source, settings, tmp_path / "seen"), callbacks=[visit])
        assert visit.said == [f"shown at {visit.live._viewer.address}"]
    # Coarse, fine, and then the finest once more whenever it is out of date.
    assert visit.heights[-2:] == [48, 48]
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("alone", "seen")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_training_has_as_much_time_as_the_images(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(server.time, "perf_counter", lambda: clock.now)
    made = []

    def work(patience: float) -> None:
        made.append(clock.now)
        clock.now += 3.0

    live = LiveView(tmp_path, print)
    method = Ball()
    desk = SimpleNamespace(renew=lambda: None)
    monkeypatch.setattr(live, "_opened", lambda state: SimpleNamespace(desk=desk, work=work))
    for _ in range(10):
        live(SimpleNamespace(method=method), None)
        assert method.training
        clock.now += 1.0
    assert made == [100, 106, 112, 118]
