import io
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from browser import CHROMIUM, Page, open_page
from lumifield.rendering.view import RenderedView
from lumifield.viewer.server import Viewer
from refusals import refuses
from view_requests import ball_run

MAX_SCREENSHOTS = 500


@pytest.fixture
def run(tmp_path):
    return ball_run(tmp_path)


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_invalid_port_is_refused(run, port):
    with refuses("port", found=str(port)):
        Viewer(run, port)


def test_port_zero_selects_a_free_port(run):
    with closing(Viewer(run, 0)) as one, closing(Viewer(run, 0)) as other:
        ports = [int(viewer.address.removeprefix("http://127.0.0.1:")) for viewer in (one, other)]
    assert 0 not in ports
    assert ports[0] != ports[1]


def test_a_taken_port_is_replaced_by_the_next_free_one(run):
    with closing(Viewer(run, 0)) as one, closing(Viewer(run, int(one.address.rsplit(":", 1)[1]))) as other:
        assert one.address != other.address


def test_serving_reports_the_time_of_each_image():
    views = iter([None, RenderedView(torch.zeros(30, 40, 3), torch.ones(30, 40), torch.ones(30, 40), 0.02)])
    reports = []
    with pytest.raises(StopIteration):
        Viewer.serve(SimpleNamespace(render_next=lambda: next(views)), reports.append)
    assert reports == ["20 ms for 40x30"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_the_scene_and_orbits_it(run, tmp_path):
    with closing(Viewer(run, 0)) as viewer, open_page(viewer.address, tmp_path / "profile", (900, 700)) as page:
        heights = render_until_complete(viewer)
        assert heights[-1] == 48
        assert heights == sorted(heights)
        # The ball is colored by its normals, in front of a white background.
        before = wait_for_image(viewer, page, lambda image: np.ptp(image[330, 450]) > 40)
        page.drag((380, 330), (560, 320))
        render_until_complete(viewer)
        wait_for_image(viewer, page, lambda image: np.abs(image - before)[220:400, 350:550].mean() > 5)


def render_until_complete(viewer: Viewer) -> list[int]:
    """Renders until no image is pending; the heights of the images of the last view."""
    heights = []
    while not heights or heights[-1] < viewer.default_height or viewer.queue.next_task(0.5) is not None:
        task = viewer.queue.next_task(60)
        assert task is not None, "the browser never sent its camera"
        heights = [task.height] if task.is_first else [*heights, task.height]
        viewer.render_next()
    return heights


def wait_for_image(viewer: Viewer, page: Page, is_expected: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The first expected image of the page that stays the same: images arrive some time after they are sent.

    Continues to render, because a slow browser sends its camera late.
    """
    last = screenshot(page)
    for _ in range(MAX_SCREENSHOTS):
        viewer.render_next(timeout=0.0)
        image = screenshot(page)
        if is_expected(image) and (image == last).all():
            return image
        last = image
    raise TimeoutError("the browser never showed the expected image")


def screenshot(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
