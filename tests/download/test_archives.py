"""Extraction of valid, damaged and malicious archives: only plain files below one folder reach the disk."""

import contextlib
import io
import random
import stat
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import files
from lumifield.download.archives import (
    BadArchive,
    ExtractionBudget,
    extract_archive,
    extract_nested_archives,
    extraction_budget,
)
from refusals import refuses
from serving import make_tar, make_zip

FILES = {"scene/a.txt": b"a" * 1000, "scene/deep/b.txt": b"b", "scene/empty": b""}


def write_archive(tmp_path, content):
    archive = tmp_path / "set.zip"
    archive.write_bytes(content)
    return archive


def extract_files(archive, budget=None):
    """Extracts an archive to the folder `out` next to it; returns the files."""
    folder = archive.parent / "out"
    folder.mkdir()
    extract_archive(archive, folder.joinpath, budget or extraction_budget(archive))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(archive, field, found="", budget=None):
    """Extracting raises a one-line `BadArchive` of that field, and writes nothing outside of the folder."""
    outside = files(archive.parent)
    with pytest.raises(BadArchive) as caught:
        extract_files(archive, budget)
    assert caught.value.field == field
    assert found in caught.value.found
    assert "\n" not in str(caught.value)
    inside = {name for name in files(archive.parent) if name.startswith("out/")}
    assert {name: content for name, content in files(archive.parent).items() if name not in inside} == outside
    assert not any(path.is_symlink() for path in archive.parent.rglob("*"))


def is_archive(path):
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def make_zip_entry(name, mode=0, content=b"x"):
    """A zip archive with one entry of this Unix mode."""
    info = zipfile.ZipInfo(name)
    info.filename, info.external_attr = name, mode << 16
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(info, content)
    return memory.getvalue()


def make_zip_of_pairs(pairs):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in pairs:
            archive.writestr(name, content)
    return memory.getvalue()


def make_tar_entry(name, kind=tarfile.REGTYPE, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    "content", [make_zip(FILES), make_tar(FILES), make_tar(FILES, mode="w"), make_tar(FILES, mode="w:xz")], ids=len
)
def test_valid_archives_are_extracted_completely(tmp_path, content):
    assert extract_files(write_archive(tmp_path, content)) == FILES


def test_folders_and_entries_without_destination_are_skipped(tmp_path):
    archive = write_archive(
        tmp_path, make_tar(FILES, make_tar_entry("./", tarfile.DIRTYPE), make_tar_entry("scene", tarfile.DIRTYPE))
    )
    extract_archive(
        archive, lambda path: tmp_path / path.name if path.name == "b.txt" else None, extraction_budget(archive)
    )
    assert sorted(files(tmp_path)) == ["b.txt", "set.zip"]


NAMES = [
    "../evil",
    "scene/../../evil",
    "/tmp/evil-of-lumifield",
    "..\\evil",
    "C:\\evil",
    "c:evil",
    "a\nb",
    "\\\\host\\x",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_point_outside_are_refused(tmp_path, name, kind):
    content = make_zip_entry(name) if kind == "zip" else make_tar({name: b"x"})
    assert_refused(write_archive(tmp_path, content), "entry", "which points outside of the folder")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_zips_with_links_and_devices_are_refused(tmp_path, mode):
    archive = write_archive(tmp_path, make_zip_entry("scene/link", mode | 0o777, b"/etc/passwd"))
    assert_refused(archive, "entry", "which is a link, a device or encrypted")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc", "../..", "a.txt"])
def test_tars_with_links_and_devices_are_refused(tmp_path, kind, target):
    archive = write_archive(tmp_path, make_tar({"a.txt": b"a"}, make_tar_entry("link", kind, target)))
    assert_refused(archive, "entry", "'link', which is a link, a device or encrypted")


def test_encrypted_zips_are_refused(tmp_path):
    content = bytearray(make_zip({"a": b"secret"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    assert_refused(write_archive(tmp_path, bytes(content)), "entry", "encrypted")


def test_duplicate_names_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        content = make_zip_of_pairs([("a", b"1"), ("a", b"2")])
    assert_refused(write_archive(tmp_path, content), "entry", "'a' a second time")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_decompression_bombs_are_refused_before_they_are_written(tmp_path, make):
    archive = write_archive(tmp_path, make({"small": b"s", "bomb": bytes(3_000_000)}))
    assert archive.stat().st_size < 30_000
    budget = ExtractionBudget(num_entries=10, num_bytes=2_000_000)
    assert_refused(archive, "content", "far larger than the archive", budget)
    assert not (tmp_path / "out" / "bomb").exists()


def test_a_zip_with_a_wrong_size_writes_no_more_than_the_stated_size(tmp_path):
    content = bytearray(make_zip({"bomb": bytes(3_000_000)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, 10)
    assert_refused(write_archive(tmp_path, bytes(content)), "content", "damaged data (")
    assert (tmp_path / "out" / "bomb").stat().st_size <= 10


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_entries_are_refused(tmp_path, make):
    archive = write_archive(tmp_path, make({f"{i}": b"" for i in range(20)}))
    assert_refused(archive, "content", "far too many files", ExtractionBudget(num_entries=10, num_bytes=1000))


def test_the_budget_grows_with_the_archive(tmp_path):
    archive = write_archive(tmp_path, b"")
    assert extraction_budget(archive) == ExtractionBudget(1_000_000, 2**30)
    with archive.open("wb") as file:
        file.truncate(2**30)
    assert extraction_budget(archive) == ExtractionBudget(1_000_000, 20 * 2**30)


@pytest.mark.parametrize("content", [b"", b"<html>Quota exceeded</html>", b"PK\x03\x04 and no more"])
def test_files_of_another_type_are_refused(tmp_path, content):
    assert_refused(write_archive(tmp_path, content), "file type", "another type")


@pytest.mark.parametrize(
    "make", [make_zip, make_tar, lambda f: make_tar(f, mode="w:xz"), lambda f: make_tar(f, mode="w:bz2")]
)
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damaged_archives_are_refused(tmp_path, make, damage):
    content = bytearray(make({"noise": random.Random(0).randbytes(100_000)}))
    if damage == "flip":
        content[50_000] ^= 255
    else:
        del content[60_000:]
    archive = write_archive(tmp_path, bytes(content))
    assert_refused(archive, "content" if is_archive(archive) else "file type")


def test_a_wrong_gzip_checksum_is_refused(tmp_path):
    content = bytearray(make_tar(FILES))
    content[-6] ^= 255
    assert_refused(write_archive(tmp_path, bytes(content)), "content", "damaged data (")


def test_nested_archives_are_replaced_by_their_content(tmp_path):
    folder = tmp_path / "chess"
    folder.mkdir()
    (folder / "seq-01.zip").write_bytes(make_zip({"seq-01/frame.txt": b"1"}))
    (folder / "seq-02.zip").write_bytes(make_zip({"seq-02/frame.txt": b"2"}))
    extract_nested_archives(folder, ExtractionBudget())
    assert sorted(files(folder)) == ["seq-01/frame.txt", "seq-02/frame.txt"]


def test_nested_archives_share_one_budget(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.zip").write_bytes(make_zip({name: bytes(600)}))
    with refuses("content", "far larger"):
        extract_nested_archives(tmp_path, ExtractionBudget(num_bytes=1000))


@given(st.sampled_from(["w", "w:gz", "w:xz", "zip"]), st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255))))
def test_random_damage_gives_files_or_bad_archive(kind, flips):
    content = bytearray(make_zip(FILES) if kind == "zip" else make_tar(FILES, mode=kind))
    for where, bits in flips:
        content[int(where * len(content))] ^= bits
    with tempfile.TemporaryDirectory() as folder:
        archive = write_archive(Path(folder), bytes(content))
        with contextlib.suppress(BadArchive, OSError):
            extract_files(archive, ExtractionBudget(100, 100_000))
        assert {path.name for path in Path(folder).iterdir()} == {"set.zip", "out"}
        assert not any(path.is_symlink() for path in Path(folder).rglob("*"))
