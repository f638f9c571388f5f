"""A page in headless Chromium, controlled through the DevTools protocol."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader"),
    *("--enable-unsafe-swiftshader", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)
TIMEOUT = 120.0
POLL_MS = 20
DEVTOOLS_ADDRESS = re.compile(r"DevTools listening on (ws://[^/]+)(/\S+)")


class Page:
    """One open page; `events` are its DevTools events so far, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.num_calls = socket, 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Result of a command of the DevTools protocol."""
        answer = self._send(method, **parameters)
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """Value of an expression in the page; the resolved value of a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_until(self, expression: str) -> None:
        """Waits until an expression in the page is true, across navigations."""
        check = f"const check = () => {expression} ? resolve(true) : setTimeout(check, {POLL_MS}); check();"
        promise = f"new Promise((resolve) => {{ {check} }})"
        while True:
            answer = self._send("Runtime.evaluate", expression=promise, awaitPromise=True, returnByValue=True)
            # A navigation discards the promise.
            if "error" not in answer:
                assert "exceptionDetails" not in answer["result"], answer
                return

    def navigate(self, url: str) -> None:
        """Opens another address, and waits until its document is loaded."""
        self.call("Page.navigate", url=url)
        self.wait_until("document.readyState === 'complete'")

    def screenshot(self) -> bytes:
        """The visible part of the page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def drag(self, start: tuple[int, int], end: tuple[int, int], num_steps: int = 5, **options: Any) -> None:
        """Drags the left mouse button from one pixel to another."""
        self._mouse("mousePressed", start, 1, **options)
        for step in range(1, num_steps + 1):
            x, y = (round(a + (b - a) * step / num_steps) for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", (x, y), 1, **options)
        self._mouse("mouseReleased", end, 0, **options)

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.num_calls += 1
        self.socket.send(json.dumps({"id": self.num_calls, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(TIMEOUT))
            if answer.get("id") == self.num_calls:
                return answer
            self.events.append(answer)

    def _mouse(self, kind: str, position: tuple[int, int], buttons: int, **options: Any) -> None:
        button = {"button": "left", "buttons": buttons, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=position[0], y=position[1], **button, **options)


@contextmanager
def open_page(url: str, profile: Path, size: tuple[int, int] = (640, 480)) -> Iterator[Page]:
    """A page at an address, in a separate browser with a new profile."""
    assert CHROMIUM is not None
    window = f"--window-size={size[0]},{size[1]}"
    command = [CHROMIUM, *FLAGS, window, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as browser:
        assert browser.stderr is not None
        # The pipe would block the browser once it is full.
        log_reader = threading.Thread(target=browser.stderr.read)
        try:
            address, path = _read_devtools_address(browser.stderr)
            log_reader.start()
            with _connect(address + path) as socket:
                target = Page(socket).call("Target.createTarget", url="about:blank")["targetId"]
            with _connect(f"{address}/devtools/page/{target}") as socket:
                page = Page(socket)
                if url != "about:blank":
                    page.navigate(url)
                yield page
        finally:
            browser.terminate()
            if log_reader.ident is not None:
                log_reader.join()


def _connect(address: str) -> ClientConnection:
    return connect(address, max_size=None, proxy=None, open_timeout=TIMEOUT)


def _read_devtools_address(log: IO[str]) -> tuple[str, str]:
    """Address and path of the browser's debugger, which Chromium prints once it listens."""
    for line in log:
        found = DEVTOOLS_ADDRESS.search(line)
        if found:
            return found[1], found[2]
    raise RuntimeError("Chromium exited before its debugger was ready")
