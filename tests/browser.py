"""A page in headless Chromium, driven over its debugging protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader"),
    *("--enable-unsafe-swiftshader", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)
PATIENCE = 120.0


class Page:
    """One open page; `events` are what it has told of itself, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.sent = socket, 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the debugging protocol."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(PATIENCE))
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; of a promise, what it keeps."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Waits until an expression in the page is true."""
        for _ in range(round(PATIENCE / 0.05)):
            if self.evaluate(expression):
                return
            time.sleep(0.05)
        raise TimeoutError(f"never true: {expression}")

    def screenshot(self) -> bytes:
        """What the page looks like, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def drag(self, start: tuple[int, int], end: tuple[int, int], steps: int = 5) -> None:
        """Drags the left mouse button from one place to another."""
        self._mouse("mousePressed", start, 1)
        for step in range(1, steps + 1):
            x, y = (round(a + (b - a) * step / steps) for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", (x, y), 1)
        self._mouse("mouseReleased", end, 0)

    def _mouse(self, kind: str, at: tuple[int, int], buttons: int) -> None:
        button = {"button": "left", "buttons": buttons, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **button)


@contextmanager
def opened(address: str, profile: Path, size: tuple[int, int] = (640, 480)) -> Iterator[Page]:
    """The page at an address, in a browser of its own with a fresh profile."""
    assert CHROMIUM is not None
    window = f"--window-size={size[0]},{size[1]}"
    command = [CHROMIUM, *FLAGS, window, f"--user-data-dir={profile}", address]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_debugger(profile, address), max_size=None, proxy=None, open_timeout=PATIENCE) as socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait()


def _debugger(profile: Path, address: str) -> str:
    """The socket of the page's debugger, once the browser has opened it."""
    for _ in range(round(PATIENCE / 0.1)):
        try:
            port = (profile / "DevToolsActivePort").read_text().splitlines()[0]
            with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                pages = json.loads(answer.read())
        except (OSError, IndexError):
            pages = []
        for page in pages:
            if page["type"] == "page" and page["url"].startswith(address):
                return page["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise TimeoutError(f"Chromium has not opened {address}")
