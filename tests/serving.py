"""A web server of this machine that serves one file, well or badly, and what archives are made of."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """One file, how it is served, and what was asked for.

    `manners` holds a word for each request in turn; requests after the last are served well. The words: `truncate`
    (half of what is asked for), `stall` (half, and then silence), `silent` (nothing), `ignore-range`, `no-length`,
    `short-length` (a length that is too small), `wrong-span` (a rest that starts elsewhere), `page`, or a status.
    """

    def __init__(self, content: bytes, etag: str | None = '"one"') -> None:
        self.content, self.etag = content, etag
        self.manners: list[str] = []
        self.always: str | None = None
        self.asked: list[str | None] = []
        self.done = threading.Event()
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Serves one request."""
        self.asked.append(request.headers["Range"])
        manner = self.manners.pop(0) if self.manners else self.always
        if manner == "silent":
            self.done.wait(20)
            return
        if manner and manner.isdecimal():
            request.send_response(int(manner))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = self._start(request, manner)
        if start >= len(self.content) > 0:
            request.send_response(416)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        self._head(request, start, body, manner)
        if manner in ("truncate", "stall"):
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            if manner == "stall":
                self.done.wait(20)
        else:
            request.wfile.write(body)

    def _start(self, request: BaseHTTPRequestHandler, manner: str | None) -> int:
        """The first byte that is sent."""
        asked = request.headers["Range"]
        other = request.headers["If-Range"] not in (None, self.etag)
        if asked is None or manner in ("ignore-range", "page") or other:
            return 0
        first = int(asked.removeprefix("bytes=").removesuffix("-"))
        return first - 1 if manner == "wrong-span" else first

    def _head(self, request: BaseHTTPRequestHandler, start: int, body: bytes, manner: str | None) -> None:
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.etag:
            request.send_header("ETag", self.etag)
        if manner != "no-length":
            request.send_header("Content-Length", str(len(body) // 2 if manner == "short-length" else len(body)))
        request.send_header("Content-Type", "text/html" if manner == "page" else "application/zip")
        request.end_headers()


@contextmanager
def served(site: Site) -> Iterator[Site]:
    """The site under an address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                site.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *words: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/file.zip"
    try:
        yield site
    finally:
        site.done.set()
        server.shutdown()
        thread.join()
        server.server_close()


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def tarred(files: dict[str, bytes], *more: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    """A tar archive, with more entries that have no content."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in more:
            archive.addfile(entry)
    return memory.getvalue()
