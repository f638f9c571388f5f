"""Resumable downloads from servers that stall, truncate, report wrong lengths, or change the file."""

import json
import logging
import random
from contextlib import contextmanager

import pytest

from commands import files, largest_file
from lumifield.download.resumable_download import RetryPolicy, discard_partial, download_file
from refusals import refuses
from serving import FaultyServer, run_server

CONTENT = random.Random(0).randbytes(200_000)
MANUAL_FIX = "save it by hand"
NO_DELAY = RetryPolicy(timeout=60, max_attempts=3, initial_delay=0.0)
# Enough attempts that a slow machine, which looks like a stalled server, cannot fail the test.
SHORT_TIMEOUT = RetryPolicy(timeout=0.2, max_attempts=100, initial_delay=0.0)


@pytest.fixture(autouse=True)
def _without_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with run_server(FaultyServer(CONTENT)) as server:
        yield server


@pytest.fixture
def part(tmp_path):
    return tmp_path / "file.zip.part"


def download_bytes(server, part, retry=NO_DELAY, progress=lambda done, total: None):
    """Downloads the file and returns its content."""
    download_file(server.url, part, MANUAL_FIX, retry, progress)
    return part.read_bytes()


@contextmanager
def refuses_download(server, field, found=""):
    """The block raises a one-line `DataError` of that field for the URL of the server."""
    with refuses(field, found, path=server.url) as caught:
        yield
    assert "\n" not in str(caught.value)


def test_a_complete_file_is_not_requested_again(server, part):
    reports = []
    assert download_bytes(server, part, progress=lambda done, total: reports.append((done, total))) == CONTENT
    assert reports[0] == (0, len(CONTENT))
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    assert download_bytes(server, part) == CONTENT
    assert server.requested_ranges == [None]


def test_received_bytes_are_not_requested_again(server, part):
    server.faults = ["truncate", "truncate"]
    assert download_bytes(server, part) == CONTENT
    assert server.requested_ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_stalled_connection_is_replaced_by_one_that_resumes(server, part):
    server.faults = ["stall", "silent"]
    assert download_bytes(server, part, SHORT_TIMEOUT) == CONTENT
    assert len(server.requested_ranges) >= 3
    assert server.requested_ranges[-1] is not None


def test_attempts_with_new_data_do_not_count(server, part):
    server.faults = ["truncate"] * 8
    assert download_bytes(server, part) == CONTENT
    assert len(server.requested_ranges) == 9


@pytest.mark.parametrize("fault", ["503", "500", "429"])
def test_transient_errors_are_retried(server, part, fault):
    server.faults = [fault, fault]
    assert download_bytes(server, part) == CONTENT


def test_permanent_failure_ends_after_max_attempts_and_keeps_the_part(server, part):
    server.faults, server.permanent_fault = ["truncate"], "503"
    with refuses_download(server, "download", "HTTP status 503"):
        download_bytes(server, part)
    assert len(server.requested_ranges) == 1 + NO_DELAY.max_attempts
    server.permanent_fault = None
    assert download_bytes(server, part) == CONTENT
    assert server.requested_ranges[-1] == "bytes=100000-"


def test_a_silent_server_is_refused(server, part):
    server.permanent_fault = "silent"
    with refuses_download(server, "download", "a stalled connection"):
        download_bytes(server, part, RetryPolicy(timeout=0.1, max_attempts=2, initial_delay=0.0))


def test_a_closed_port_is_refused(part):
    with run_server(FaultyServer(CONTENT)) as server:
        pass
    with refuses_download(server, "download", "a failed connection"):
        download_bytes(server, part)


def test_delays_double_up_to_one_minute(server, part, caplog):
    caplog.set_level(logging.INFO)
    delays = []
    server.permanent_fault = "503"
    with refuses_download(server, "download", "503"):
        download_bytes(server, part, RetryPolicy(timeout=5, max_attempts=9, initial_delay=1.0, sleep=delays.append))
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert RetryPolicy().delay(10**6) == 60
    assert "file.zip.part: HTTP status 503; next attempt in 32 s" in caplog.text


@pytest.mark.parametrize("status", ["404", "403", "410"])
def test_a_permanent_status_is_refused_at_once(server, part, status):
    server.permanent_fault = status
    with refuses_download(server, "URL", f"HTTP status {status}"):
        download_bytes(server, part)
    assert len(server.requested_ranges) == 1
    assert not part.exists()


def test_a_web_page_is_refused_and_keeps_the_part(server, part):
    server.faults = ["truncate", "page"]
    with refuses_download(server, "URL", "a web page"):
        download_bytes(server, part)
    assert part.read_bytes() == CONTENT[:100000]


def test_an_unexpected_status_is_refused(server, part):
    server.permanent_fault = "204"
    with refuses_download(server, "URL", "HTTP status 204"):
        download_bytes(server, part)


def test_without_range_support_the_download_restarts(server, part):
    server.faults = ["truncate", "ignore-range"]
    assert download_bytes(server, part) == CONTENT


def test_a_truncating_server_without_ranges_is_refused(server, part):
    server.etag = None
    server.start_of_body = lambda request, fault: 0
    server.permanent_fault = "truncate"
    with refuses_download(server, "download", "100000 of 200000 bytes"):
        download_bytes(server, part)
    assert len(server.requested_ranges) == NO_DELAY.max_attempts + 1


def test_a_file_that_changed_is_downloaded_again(server, part):
    server.faults, server.permanent_fault = ["truncate"], "503"
    with refuses_download(server, "download"):
        download_bytes(server, part)
    server.content, server.etag, server.permanent_fault = CONTENT[::-1], '"two"', None
    num_requests = len(server.requested_ranges)
    assert download_bytes(server, part) == CONTENT[::-1]
    assert len(server.requested_ranges) == num_requests + 1


@pytest.mark.parametrize("change", ["etag", "length"])
def test_the_rest_of_another_file_is_not_appended(server, part, change):
    server.faults, server.permanent_fault = ["truncate"], "503"
    with refuses_download(server, "download"):
        download_bytes(server, part)
    server.permanent_fault, server.start_of_body = (
        None,
        lambda request, fault: 100000 if request.headers["Range"] else 0,
    )
    server.content = CONTENT[::-1] if change == "etag" else CONTENT[::-1] + b"more"
    server.etag = '"two"' if change == "etag" else None
    assert download_bytes(server, part) == server.content


def test_a_range_with_another_start_is_not_appended(server, part):
    server.faults = ["truncate", "wrong-range"]
    assert download_bytes(server, part) == CONTENT
    assert server.requested_ranges == [None, "bytes=100000-", None]


def test_a_file_that_became_shorter_is_downloaded_again(server, part):
    server.etag = None
    server.faults, server.permanent_fault = ["truncate"], "503"
    with refuses_download(server, "download"):
        download_bytes(server, part)
    server.content, server.permanent_fault = b"short", None
    assert download_bytes(server, part) == b"short"


def test_a_response_without_length(server, part):
    server.faults = ["no-length"]
    assert download_bytes(server, part) == CONTENT
    assert download_bytes(server, part) == CONTENT
    assert server.requested_ranges == [None]


def test_a_length_that_is_too_small_truncates_the_file(server, part):
    server.faults = ["short-length"]
    assert download_bytes(server, part) == CONTENT[:100000]


def test_a_weak_etag_is_not_used_to_resume(server, part):
    server.etag = 'W/"one"'
    server.faults = ["truncate"]
    assert download_bytes(server, part) == CONTENT
    assert json.loads(part.with_name(f"{part.name}.json").read_text())["validator"] is None


@pytest.mark.parametrize("content", ["{", "[]", '{"url": 3}', '{"url": "http://other", "validator": null, "total": 1}'])
def test_a_part_of_unknown_origin_is_not_resumed(server, part, content):
    part.write_bytes(b"x" * 50)
    part.with_name(f"{part.name}.json").write_text(content)
    assert download_bytes(server, part) == CONTENT
    assert server.requested_ranges == [None]


@pytest.mark.parametrize(("total", "free"), [(200_000, 70_000), (5_000, 1_000)])
def test_a_full_disk_is_refused_and_the_part_is_resumed_later(server, part, total, free):
    server.content = CONTENT[:total]
    with largest_file(free), refuses("output", "file too large"):
        download_bytes(server, part)
    assert part.read_bytes() == CONTENT[:free]
    assert download_bytes(server, part) == server.content
    assert server.requested_ranges == [None, f"bytes={free}-"]


def test_an_interrupted_download_is_resumed(server, part):
    def interrupt(done, total):
        if done:
            raise KeyboardInterrupt

    server.faults = ["stall"]
    with pytest.raises(KeyboardInterrupt):
        download_bytes(server, part, progress=interrupt)
    size = part.stat().st_size
    assert 0 < size <= 100_000
    assert download_bytes(server, part) == CONTENT
    assert server.requested_ranges == [None, f"bytes={size}-"]


def test_discarding_removes_part_and_metadata(server, part):
    download_bytes(server, part)
    assert len(files(part.parent)) == 2
    discard_partial(part)
    discard_partial(part)
    assert not files(part.parent)
