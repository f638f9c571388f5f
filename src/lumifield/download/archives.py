"""Zip and tar archives from strangers: plain files below one folder, and no more of them than is sane."""

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

BLOCK = 2**20
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, ValueError, OSError),
)
Place = Callable[[PurePosixPath], Path | None]
"""Where an entry goes; None: nowhere."""


class BadArchive(DataError):
    """An archive that is none, is damaged, or asks for what no data set needs."""


@dataclass
class UnpackBudget:
    """What may still be unpacked."""

    entries: int = 1_000_000
    size: int = 2**30
    """Bytes."""

    def spend(self, archive: Path, size: int) -> None:
        """Takes an entry of `size` bytes off; raises `BadArchive` where nothing is left."""
        self.entries -= 1
        self.size -= size
        if min(self.entries, self.size) < 0:
            found = "far larger than the archive" if self.size < 0 else "split into far too many files"
            raise BadArchive(archive, "the content", found, "the size of a data set", "get it from a source you trust")


@dataclass(frozen=True)
class Entry:
    """A file or folder in an archive."""

    name: str
    size: int
    """Bytes."""
    folder: bool
    plain: bool
    """Neither link, device nor encrypted."""
    open: Callable[[], IO[bytes]]


def budget(archive: Path) -> UnpackBudget:
    """Twenty times the archive, of which images need about one, and at least a gibibyte."""
    return UnpackBudget(size=max(20 * archive.stat().st_size, UnpackBudget.size))


def unpack_archive(archive: Path, place: Place, left: UnpackBudget) -> None:
    """Writes the files of a zip or tar archive to the places that `place` gives.

    Raises `BadArchive` for an archive that is broken, that names a place outside, holds anything but files and folders,
    or exceeds the budget. What it had written until then stays: unpack into a temporary folder.
    """
    with reading(archive):
        for entry in entries(archive):
            left.spend(archive, entry.size)
            path = checked(archive, entry)
            target = place(path)
            if target is None or entry.folder:
                continue
            if target.exists():
                fix = "get it from a source you trust"
                raise BadArchive(archive, "the entry", f"{str(path)!r} a second time", "different names", fix)
            target.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, BLOCK)


def unpack_nested_archives(folder: Path, left: UnpackBudget) -> None:
    """Replaces each zip file below the folder by what it holds."""
    for inner in sorted(folder.rglob("*.zip")):
        unpack_archive(inner, inner.parent.joinpath, left)
        inner.unlink()


def entries(archive: Path) -> Iterator[Entry]:
    """The entries of a zip or tar archive, in order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                plain = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not info.flag_bits & 1
                yield Entry(info.filename, info.file_size, info.is_dir(), plain, partial(opened.open, info))
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened:
            for member in opened:
                plain = member.isreg() or member.isdir()
                # extractfile gives None for what is no file, which is never opened.
                content = partial(opened.extractfile, member)
                yield Entry(member.name, member.size, member.isdir(), plain, content)  # type: ignore[arg-type]
            # The padding, because the checksum of the compression stands behind it.
            opened.fileobj.read(BLOCK)  # type: ignore[union-attr]
    else:
        raise BadArchive(archive, "the file", "something else", "a zip or tar archive", "get it again")


def checked(archive: Path, entry: Entry) -> PurePosixPath:
    """The path of an entry; raises `BadArchive` where it leads outside, or the entry is no plain file or folder."""
    name = entry.name.replace("\\", "/")
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|.*[\x00-\x1f]", name)
    if outside or not entry.plain:
        found = f"{entry.name!r}, which " + ("leads outside" if outside else "is a link, a device or encrypted")
        fix = "get it from a source you trust"
        raise BadArchive(archive, "the entry", found, "plain files below one folder", fix)
    return path


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turns what the decompressors raise into a `BadArchive`."""
    try:
        yield
    except DAMAGE as error:
        # An error of the operating system has a number and is about writing; the rest are decompressors'.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        found = f"damaged ({' '.join(str(error).split())})"
        raise BadArchive(archive, "the archive", found, "a whole archive", "get it again") from error
