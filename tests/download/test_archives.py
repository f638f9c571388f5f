"""Archives, honest and hostile, of which only plain files below one folder ever reach the disk."""

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
from lumifield.download.archives import BadArchive, UnpackBudget, budget, unpack_archive, unpack_nested_archives
from serving import tarred, zipped

HONEST = {"scene/a.txt": b"a" * 1000, "scene/deep/b.txt": b"b", "scene/empty": b""}


def packed(tmp_path, content):
    archive = tmp_path / "set.zip"
    archive.write_bytes(content)
    return archive


def unpacked(archive, left=None):
    """The files that an archive leaves below a folder beside it."""
    folder = archive.parent / "out"
    folder.mkdir()
    unpack_archive(archive, folder.joinpath, left or budget(archive))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive, left=None):
    """What is said of an archive, of which nothing may have reached a place outside."""
    outside = files(archive.parent)
    with pytest.raises(BadArchive) as caught:
        unpacked(archive, left)
    assert "\n" not in str(caught.value)
    inside = {name for name in files(archive.parent) if name.startswith("out/")}
    assert {name: c for name, c in files(archive.parent).items() if name not in inside} == outside
    assert not any(path.is_symlink() for path in archive.parent.rglob("*"))
    return str(caught.value)


def zip_entry(name, mode=0, content=b"x"):
    """A zip archive with one entry of a Unix mode."""
    info = zipfile.ZipInfo(name)
    info.filename, info.external_attr = name, mode << 16
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(info, content)
    return memory.getvalue()


def zipped_pairs(pairs):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in pairs:
            archive.writestr(name, content)
    return memory.getvalue()


def tar_entry(name, kind=tarfile.REGTYPE, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    "content", [zipped(HONEST), tarred(HONEST), tarred(HONEST, mode="w"), tarred(HONEST, mode="w:xz")], ids=len
)
def test_honest_archives_arrive_whole(tmp_path, content):
    assert unpacked(packed(tmp_path, content)) == HONEST


def test_folders_and_entries_without_a_place_are_passed_over(tmp_path):
    archive = packed(tmp_path, tarred(HONEST, tar_entry("./", tarfile.DIRTYPE), tar_entry("scene", tarfile.DIRTYPE)))
    unpack_archive(archive, lambda path: tmp_path / path.name if path.name == "b.txt" else None, budget(archive))
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
def test_names_that_lead_outside_are_refused(tmp_path, name, kind):
    content = zip_entry(name) if kind == "zip" else tarred({name: b"x"})
    assert "which leads outside, expected plain files below one folder" in refused(packed(tmp_path, content))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_zips_with_links_and_devices_are_refused(tmp_path, mode):
    archive = packed(tmp_path, zip_entry("scene/link", mode | 0o777, b"/etc/passwd"))
    assert "which is a link, a device or encrypted" in refused(archive)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc", "../..", "a.txt"])
def test_tars_with_links_and_devices_are_refused(tmp_path, kind, target):
    archive = packed(tmp_path, tarred({"a.txt": b"a"}, tar_entry("link", kind, target)))
    assert "'link', which is a link, a device or encrypted" in refused(archive)


def test_encrypted_zips_are_refused(tmp_path):
    content = bytearray(zipped({"a": b"secret"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    assert "encrypted" in refused(packed(tmp_path, bytes(content)))


def test_a_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        content = zipped_pairs([("a", b"1"), ("a", b"2")])
    assert "the entry: found 'a' a second time" in refused(packed(tmp_path, content))


@pytest.mark.parametrize("make", [zipped, tarred])
def test_bombs_are_refused_before_they_are_written(tmp_path, make):
    archive = packed(tmp_path, make({"small": b"s", "bomb": bytes(3_000_000)}))
    assert archive.stat().st_size < 30_000
    said = refused(archive, UnpackBudget(entries=10, size=2_000_000))
    assert "the content: found far larger than the archive" in said
    assert not (tmp_path / "out" / "bomb").exists()


def test_a_zip_that_lies_about_a_size_writes_no_more_than_it_says(tmp_path):
    content = bytearray(zipped({"bomb": bytes(3_000_000)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, 10)
    assert "the archive: found damaged (" in refused(packed(tmp_path, bytes(content)))
    assert (tmp_path / "out" / "bomb").stat().st_size <= 10


@pytest.mark.parametrize("make", [zipped, tarred])
def test_too_many_entries_are_refused(tmp_path, make):
    archive = packed(tmp_path, make({f"{i}": b"" for i in range(20)}))
    assert "the content: found split into far too many files" in refused(archive, UnpackBudget(entries=10, size=1000))


def test_the_budget_grows_with_the_archive(tmp_path):
    archive = packed(tmp_path, b"")
    assert budget(archive) == UnpackBudget(1_000_000, 2**30)
    with archive.open("wb") as file:
        file.truncate(2**30)
    assert budget(archive) == UnpackBudget(1_000_000, 20 * 2**30)


@pytest.mark.parametrize("content", [b"", b"<html>Quota exceeded</html>", b"PK\x03\x04 and no more"])
def test_what_is_no_archive_is_told(tmp_path, content):
    assert "the file: found something else" in refused(packed(tmp_path, content))


@pytest.mark.parametrize("make", [zipped, tarred, lambda f: tarred(f, mode="w:xz"), lambda f: tarred(f, mode="w:bz2")])
@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_damage_is_told(tmp_path, make, harm):
    content = bytearray(make({"noise": random.Random(0).randbytes(100_000)}))
    if harm == "flip":
        content[50_000] ^= 255
    else:
        del content[60_000:]
    said = refused(packed(tmp_path, bytes(content)))
    assert "damaged" in said or "something else" in said


def test_a_wrong_checksum_at_the_end_of_a_gzip_is_told(tmp_path):
    content = bytearray(tarred(HONEST))
    content[-6] ^= 255
    assert "the archive is damaged" in refused(packed(tmp_path, bytes(content)))


def test_archives_within_are_replaced_by_what_they_hold(tmp_path):
    folder = tmp_path / "chess"
    folder.mkdir()
    (folder / "seq-01.zip").write_bytes(zipped({"seq-01/frame.txt": b"1"}))
    (folder / "seq-02.zip").write_bytes(zipped({"seq-02/frame.txt": b"2"}))
    unpack_nested_archives(folder, UnpackBudget())
    assert sorted(files(folder)) == ["seq-01/frame.txt", "seq-02/frame.txt"]


def test_archives_within_share_one_budget(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.zip").write_bytes(zipped({name: bytes(600)}))
    with pytest.raises(BadArchive, match="far larger"):
        unpack_nested_archives(tmp_path, UnpackBudget(size=1000))


@given(st.sampled_from(["w", "w:gz", "w:xz", "zip"]), st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255))))
def test_no_damage_gives_anything_but_files_or_an_error_in_one_sentence(kind, flips):
    content = bytearray(zipped(HONEST) if kind == "zip" else tarred(HONEST, mode=kind))
    for where, bits in flips:
        content[int(where * len(content))] ^= bits
    with tempfile.TemporaryDirectory() as folder:
        archive = packed(Path(folder), bytes(content))
        with contextlib.suppress(BadArchive, OSError):
            unpacked(archive, UnpackBudget(100, 100_000))
        assert {path.name for path in Path(folder).iterdir()} == {"set.zip", "out"}
        assert not any(path.is_symlink() for path in Path(folder).rglob("*"))
