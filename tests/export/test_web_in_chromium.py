"""The exported page in a browser: rendered views, navigation, and that it makes no requests."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import fog
from browser import CHROMIUM, Page, open_page
from lumifield.data.scene import Scene
from lumifield.export import WebExport
from lumifield.export.voxel_baking import BakedVoxels, bake_voxels, build_color_matrix
from lumifield.export.web import build_page

SIZE = (40, 30)
SCENES = {
    "bounded": (fog.ball, fog.bounded()),
    "unbounded": (fog.room, fog.unbounded()),
    "forward-facing": (fog.hill, fog.forward_facing()),
}


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Page]:
    with open_page("about:blank", tmp_path_factory.mktemp("profile")) as page:
        for domain in ("Network", "Page", "Runtime"):
            page.call(f"{domain}.enable")
        metrics = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        page.call("Emulation.setDeviceMetricsOverride", **metrics)
        yield page


@pytest.fixture(scope="module")
def ball_page(tmp_path_factory) -> Path:
    file, _ = write_page(tmp_path_factory.mktemp("ball"), "bounded")
    return file


def write_page(folder: Path, kind: str) -> tuple[Path, BakedVoxels]:
    density, scene = SCENES[kind]
    baked = bake_voxels(WebExport(resolution=32, num_rays=5000), fog.run(folder, density, scene))
    file = folder / f"{kind}.html"
    file.write_text(build_page(baked, scene), encoding="utf-8")
    return file, baked


def camera_fragment(scene: Scene, index: int) -> str:
    """URL fragment that selects a camera of a scene."""
    c2w = scene.frame.poses_to_world(scene.cameras.c2w)[index].flatten().tolist()
    focal, size = scene.cameras.focal[index].tolist(), scene.size(index)
    return "#" + "&".join(
        f"{key}={','.join(map(repr, value))}" for key, value in {"c2w": c2w, "focal": focal, "size": size}.items()
    )


def show(tab: Page, file: Path, fragment: str = "") -> None:
    tab.navigate("about:blank")
    tab.navigate(file.as_uri() + fragment)
    tab.wait_until("document.body && document.body.dataset.frame")
    assert tab.evaluate("document.body.dataset.state") == "ready"


def screenshot(tab: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")).astype(int)


def requested_urls(tab: Page) -> list[str]:
    """The addresses of all requests so far."""
    requests = [event for event in tab.events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in requests]


def screenshot_at_rest(tab: Page) -> np.ndarray:
    """The image after the camera has stopped, when the page writes it to its address."""
    tab.wait_until("location.hash.includes('c2w')")
    return screenshot(tab)


def render_by_sums(baked: BakedVoxels, scene: Scene, index: int) -> np.ndarray:
    """The expected view, by explicit sums over the voxels."""
    rays = scene.rays(index)
    matrix = build_color_matrix(baked.voxels, rays, torch.zeros(len(rays)), lambda: None, min_weight=1e-4)
    coefficients = torch.from_numpy(matrix @ baked.coefficients.flatten(1).numpy()).view(len(rays), 4, 3)
    rgb = torch.einsum("rdc,rd->rc", coefficients, F.pad(rays.viewdirs, (1, 0), value=1.0))
    transmittance = 1 - torch.from_numpy(np.asarray(matrix.sum(1)))
    rgb = rgb + transmittance * (1.0 if scene.background == "white" else 0.0)
    return (rgb.clamp(0, 1) * 255).round().reshape(SIZE[1], SIZE[0], 3).numpy()


@pytest.mark.parametrize("kind", SCENES)
def test_the_page_renders_the_voxels(tab, tmp_path, kind):
    file, baked = write_page(tmp_path, kind)
    _, scene = SCENES[kind]
    show(tab, file, camera_fragment(scene, 0))
    for index in (0, 3):
        tab.evaluate(f"delete document.body.dataset.frame; location.hash = '{camera_fragment(scene, index)}'")
        tab.evaluate("window.dispatchEvent(new Event('hashchange'))")
        tab.wait_until("document.body.dataset.frame")
        error = screenshot(tab).astype(float) - render_by_sums(baked, scene, index)
        assert -10 * math.log10((error**2).mean() / 255**2) > 45


def test_no_request_leaves_the_page(tab, ball_page):
    show(tab, ball_page)
    urls = [url for url in requested_urls(tab) if not url.startswith("data:")]
    assert {url.split(":")[0] for url in urls} <= {"file", "about"}
    assert all(url.endswith(".html") or url == "about:blank" for url in urls)


def test_the_policy_of_the_page_blocks_requests(tab, ball_page):
    show(tab, ball_page)
    violation = "addEventListener('securitypolicyviolation', (event) => resolve(event.blockedURI))"
    request = "fetch('http://127.0.0.1:9/').then(() => resolve('sent'), () => 0)"
    assert tab.evaluate(f"new Promise((resolve) => {{ {violation}; {request}; }})") == "http://127.0.0.1:9/"


def press_key(tab: Page, name: str) -> None:
    tab.call("Input.dispatchKeyEvent", type="keyDown", key=name)
    tab.call("Input.dispatchKeyEvent", type="keyUp", key=name)


def turn_wheel(tab: Page) -> None:
    tab.call("Input.dispatchMouseEvent", type="mouseWheel", x=20, y=15, deltaX=0, deltaY=-300)


def swipe(tab: Page) -> None:
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": 20, "y": 15}])
    tab.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": 30, "y": 15}])
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def pinch(tab: Page) -> None:
    first, last = ([{"x": 20 - d, "y": 15, "id": 0}, {"x": 20 + d, "y": 15, "id": 1}] for d in (4, 12))
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=first)
    tab.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=last)
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


@pytest.mark.parametrize(
    "interact",
    [
        lambda tab: tab.drag((20, 15), (30, 15)),
        lambda tab: tab.drag((20, 15), (20, 22), modifiers=8),
        lambda tab: press_key(tab, "ArrowLeft"),
        lambda tab: press_key(tab, "+"),
        turn_wheel,
        swipe,
        pinch,
    ],
    ids=["drag", "shift-drag", "arrow", "plus", "wheel", "swipe", "pinch"],
)
def test_the_camera_moves(tab, ball_page, interact):
    show(tab, ball_page)
    before = screenshot(tab)
    interact(tab)
    assert np.abs(screenshot_at_rest(tab) - before).mean() > 1


def test_a_drag_orbits_the_target_and_r_resets(tab, ball_page):
    show(tab, ball_page)
    pose = "view.c2w.flat().concat(view.distance)"
    before = np.array(tab.evaluate(pose))
    tab.drag((20, 15), (30, 15))
    screenshot_at_rest(tab)
    after = np.array(tab.evaluate(pose))

    def target(values):
        c2w = values[:12].reshape(3, 4)
        return c2w[:, 3] + values[12] * c2w[:, 2]

    np.testing.assert_allclose(target(after), target(before), atol=1e-6)
    rotation = after[:12].reshape(3, 4)[:, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-6)
    # Ten of thirty pixels of half a turn.
    first, last = before[:12].reshape(3, 4)[:2, 2], rotation[:2, 2]
    cosine = first @ last / (np.linalg.norm(first) * np.linalg.norm(last))
    assert math.degrees(math.acos(cosine)) == pytest.approx(60, abs=0.5)
    tab.drag((20, 15), (20, 20))
    assert tab.evaluate("dot(column(view.c2w, 3), metadata.up)") > float(after[:12].reshape(3, 4)[2, 3]) + 0.5
    press_key(tab, "r")
    np.testing.assert_allclose(tab.evaluate(pose), before, atol=1e-9)


def test_a_browser_without_webgl2_gets_an_explanation(tab, ball_page):
    without_webgl = "HTMLCanvasElement.prototype.getContext = () => null"
    script = tab.call("Page.addScriptToEvaluateOnNewDocument", source=without_webgl)["identifier"]
    tab.navigate(ball_page.as_uri())
    tab.wait_until("document.body && document.body.dataset.state === 'error'")
    assert "needs WebGL2" in tab.evaluate("document.getElementById('error').innerText")
    assert tab.evaluate("document.getElementById('loading').hidden")
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
