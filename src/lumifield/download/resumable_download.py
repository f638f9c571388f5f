"""One file over HTTP: goes on where it stopped, waits for a server that stalls, notices a file that changed."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lumifield.errors import DataError
from lumifield.runtime.config import from_plain, mapping, read_json, to_plain
from lumifield.runtime.files import replacing, writing
from lumifield.version import VERSION

Progress = Callable[[int, int | None], None]

log = logging.getLogger(__name__)

BLOCK = 2**20
LONGEST_PAUSE = 60.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """How long to bear with a server."""

    timeout: float = 30.0
    """Seconds without a byte after which the connection is given up."""
    attempts: int = 6
    """Attempts in a row that bring nothing new."""
    wait: float = 1.0
    """Seconds before the second attempt; each next one waits twice as long, up to a minute."""

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.wait * 2.0 ** min(max(failures - 1, 0), 32), LONGEST_PAUSE)


@dataclass(frozen=True)
class RemoteFile:
    """What the server said of the file that a part belongs to."""

    url: str
    validator: str | None
    """Its strong ETag, or else when it was changed."""
    total: int | None
    """Bytes of the whole file."""


class IncompleteDownload(Exception):
    """An attempt that did not bring the whole file, though another one may."""


def download_file(url: str, part: Path, by_hand: str, patience: RetryPolicy, progress: Progress) -> None:
    """Brings the file at `url` to `part`, going on from what an earlier call left there.

    `by_hand` is the fix where the address gives no file. Raises `DataError` there, where the server stays silent, and
    where `part` cannot be written; what has arrived stays.
    """
    failures, most = 0, _size(part)
    while True:
        try:
            return _attempt(url, part, by_hand, patience.timeout, progress)
        except IncompleteDownload as problem:
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= patience.attempts:
                fix = "run the command again later, which goes on where this stopped"
                raise DataError(url, "the download", str(problem), "a whole file", fix) from problem
            pause = patience.pause(failures)
            log.info("%s: %s; trying again in %g s", part.name, problem, pause)
            time.sleep(pause)


def discard_partial(part: Path) -> None:
    """Removes a part and what is known of it."""
    with writing(part):
        part.unlink(missing_ok=True)
        _beside(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, by_hand: str, timeout: float, progress: Progress) -> None:
    """Downloads what is missing in one connection."""
    note = _noted(part, url)
    start = _size(part) if note else 0
    if note and start == note.total:
        return
    with _network(url, part, by_hand), urlopen(_request(url, start, note), timeout=timeout) as answer:
        if answer.status not in (200, 206) or answer.headers.get_content_type() == "text/html":
            found = "a page" if answer.status in (200, 206) else f"answered with {answer.status}"
            raise DataError(url, "the address", found, "a file", by_hand)
        start, note = _agreed(answer, start, note or RemoteFile(url, None, None), part)
        _save(note, part)
        _store(answer, part, start, note.total, progress)
    size = _size(part)
    if note.total is None:
        _save(replace(note, total=size), part)
    elif size != note.total:
        raise IncompleteDownload(f"cut off ({size} of {note.total} bytes)")


def _request(url: str, start: int, note: RemoteFile | None) -> Request:
    """Asks for the file from byte `start` on, but from the beginning if it is no longer the one noted."""
    headers = {"User-Agent": f"lumifield/{VERSION}", "Accept-Encoding": "identity"}
    if start and note:
        headers["Range"] = f"bytes={start}-"
        if note.validator:
            headers["If-Range"] = note.validator
    return Request(url, headers=headers)


@contextmanager
def _network(url: str, part: Path, by_hand: str) -> Iterator[None]:
    """Tells troubles that may pass from those that will not."""
    try:
        yield
    except HTTPError as error:
        error.close()
        if error.code == 416:
            discard_partial(part)
            raise IncompleteDownload("shorter than what had arrived of it") from error
        if error.code in PASSING:
            raise IncompleteDownload(f"answered with {error.code}") from error
        raise DataError(url, "the address", f"answered with {error.code}", "a file", by_hand) from error
    except TimeoutError as error:
        raise IncompleteDownload("stalled") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise IncompleteDownload(f"broken off ({' '.join(str(reason).split()) or type(reason).__name__})") from error


def _agreed(answer: HTTPResponse, start: int, note: RemoteFile, part: Path) -> tuple[int, RemoteFile]:
    """The byte that the answer starts with, and what is now known of the file.

    A server may answer with the whole file where a rest was asked for. A rest of another file is refused.
    """
    validator = _validator(answer)
    if answer.status == 200:
        length = answer.headers["Content-Length"] or ""
        return 0, RemoteFile(note.url, validator, int(length) if length.isdecimal() else None)
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers["Content-Range"] or "")
    total = int(span[2]) if span and span[2] != "*" else note.total
    fits = span and int(span[1]) == start and total == (note.total or total)
    if not fits or (validator and note.validator and validator != note.validator):
        discard_partial(part)
        raise IncompleteDownload("no longer the file that it was")
    return start, replace(note, total=total)


def _validator(answer: HTTPResponse) -> str | None:
    """What If-Range may name: a strong ETag or a date."""
    etag = answer.headers["ETag"]
    return etag if etag and not etag.startswith("W/") else answer.headers["Last-Modified"]


def _store(answer: HTTPResponse, part: Path, start: int, total: int | None, progress: Progress) -> None:
    """Writes the answer behind the first `start` bytes of the part."""
    with writing(part):
        file = part.open("r+b" if start else "wb", buffering=0)
    done = start
    with file:
        file.seek(start)
        progress(done, total)
        # read1 returns what is there: a stall loses nothing that has arrived.
        while block := answer.read1(BLOCK):
            _written(file, block, part)
            done += len(block)
            progress(done, total)


def _written(file: BinaryIO, block: bytes, part: Path) -> None:
    """Writes a block; without a buffer, so that a full disk shows here and not when the file is closed."""
    left = memoryview(block)
    with writing(part):
        while left:
            left = left[file.write(left) :]


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _save(note: RemoteFile, part: Path) -> None:
    with replacing(_beside(part)) as temporary:
        temporary.write_text(json.dumps(to_plain(note)))


def _noted(part: Path, url: str) -> RemoteFile | None:
    """What is known of the file that the part belongs to; None where nothing is, or it is another file's."""
    file = _beside(part)
    try:
        note = from_plain(RemoteFile, mapping(read_json(file), file, "content"), file)
    except DataError:
        return None
    return note if note.url == url else None
