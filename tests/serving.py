"""A local web server that serves one file, with faults on request, and builders of archives."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyServer:
    """Serves one file and records the requested ranges.

    `faults` holds the fault of each request in turn; later requests have `permanent_fault`, none by default. Faults:
    `truncate` (half of the body), `stall` (half of the body, then silence), `silent` (no response), `ignore-range`,
    `no-length`, `short-length` (a Content-Length that is too small), `wrong-range` (a range that starts elsewhere),
    `page` (a web page), or an HTTP status.
    """

    def __init__(self, content: bytes, etag: str | None = '"one"') -> None:
        self.content, self.etag = content, etag
        self.faults: list[str] = []
        self.permanent_fault: str | None = None
        self.requested_ranges: list[str | None] = []
        self.stopped = threading.Event()
        self.url = ""

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        """Responds to one request."""
        self.requested_ranges.append(request.headers["Range"])
        fault = self.faults.pop(0) if self.faults else self.permanent_fault
        if fault == "silent":
            self.stopped.wait(20)
            return
        start = self.start_of_body(request, fault)
        if fault and fault.isdecimal():
            self._send_empty(request, int(fault))
        elif start >= len(self.content) > 0:
            self._send_empty(request, 416)
        else:
            self._send_body(request, start, fault)

    def start_of_body(self, request: BaseHTTPRequestHandler, fault: str | None) -> int:
        """The first byte to send."""
        requested = request.headers["Range"]
        is_other_file = request.headers["If-Range"] not in (None, self.etag)
        if requested is None or fault in ("ignore-range", "page") or is_other_file:
            return 0
        start = int(requested.removeprefix("bytes=").removesuffix("-"))
        return start - 1 if fault == "wrong-range" else start

    def _send_empty(self, request: BaseHTTPRequestHandler, status: int) -> None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _send_body(self, request: BaseHTTPRequestHandler, start: int, fault: str | None) -> None:
        body = self.content[start:]
        self._send_headers(request, start, body, fault)
        if fault not in ("truncate", "stall"):
            request.wfile.write(body)
            return
        request.wfile.write(body[: len(body) // 2])
        request.wfile.flush()
        if fault == "stall":
            self.stopped.wait(20)

    def _send_headers(self, request: BaseHTTPRequestHandler, start: int, body: bytes, fault: str | None) -> None:
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.etag:
            request.send_header("ETag", self.etag)
        if fault != "no-length":
            request.send_header("Content-Length", str(len(body) // 2 if fault == "short-length" else len(body)))
        request.send_header("Content-Type", "text/html" if fault == "page" else "application/zip")
        request.end_headers()


@contextmanager
def run_server(server: FaultyServer) -> Iterator[FaultyServer]:
    """Runs the server on a free local port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                server.respond(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *words: object) -> None:
            """Logs nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{listener.server_port}/file.zip"
    try:
        yield server
    finally:
        server.stopped.set()
        listener.shutdown()
        thread.join()
        listener.server_close()


def make_zip(files: dict[str, bytes]) -> bytes:
    """A zip archive of these files."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def make_tar(files: dict[str, bytes], *entries: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    """A tar archive of these files and of further entries without content."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in entries:
            archive.addfile(entry)
    return memory.getvalue()
