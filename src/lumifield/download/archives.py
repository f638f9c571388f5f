"""Safe extraction of untrusted zip and tar archives: only plain files below one folder, within a budget."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from lumifield.errors import DataError

BLOCK_SIZE = 2**20
DECOMPRESSION_ERRORS = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, ValueError, OSError),
)
# Uncompressed size per byte of archive that is still plausible: images need about 1.
MAX_EXPANSION = 20
USE_TRUSTED_SOURCE = "download the archive from a source that you trust"
DOWNLOAD_AGAIN = "download it again"

Destination = Callable[[PurePosixPath], Path | None]
"""Maps the path of an entry to the file to write; None skips the entry."""


class BadArchive(DataError):
    """An archive that is damaged, unsafe, or not an archive."""


@dataclass
class ExtractionBudget:
    """The number of entries and bytes that may still be extracted."""

    num_entries: int = 1_000_000
    num_bytes: int = 2**30

    def spend(self, archive: Path, num_bytes: int) -> None:
        """Subtracts one entry of `num_bytes`; raises `BadArchive` if the budget is exceeded."""
        self.num_entries -= 1
        self.num_bytes -= num_bytes
        if min(self.num_entries, self.num_bytes) < 0:
            found = "content far larger than the archive" if self.num_bytes < 0 else "far too many files"
            raise BadArchive(archive, "content", found, "the size of a dataset", USE_TRUSTED_SOURCE)


@dataclass(frozen=True)
class ArchiveEntry:
    """A file or folder in an archive; `is_plain` excludes links, devices and encrypted files."""

    name: str
    num_bytes: int
    is_folder: bool
    is_plain: bool
    open: Callable[[], IO[bytes]]


def extraction_budget(archive: Path) -> ExtractionBudget:
    """`MAX_EXPANSION` times the size of the archive, and at least 1 GiB."""
    return ExtractionBudget(num_bytes=max(MAX_EXPANSION * archive.stat().st_size, ExtractionBudget.num_bytes))


def extract_archive(archive: Path, destination: Destination, budget: ExtractionBudget) -> None:
    """Extracts the files of a zip or tar archive to the paths that `destination` returns.

    Raises `BadArchive` if the archive is damaged, if an entry points outside of its folder or is not a plain file or
    folder, and if the budget is exceeded. Files extracted before the error remain: use a temporary folder.
    """
    with convert_errors(archive):
        for entry in iterate_entries(archive):
            budget.spend(archive, entry.num_bytes)
            path = validate_entry(archive, entry)
            target = destination(path)
            if target is None or entry.is_folder:
                continue
            if target.exists():
                found = f"{str(path)!r} a second time"
                raise BadArchive(archive, "entry", found, "distinct names", USE_TRUSTED_SOURCE)
            target.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, BLOCK_SIZE)


def extract_nested_archives(folder: Path, budget: ExtractionBudget) -> None:
    """Replaces each zip file below the folder by its content."""
    for archive in sorted(folder.rglob("*.zip")):
        extract_archive(archive, archive.parent.joinpath, budget)
        archive.unlink()


def iterate_entries(archive: Path) -> Iterator[ArchiveEntry]:
    """The entries of a zip or tar archive in their order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not info.flag_bits & 1
                yield ArchiveEntry(info.filename, info.file_size, info.is_dir(), is_plain, partial(opened.open, info))
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened:
            for member in opened:
                is_plain = member.isreg() or member.isdir()
                # extractfile returns None for entries that are not files, which are never opened.
                open_member = partial(opened.extractfile, member)
                yield ArchiveEntry(member.name, member.size, member.isdir(), is_plain, open_member)  # type: ignore[arg-type]
            # Read the padding, because the checksum of the compressed stream follows it.
            opened.fileobj.read(BLOCK_SIZE)  # type: ignore[union-attr]
    else:
        raise BadArchive(archive, "file type", "a file of another type", "a zip or tar archive", DOWNLOAD_AGAIN)


def validate_entry(archive: Path, entry: ArchiveEntry) -> PurePosixPath:
    """The path of an entry; raises `BadArchive` if it points outside, or is not a plain file or folder."""
    name = entry.name.replace("\\", "/")
    path = PurePosixPath(name)
    is_outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|.*[\x00-\x1f]", name)
    if is_outside or not entry.is_plain:
        reason = "points outside of the folder" if is_outside else "is a link, a device or encrypted"
        found = f"{entry.name!r}, which {reason}"
        raise BadArchive(archive, "entry", found, "plain files below one folder", USE_TRUSTED_SOURCE)
    return path


@contextmanager
def convert_errors(archive: Path) -> Iterator[None]:
    """Converts errors of the decompressors to `BadArchive`."""
    try:
        yield
    except DECOMPRESSION_ERRORS as error:
        # Errors of the operating system have an errno and concern writing; those of the decompressors have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        found = f"damaged data ({' '.join(str(error).split())})"
        raise BadArchive(archive, "content", found, "a complete archive", DOWNLOAD_AGAIN) from error
