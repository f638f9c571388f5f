import http.client
from contextlib import closing

import msgspec
import pytest
import viser
from viser import _messages
from websockets import Headers
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lumifield.viewer.local_requests import is_local_request
from lumifield.viewer.server import Viewer
from view_requests import VIEW, ball_run

CAMERA = {
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (0.0, 0.0, -8.0),
    "fov": 0.8,
    "near": 0.1,
    "far": 100.0,
    "image_height": 48,
    "image_width": 64,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, -1.0, 0.0),
}


@pytest.fixture
def viewer(tmp_path):
    with closing(Viewer(ball_run(tmp_path), 0)) as viewer:
        yield viewer


def status(viewer: Viewer, host: str, origin: str | None) -> int:
    """Status of a request for the page."""
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    with closing(http.client.HTTPConnection(viewer.address.removeprefix("http://"))) as connection:
        connection.request("GET", "/", headers=headers)
        with connection.getresponse() as response:
            return response.status


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:1234", None, 200),
        ("localhost:9000", "http://localhost:9000", 200),
        ("[::1]:9000", "http://[::1]:9000", 200),
        ("attacker.example", None, 403),
        ("attacker.example:8080", "http://attacker.example:8080", 403),
        ("127.0.0.1.attacker.example", None, 403),
        ("127.0.0.1:1234", "http://attacker.example", 403),
        ("127.0.0.1:1234", "http://127.0.0.1:3000", 403),
        ("127.0.0.1:1234", "null", 403),
        ("[", None, 403),
    ],
)
def test_only_the_own_page_on_this_machine_is_served(viewer, host, origin, expected):
    assert status(viewer, host, origin) == expected


def test_requests_with_ambiguous_headers_are_not_local():
    assert not is_local_request(Headers())
    assert not is_local_request(Headers([("Host", "localhost"), ("Host", "attacker.example")]))
    twice = [("Host", "localhost"), ("Origin", "http://localhost"), ("Origin", "http://attacker.example")]
    assert not is_local_request(Headers(twice))


def open_client(viewer: Viewer, origin: str | None = None):
    address = viewer.address.replace("http", "ws", 1)
    return connect(address, subprotocols=[f"viser-v{viser.__version__}"], compression=None, origin=origin)


def test_a_page_of_another_site_cannot_connect(viewer):
    with pytest.raises(InvalidStatus, match="403"):
        open_client(viewer, "http://attacker.example")


def camera_message(**changes: object) -> bytes:
    return msgspec.msgpack.encode({"type": _messages.ViewerCameraMessage.__name__, **CAMERA, **changes})


def send_camera(client, **changes: object) -> None:
    client.send(camera_message(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"fov": 0.0},
        {"fov": float("nan")},
        {"fov": 4.0},
        {"wxyz": (0.0, 0.0, 0.0, 0.0)},
        {"wxyz": (float("inf"), 0.0, 0.0, 0.0)},
        {"position": (float("nan"), 0.0, 0.0)},
        {"position": (1e30, 0.0, 0.0)},
        {"image_height": 0},
        {"image_height": 1, "image_width": 10**9},
    ],
)
def test_impossible_cameras_of_a_client_are_ignored(viewer, changes):
    with open_client(viewer) as client:
        send_camera(client)
        task = viewer.queue.next_task(10)
        assert task is not None
        send_camera(client, **changes)
        # Messages are handled in order: once the last camera is there, the one before it was handled, too.
        send_camera(client, position=(0.0, 0.0, -9.0))
        while (task := viewer.queue.next_task(10)) is not None and task.view.position[2] != -9.0:
            assert task.view.position == (0.0, 0.0, -8.0)
        assert task is not None
        assert viewer.render_next() is not None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode({"type": "None"}),
        camera_message(fov="wide"),
        camera_message(wxyz=(1.0, 0.0)),
    ],
)
def test_a_malformed_message_affects_only_its_own_client(viewer, message):
    with open_client(viewer) as other, open_client(viewer) as client:
        client.send(message)
        send_camera(other)
        assert viewer.render_next(10) is not None


def test_a_view_that_cannot_be_rendered_ends_nothing(viewer, monkeypatch, caplog):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of range")

    viewer.queue.request_view(3, VIEW)
    with monkeypatch.context() as patched:
        patched.setattr(viewer.run.method, "forward", fail)
        assert viewer.render_next() is None
    assert "client 3" in caplog.text
    assert "out of range" in caplog.text
    assert viewer.queue.next_task(0) is None
    viewer.queue.request_view(3, VIEW)
    assert viewer.render_next() is not None
