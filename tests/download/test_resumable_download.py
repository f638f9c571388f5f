"""One file from a server that behaves, stalls, truncates, lies, or changes it."""

import json
import logging
import random

import pytest

from commands import files, largest_file
from lumifield.download.resumable_download import RetryPolicy, discard_partial, download_file
from lumifield.errors import DataError
from serving import Site, served

CONTENT = random.Random(0).randbytes(200_000)
BY_HAND = "save it by hand"
CALM = RetryPolicy(timeout=60, attempts=3, wait=0.0)
# So many attempts that a slow machine, which looks like a stalled server, changes nothing.
HASTY = RetryPolicy(timeout=0.2, attempts=100, wait=0.0)


@pytest.fixture(autouse=True)
def _without_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site():
    with served(Site(CONTENT)) as site:
        yield site


@pytest.fixture
def part(tmp_path):
    return tmp_path / "file.zip.part"


def got(site, part, patience=CALM, progress=lambda done, total: None):
    """The bytes that a download brings."""
    download_file(site.url, part, BY_HAND, patience, progress)
    return part.read_bytes()


def refused(site, part):
    with pytest.raises(DataError) as caught:
        got(site, part)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_arrives_and_a_second_call_asks_for_nothing(site, part):
    seen = []
    assert got(site, part, progress=lambda done, total: seen.append((done, total))) == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert got(site, part) == CONTENT
    assert site.asked == [None]


def test_what_has_arrived_is_not_asked_for_again(site, part):
    site.manners = ["truncate", "truncate"]
    assert got(site, part) == CONTENT
    assert site.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_stalled_connection_is_given_up_for_another_that_goes_on(site, part):
    site.manners = ["stall", "silent"]
    assert got(site, part, HASTY) == CONTENT
    assert len(site.asked) >= 3
    assert site.asked[-1] is not None


def test_attempts_that_bring_something_do_not_count(site, part):
    site.manners = ["truncate"] * 8
    assert got(site, part) == CONTENT
    assert len(site.asked) == 9


@pytest.mark.parametrize("manner", ["503", "500", "429"])
def test_troubles_that_pass_are_waited_for(site, part, manner):
    site.manners = [manner, manner]
    assert got(site, part) == CONTENT


def test_troubles_that_stay_end_after_the_attempts_and_keep_the_part(site, part):
    site.manners, site.always = ["truncate"], "503"
    said = refused(site, part)
    assert f"{site.url}: the download: found answered with 503" in said
    assert len(site.asked) == 1 + CALM.attempts
    site.always = None
    assert got(site, part) == CONTENT
    assert site.asked[-1] == "bytes=100000-"


def test_a_server_that_is_always_silent_is_given_up(site, part):
    site.always = "silent"
    with pytest.raises(DataError, match="the download: found stalled"):
        got(site, part, RetryPolicy(timeout=0.1, attempts=2, wait=0.0))


def test_nobody_at_the_address(part):
    with served(Site(CONTENT)) as site:
        pass
    assert "the download: found broken off ([Errno 111] Connection refused)" in refused(site, part)


def test_pauses_grow_up_to_a_minute(site, part, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    pauses = []
    monkeypatch.setattr(transfer.time, "sleep", pauses.append)
    site.always = "503"
    with pytest.raises(DataError, match="503"):
        got(site, part, RetryPolicy(timeout=5, attempts=9, wait=1.0))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert RetryPolicy().pause(10**6) == 60
    assert "file.zip.part: answered with 503; trying again in 32 s" in caplog.text


@pytest.mark.parametrize("status", ["404", "403", "410"])
def test_an_error_that_stays_is_told_at_once(site, part, status):
    site.always = status
    said = refused(site, part)
    assert said == f"{site.url}: the address: found answered with {status}"
    assert len(site.asked) == 1
    assert not part.exists()


def test_a_page_instead_of_a_file_is_told_at_once_and_spoils_nothing(site, part):
    site.manners = ["truncate", "page"]
    assert refused(site, part) == f"{site.url}: the address: found a page"
    assert part.read_bytes() == CONTENT[:100000]


def test_a_status_that_means_nothing_here_is_told(site, part):
    site.always = "204"
    assert "the address: found answered with 204" in refused(site, part)


def test_a_server_without_ranges_starts_anew(site, part):
    site.manners = ["truncate", "ignore-range"]
    assert got(site, part) == CONTENT


def test_a_server_that_always_cuts_and_knows_no_ranges_is_given_up(site, part):
    site.etag = None
    site._start = lambda request, manner: 0
    site.always = "truncate"
    assert "cut off (100000 of 200000 bytes)" in refused(site, part)
    assert len(site.asked) == CALM.attempts + 1


def test_a_file_that_changes_in_between_is_read_anew(site, part):
    site.manners, site.always = ["truncate"], "503"
    refused(site, part)
    site.content, site.etag, site.always = CONTENT[::-1], '"two"', None
    before = len(site.asked)
    assert got(site, part) == CONTENT[::-1]
    assert len(site.asked) == before + 1


@pytest.mark.parametrize("change", ["etag", "length"])
def test_a_server_that_sends_the_rest_of_another_file_is_not_believed(site, part, change):
    site.manners, site.always = ["truncate"], "503"
    refused(site, part)
    site.always, site._start = None, lambda request, manner: 100000 if request.headers["Range"] else 0
    site.content = CONTENT[::-1] if change == "etag" else CONTENT[::-1] + b"more"
    site.etag = '"two"' if change == "etag" else None
    assert got(site, part) == site.content


def test_a_rest_that_starts_elsewhere_is_not_believed(site, part):
    site.manners = ["truncate", "wrong-span"]
    assert got(site, part) == CONTENT
    assert site.asked == [None, "bytes=100000-", None]


def test_a_file_that_has_become_shorter(site, part):
    site.etag = None
    site.manners, site.always = ["truncate"], "503"
    refused(site, part)
    site.content, site.always = b"short", None
    assert got(site, part) == b"short"


def test_no_length_at_all(site, part):
    site.manners = ["no-length"]
    assert got(site, part) == CONTENT
    assert got(site, part) == CONTENT
    assert site.asked == [None]


def test_a_length_that_is_too_small_ends_the_file_there(site, part):
    site.manners = ["short-length"]
    assert got(site, part) == CONTENT[:100000]


def test_a_weak_tag_is_not_used_to_go_on(site, part):
    site.etag = 'W/"one"'
    site.manners = ["truncate"]
    assert got(site, part) == CONTENT
    assert json.loads(part.with_name(f"{part.name}.json").read_text())["validator"] is None


@pytest.mark.parametrize("content", ["{", "[]", '{"url": 3}', '{"url": "http://other", "validator": null, "total": 1}'])
def test_a_part_of_unknown_origin_is_not_used(site, part, content):
    part.write_bytes(b"x" * 50)
    part.with_name(f"{part.name}.json").write_text(content)
    assert got(site, part) == CONTENT
    assert site.asked == [None]


@pytest.mark.parametrize(("whole", "free"), [(200_000, 70_000), (5_000, 1_000)])
def test_a_full_disk_is_told_and_the_part_goes_on_later(site, part, whole, free):
    site.content = CONTENT[:whole]
    with largest_file(free):
        said = refused(site, part)
    assert "output: found an error (file too large)" in said
    assert part.read_bytes() == CONTENT[:free]
    assert got(site, part) == site.content
    assert site.asked == [None, f"bytes={free}-"]


def test_an_interruption_leaves_a_part_to_go_on_with(site, part):
    def interrupt(done, total):
        if done:
            raise KeyboardInterrupt

    site.manners = ["stall"]
    with pytest.raises(KeyboardInterrupt):
        got(site, part, progress=interrupt)
    size = part.stat().st_size
    assert 0 < size <= 100_000
    assert got(site, part) == CONTENT
    assert site.asked == [None, f"bytes={size}-"]


def test_discarding_leaves_nothing(site, part):
    got(site, part)
    assert len(files(part.parent)) == 2
    discard_partial(part)
    discard_partial(part)
    assert not files(part.parent)
