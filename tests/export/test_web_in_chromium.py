"""The page in a real browser: what it shows, what moves it, and that it keeps to itself."""

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
from browser import CHROMIUM, Page, opened
from lumifield.data.scene import Scene
from lumifield.export import WebExport
from lumifield.export.baking import Baked, bake_voxels, color_matrix
from lumifield.export.web import build_page

SIZE = (40, 30)
SCENES = {
    "bounded": (fog.ball, fog.bounded()),
    "unbounded": (fog.room, fog.unbounded()),
    "forward-facing": (fog.hill, fog.forward_facing()),
}


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Page]:
    with opened("about:blank", tmp_path_factory.mktemp("profile")) as page:
        for domain in ("Network", "Page", "Runtime"):
            page.call(f"{domain}.enable")
        metrics = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        page.call("Emulation.setDeviceMetricsOverride", **metrics)
        yield page


@pytest.fixture(scope="module")
def ball(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ball")
    page, _ = made(folder, "bounded", WebExport(resolution=32, num_rays=5000))
    return page


def made(folder: Path, kind: str, settings: WebExport) -> tuple[Path, Baked]:
    density, scene = SCENES[kind]
    baked = bake_voxels(settings, fog.run(folder, density, scene))
    page = folder / f"{kind}.html"
    page.write_text(build_page(baked, scene), encoding="utf-8")
    return page, baked


def link(scene: Scene, index: int) -> str:
    c2w = scene.frame.poses_to_world(scene.cameras.c2w)[index].flatten().tolist()
    focal, size = scene.cameras.focal[index].tolist(), scene.size(index)
    return "#" + "&".join(
        f"{key}={','.join(map(repr, value))}" for key, value in {"c2w": c2w, "focal": focal, "size": size}.items()
    )


def shown(tab: Page, page: Path, address: str = "") -> None:
    tab.call("Page.navigate", url="about:blank")
    tab.call("Page.navigate", url=page.as_uri() + address)
    tab.until("document.body && document.body.dataset.frame")
    assert tab.evaluate("document.body.dataset.state") == "ready"


def image(tab: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")).astype(int)


def requested(tab: Page) -> list[str]:
    """The addresses of all requests so far."""
    seen = [event for event in tab.events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in seen]


def moved(tab: Page) -> np.ndarray:
    """The image when the view has come to rest."""
    tab.until("location.hash.includes('c2w')")
    return image(tab)


def by_sums(baked: Baked, scene: Scene, index: int) -> np.ndarray:
    """The view that the page should show, from the voxels as it holds them."""
    rays = scene.rays(index)
    share = color_matrix(baked.voxels, rays, torch.zeros(len(rays)), lambda: None, min_weight=1e-4)
    light = torch.from_numpy(share @ baked.light.flatten(1).numpy()).view(len(rays), 4, 3)
    rgb = torch.einsum("rdc,rd->rc", light, F.pad(rays.viewdirs, (1, 0), value=1.0))
    left = 1 - torch.from_numpy(np.asarray(share.sum(1)))
    rgb = rgb + left * (1.0 if scene.background == "white" else 0.0)
    return (rgb.clamp(0, 1) * 255).round().reshape(SIZE[1], SIZE[0], 3).numpy()


@pytest.mark.parametrize("kind", SCENES)
def test_the_page_shows_what_the_voxels_say(tab, tmp_path, kind):
    page, baked = made(tmp_path, kind, WebExport(resolution=32, num_rays=5000))
    _, scene = SCENES[kind]
    shown(tab, page, link(scene, 0))
    for index in (0, 3):
        tab.evaluate(f"delete document.body.dataset.frame; location.hash = '{link(scene, index)}'")
        tab.evaluate("window.dispatchEvent(new Event('hashchange'))")
        tab.until("document.body.dataset.frame")
        error = image(tab).astype(float) - by_sums(baked, scene, index)
        assert -10 * math.log10((error**2).mean() / 255**2) > 45


def test_no_request_leaves_the_page(tab, ball):
    shown(tab, ball)
    told = [address for address in requested(tab) if not address.startswith("data:")]
    assert {address.split(":")[0] for address in told} <= {"file", "about"}
    assert all(address.endswith(".html") or address == "about:blank" for address in told)


def test_the_page_is_forbidden_to_ask(tab, ball):
    shown(tab, ball)
    blocked = "addEventListener('securitypolicyviolation', (event) => done(event.blockedURI))"
    evaluate_in_chunks = "fetch('http://127.0.0.1:9/').catch(() => setTimeout(() => done('asked'), 1000))"
    assert tab.evaluate(f"new Promise((done) => {{ {blocked}; {evaluate_in_chunks}; }})") == "http://127.0.0.1:9/"


def shift_drag(tab: Page) -> None:
    for kind, y in (("mousePressed", 15), ("mouseMoved", 22), ("mouseReleased", 22)):
        held = {"button": "left", "buttons": int(kind != "mouseReleased"), "modifiers": 8}
        tab.call("Input.dispatchMouseEvent", type=kind, x=20, y=y, clickCount=1, **held)


def key(tab: Page, name: str) -> None:
    tab.call("Input.dispatchKeyEvent", type="keyDown", key=name)
    tab.call("Input.dispatchKeyEvent", type="keyUp", key=name)


def wheel(tab: Page) -> None:
    tab.call("Input.dispatchMouseEvent", type="mouseWheel", x=20, y=15, deltaX=0, deltaY=-300)


def touch(tab: Page) -> None:
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": 20, "y": 15}])
    tab.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": 30, "y": 15}])
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def pinch(tab: Page) -> None:
    first, last = ([{"x": 20 - d, "y": 15, "id": 0}, {"x": 20 + d, "y": 15, "id": 1}] for d in (4, 12))
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=first)
    tab.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=last)
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


@pytest.mark.parametrize(
    "act",
    [
        lambda tab: tab.drag((20, 15), (30, 15)),
        shift_drag,
        lambda tab: key(tab, "ArrowLeft"),
        lambda tab: key(tab, "+"),
        wheel,
        touch,
        pinch,
    ],
    ids=["drag", "shift-drag", "arrow", "plus", "wheel", "touch", "pinch"],
)
def test_the_view_moves(tab, ball, act):
    shown(tab, ball)
    before = image(tab)
    act(tab)
    assert np.abs(moved(tab) - before).mean() > 1


def test_a_drag_turns_about_what_is_looked_at_and_r_returns(tab, ball):
    shown(tab, ball)
    pose = "view.c2w.flat().concat(view.distance)"
    before = np.array(tab.evaluate(pose))
    tab.drag((20, 15), (30, 15))
    moved(tab)
    after = np.array(tab.evaluate(pose))

    def target(numbers):
        c2w = numbers[:12].reshape(3, 4)
        return c2w[:, 3] + numbers[12] * c2w[:, 2]

    np.testing.assert_allclose(target(after), target(before), atol=1e-6)
    turned = after[:12].reshape(3, 4)[:, :3]
    np.testing.assert_allclose(turned.T @ turned, np.eye(3), atol=1e-6)
    # Ten of thirty pixels of half a turn.
    first, last = before[:12].reshape(3, 4)[:2, 2], turned[:2, 2]
    cosine = first @ last / (np.linalg.norm(first) * np.linalg.norm(last))
    assert math.degrees(math.acos(cosine)) == pytest.approx(60, abs=0.5)
    tab.drag((20, 15), (20, 20))
    assert tab.evaluate("dot(axis(view.c2w, 3), about.up)") > float(after[:12].reshape(3, 4)[2, 3]) + 0.5
    key(tab, "r")
    np.testing.assert_allclose(tab.evaluate(pose), before, atol=1e-9)


def test_a_browser_without_webgl2_is_told(tab, ball):
    without = "HTMLCanvasElement.prototype.getContext = () => null"
    script = tab.call("Page.addScriptToEvaluateOnNewDocument", source=without)["identifier"]
    tab.call("Page.navigate", url=ball.as_uri())
    tab.until("document.body && document.body.dataset.state === 'sorry'")
    assert "needs WebGL2" in tab.evaluate("document.getElementById('sorry').innerText")
    assert tab.evaluate("document.getElementById('loading').hidden")
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
