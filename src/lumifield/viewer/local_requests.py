"""Restriction of the viewer to its own page, opened on this machine."""

from __future__ import annotations

import http
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import websockets.asyncio.server
from websockets import Headers
from websockets.http11 import Request, Response

LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
_replacing_serve = threading.Lock()


def is_local_request(headers: Headers) -> bool:
    """Whether `Host` names this machine and `Origin`, which browsers add to requests of pages, names the same server.

    A page of another site has its own `Origin`; a domain that resolves to 127.0.0.1 (DNS rebinding) appears in `Host`.
    Through an SSH tunnel both may have another port.
    """
    hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
    if len(hosts) != 1 or len(origins) > 1:
        return False
    try:
        is_local = urlsplit(f"//{hosts[0]}").hostname in LOCAL_HOSTS
    except ValueError:
        return False
    return is_local and all(origin == f"http://{hosts[0]}" for origin in origins)


@contextmanager
def refuse_foreign_requests() -> Iterator[None]:
    """Servers that viser starts within the context refuse requests that are not local with status 403.

    viser passes no option on to websockets, so that its `serve` is replaced while a server starts.
    """
    serve = websockets.asyncio.server.serve

    def serve_local(*arguments: Any, process_request: Any, **options: Any) -> Any:
        def process_local_request(connection: Any, request: Request) -> Response | None:
            if not is_local_request(request.headers):
                return Response(http.HTTPStatus.FORBIDDEN, "Forbidden", Headers({"Content-Length": "0"}), b"")
            return process_request(connection, request)

        return serve(*arguments, process_request=process_local_request, **options)

    with _replacing_serve:
        websockets.asyncio.server.serve = serve_local  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = serve  # pyright: ignore[reportAttributeAccessIssue]
