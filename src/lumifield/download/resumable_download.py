"""Download of one file over HTTP: resumes partial files, retries after stalls, and detects files that changed."""

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

BLOCK_SIZE = 2**20
MAX_DELAY = 60.0
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """Timeout, number of attempts, and delays between attempts."""

    timeout: float = 30.0
    """Seconds without data after which a connection is closed."""
    max_attempts: int = 6
    """Number of consecutive attempts without new data."""
    initial_delay: float = 1.0
    """Seconds before the second attempt; doubled before each further attempt, up to one minute."""
    sleep: Callable[[float], None] = time.sleep
    """Waits for a number of seconds."""

    def delay(self, num_failures: int) -> float:
        """Seconds to wait after consecutive failures."""
        return min(self.initial_delay * 2.0 ** min(max(num_failures - 1, 0), 32), MAX_DELAY)


@dataclass(frozen=True)
class RemoteFile:
    """The identity of the file on the server that a partial file belongs to."""

    url: str
    validator: str | None
    """Its strong ETag, otherwise the date of its last modification."""
    total: int | None
    """Size of the complete file [bytes]."""


class IncompleteDownload(Exception):
    """An attempt that did not complete the file, although a further attempt may."""


def download_file(url: str, part: Path, manual_fix: str, retry: RetryPolicy, progress: Progress) -> None:
    """Downloads `url` to `part` and resumes from the data of an earlier call.

    `manual_fix` is the fix to report if the URL has no file. Raises `DataError` then, if all attempts fail, and if
    `part` is not writable; data received so far is kept.
    """
    num_failures, largest_size = 0, _file_size(part)
    while True:
        try:
            return _attempt_download(url, part, manual_fix, retry.timeout, progress)
        except IncompleteDownload as problem:
            num_failures = 0 if _file_size(part) > largest_size else num_failures + 1
            largest_size = max(largest_size, _file_size(part))
            if num_failures >= retry.max_attempts:
                fix = "run the command again later, which resumes the download"
                raise DataError(url, "download", str(problem), "a complete file", fix) from problem
            delay = retry.delay(num_failures)
            log.info("%s: %s; next attempt in %g s", part.name, problem, delay)
            retry.sleep(delay)


def discard_partial(part: Path) -> None:
    """Removes a partial file and its metadata."""
    with writing(part):
        part.unlink(missing_ok=True)
        _metadata_file(part).unlink(missing_ok=True)


def _attempt_download(url: str, part: Path, manual_fix: str, timeout: float, progress: Progress) -> None:
    """Downloads the missing bytes in one connection."""
    remote = _read_metadata(part, url)
    start = _file_size(part) if remote else 0
    if remote and start == remote.total:
        return
    with (
        _classify_errors(url, part, manual_fix),
        urlopen(_build_request(url, start, remote), timeout=timeout) as response,
    ):
        if response.status not in (200, 206):
            raise DataError(url, "URL", f"HTTP status {response.status}", "a file", manual_fix)
        if response.headers.get_content_type() == "text/html":
            raise DataError(url, "URL", "a web page", "a file", manual_fix)
        start, remote = _match_response(response, start, remote or RemoteFile(url, None, None), part)
        _write_metadata(remote, part)
        _append_body(response, part, start, remote.total, progress)
    size = _file_size(part)
    if remote.total is None:
        _write_metadata(replace(remote, total=size), part)
    elif size != remote.total:
        raise IncompleteDownload(f"a truncated file ({size} of {remote.total} bytes)")


def _build_request(url: str, start: int, remote: RemoteFile | None) -> Request:
    """Requests the bytes from `start` on, or the whole file if it is not the known one any more."""
    headers = {"User-Agent": f"lumifield/{VERSION}", "Accept-Encoding": "identity"}
    if start and remote:
        headers["Range"] = f"bytes={start}-"
        if remote.validator:
            headers["If-Range"] = remote.validator
    return Request(url, headers=headers)


@contextmanager
def _classify_errors(url: str, part: Path, manual_fix: str) -> Iterator[None]:
    """Converts transient errors to `IncompleteDownload` and permanent ones to `DataError`."""
    try:
        yield
    except HTTPError as error:
        error.close()
        if error.code == 416:
            discard_partial(part)
            raise IncompleteDownload("a file shorter than its partial copy") from error
        if error.code in TRANSIENT_STATUS:
            raise IncompleteDownload(f"HTTP status {error.code}") from error
        raise DataError(url, "URL", f"HTTP status {error.code}", "a file", manual_fix) from error
    except TimeoutError as error:
        raise IncompleteDownload("a stalled connection") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        words = " ".join(str(reason).split()) or type(reason).__name__
        raise IncompleteDownload(f"a failed connection ({words})") from error


def _match_response(response: HTTPResponse, start: int, remote: RemoteFile, part: Path) -> tuple[int, RemoteFile]:
    """The byte at which the response starts, and the identity of its file.

    A server may send the whole file in response to a range. Discards the partial file and raises `IncompleteDownload`
    if the response continues a different file.
    """
    validator = _response_validator(response)
    if response.status == 200:
        length = response.headers["Content-Length"] or ""
        return 0, RemoteFile(remote.url, validator, int(length) if length.isdecimal() else None)
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers["Content-Range"] or "")
    total = int(span[2]) if span and span[2] != "*" else remote.total
    is_continuation = span and int(span[1]) == start and total == (remote.total or total)
    if not is_continuation or (validator and remote.validator and validator != remote.validator):
        discard_partial(part)
        raise IncompleteDownload("a different file than before")
    return start, replace(remote, total=total)


def _response_validator(response: HTTPResponse) -> str | None:
    """The value for If-Range: a strong ETag, otherwise the date of the last modification."""
    etag = response.headers["ETag"]
    return etag if etag and not etag.startswith("W/") else response.headers["Last-Modified"]


def _append_body(response: HTTPResponse, part: Path, start: int, total: int | None, progress: Progress) -> None:
    """Writes the body of the response after the first `start` bytes of the partial file."""
    with writing(part):
        file = part.open("r+b" if start else "wb", buffering=0)
    done = start
    with file:
        file.seek(start)
        progress(done, total)
        # read1 returns the data received so far, so that a stall loses none of it.
        while block := response.read1(BLOCK_SIZE):
            _write_block(file, block, part)
            done += len(block)
            progress(done, total)


def _write_block(file: BinaryIO, block: bytes, part: Path) -> None:
    """Writes a block to an unbuffered file, so that a full disk raises here and not on closing."""
    rest = memoryview(block)
    with writing(part):
        while rest:
            rest = rest[file.write(rest) :]


def _file_size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _metadata_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_metadata(remote: RemoteFile, part: Path) -> None:
    with replacing(_metadata_file(part)) as temporary:
        temporary.write_text(json.dumps(to_plain(remote)))


def _read_metadata(part: Path, url: str) -> RemoteFile | None:
    """The metadata of a partial file; None if it is missing, unusable, or for another URL."""
    file = _metadata_file(part)
    try:
        remote = from_plain(RemoteFile, mapping(read_json(file), file, "content"), file)
    except DataError:
        return None
    return remote if remote.url == url else None
