"""`lumifield download`: from a name to folders of scenes, through a server of this machine."""

import hashlib
import io
import json
import logging
import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import lumifield.download
from commands import called, files, largest_file, refusal
from lumifield import download
from lumifield.cli import main
from lumifield.download.datasets import DATASETS, DatasetArchive, PublishedDataset
from lumifield.download.resumable_download import RetryPolicy
from lumifield.errors import DataError
from serving import FaultyServer, make_tar, make_zip, run_server

SCENES = ("lego", "ship", "mic")
CONTENT = {f"nerf_synthetic/{scene}/{name}": scene.encode() for scene in SCENES for name in ("a.txt", "train/b.txt")}
EXTRA = {"__MACOSX/nerf_synthetic/lego/._a.txt": b"junk", "nerf_synthetic/README": b"words"}
NO_DELAY = RetryPolicy(timeout=60, attempts=2, wait=0.0)


@pytest.fixture(autouse=True)
def _without_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with run_server(FaultyServer(make_zip(CONTENT | EXTRA))) as server:
        yield server


@pytest.fixture
def offer(monkeypatch, server):
    """Puts a table of sets in the place of the real one, whose files all come from the site."""

    def put(*archives, **more):
        archives = archives or (DatasetArchive("nerf.zip", SCENES, server.url),)
        sets = (
            PublishedDataset("nerf", "Scenes", "https://example.org/page", "research", archives, **more),
            PublishedDataset("pyramids", "Pyramids", "https://example.org/page", "research", pyramids_of="nerf"),
        )
        monkeypatch.setattr(download, "SETS", sets)

    put()
    return put


def fetched(out, *scenes, name="nerf"):
    return download.download(name, out, scenes, patience=NO_DELAY, progress=lambda what, done, total: None)


def refused(out, *scenes):
    with pytest.raises(DataError) as caught:
        fetched(out, *scenes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("offer")
def test_every_scene_gets_a_folder_and_nothing_else_stays(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    out = tmp_path / "deep" / "out"
    assert fetched(out) == tuple(out / scene for scene in SCENES)
    assert sorted(files(out)) == sorted(f"{scene}/{name}" for scene in SCENES for name in ("a.txt", "train/b.txt"))
    assert "Scenes: research (https://example.org/page)" in caplog.text
    assert "none is published, so its length and its inner sums are checked" in caplog.text


@pytest.mark.usefixtures("offer")
def test_chosen_scenes_alone_and_the_others_later(tmp_path, server, caplog):
    caplog.set_level(logging.INFO)
    assert fetched(tmp_path, "ship", "ship") == (tmp_path / "ship",)
    assert {name.split("/")[0] for name in files(tmp_path)} == {"ship"}
    (tmp_path / "ship" / "a.txt").write_text("mine")
    fetched(tmp_path)
    assert {name.split("/")[0] for name in files(tmp_path)} == set(SCENES)
    assert (tmp_path / "ship" / "a.txt").read_text() == "mine"
    assert f"{tmp_path / 'ship'} is there already" in caplog.text
    fetched(tmp_path)
    assert len(server.requested_ranges) == 2


def test_an_archive_a_scene_without_its_folder_and_with_archives_within(tmp_path, server, offer):
    server.content = make_tar({"seq-01.zip": make_zip({"seq-01/frame.txt": b"1"}), "words.txt": b"w"})
    offer(
        DatasetArchive("chess.tar.gz", ("chess",), server.url),
        DatasetArchive("fire.zip", ("fire",), "http://never.invalid/"),
    )
    fetched(tmp_path, "chess")
    assert sorted(files(tmp_path)) == ["chess/seq-01/frame.txt", "chess/words.txt"]


@pytest.mark.usefixtures("offer")
def test_a_download_goes_on_where_another_stopped(tmp_path, server):
    server.faults, server.permanent_fault = ["truncate"], "503"
    assert "run the command again later" in refused(tmp_path)
    assert sorted(files(tmp_path)) == ["nerf.zip.part", "nerf.zip.part.json"]
    server.permanent_fault = None
    fetched(tmp_path)
    assert server.requested_ranges[-1] == f"bytes={len(site.content) // 2}-"
    assert not (tmp_path / "nerf.zip.part").exists()


def test_a_checksum_is_compared(tmp_path, server, offer):
    offer(DatasetArchive("nerf.zip", SCENES, server.url, sha256="0" * 64))
    said = refused(tmp_path)
    found = hashlib.sha256(server.content).hexdigest()
    assert f"{site.url}: the sha256: found {found}" in said
    assert not files(tmp_path)
    offer(DatasetArchive("nerf.zip", SCENES, server.url, sha256=found))
    fetched(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>Quota exceeded</html>", "the file: found something else"),
        (make_zip({"nerf/lego/../../../evil": b"x"}), "which leads outside"),
        (make_zip({"nerf/lego/a": b"x"}), "the content: found without ship"),
    ],
)
def test_a_bad_archive_leaves_nothing(tmp_path, server, offer, content, words):
    del offer
    server.content = content
    said = refused(tmp_path)
    assert words in said
    by_hand = f"open https://example.org/page in a browser, save nerf.zip as {tmp_path / 'nerf.zip'}, and run"
    assert by_hand in said
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("offer")
def test_a_length_that_is_too_small_is_found_out_and_the_next_call_starts_anew(tmp_path, server):
    server.faults = ["short-length"]
    assert "run it again" in refused(tmp_path)
    assert fetched(tmp_path)
    assert server.requested_ranges == [None, None]


def test_a_set_for_browsers_says_what_to_do_and_takes_the_file(tmp_path, server, offer):
    offer(DatasetArchive("nerf.zip", SCENES))
    said = refused(tmp_path)
    assert "https://example.org/page: nerf: found to be had with a browser alone" in said
    placed = tmp_path / "nerf.zip"
    assert f"save nerf.zip as {placed}, and run the command again." in said
    placed.write_bytes(server.content[:-30])
    assert str(placed) in refused(tmp_path)
    placed.write_bytes(server.content)
    fetched(tmp_path)
    assert placed.is_file()
    assert (tmp_path / "lego" / "a.txt").is_file()
    assert not server.requested_ranges


@pytest.mark.usefixtures("offer")
def test_a_file_that_cannot_be_read_is_told(tmp_path, server, monkeypatch):
    (tmp_path / "nerf.zip").write_bytes(server.content)

    def refuse(self, *arguments, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "the file: found unreadable (Permission denied)" in refused(tmp_path)


@pytest.mark.usefixtures("offer")
def test_a_full_disk_while_unpacking_leaves_the_download(tmp_path, server):
    big = {f"nerf/{scene}/noise": bytes(400_000) for scene in SCENES}
    server.content = make_zip(big)
    with largest_file(100_000):
        assert "output folder: found an error (File too large)" in refused(tmp_path)
    assert sorted(files(tmp_path)) == ["nerf.zip.part", "nerf.zip.part.json"]
    fetched(tmp_path)
    assert len(server.requested_ranges) == 1


@pytest.mark.usefixtures("offer")
def test_an_interruption_while_unpacking_leaves_the_download(tmp_path, server, monkeypatch):
    def interrupted(self, *arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetched(tmp_path)
    assert sorted(files(tmp_path)) == ["nerf.zip.part", "nerf.zip.part.json"]
    fetched(tmp_path)
    assert len(server.requested_ranges) == 1


@pytest.mark.usefixtures("offer")
def test_a_file_in_the_place_of_a_scene_is_kept(tmp_path):
    (tmp_path / "lego").write_text("mine")
    assert "output folder: found a file" in refused(tmp_path)
    assert (tmp_path / "lego").read_text() == "mine"


@pytest.mark.usefixtures("offer")
def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "output: found an error (file exists)" in refused(tmp_path / "out")


def test_multicam_is_built_from_blender_scenes(tmp_path, server, offer):
    del offer
    image = io.BytesIO()
    Image.new("RGBA", (16, 16)).save(image, "PNG")
    listed = {"camera_angle_x": 0.7, "frames": [{"file_path": "./train/r_0", "transform_matrix": [[0.0] * 4] * 4}]}
    blender = {"transforms_train.json": json.dumps(listed).encode(), "train/r_0.png": image.getvalue()}
    server.content = make_zip({f"nerf/{scene}/{name}": blender[name] for scene in SCENES for name in blender})
    out = tmp_path / "out"
    (out / "nerf").mkdir(parents=True)
    (out / "nerf" / "nerf.zip").write_bytes(server.content)
    assert fetched(out, "mic", name="pyramids") == (out / "mic",)
    assert len(json.loads((out / "mic" / "metadata.json").read_text())["train"]["file_path"]) == 4
    assert sorted(files(out / "nerf")) == ["nerf.zip"]
    (out / "nerf" / "nerf.zip").unlink()
    fetched(out, name="pyramids")
    assert sorted(p.name for p in out.iterdir()) == sorted(SCENES)
    owned = tmp_path / "owned"
    fetched(owned / "nerf", "lego")
    fetched(owned, "lego", "mic", name="pyramids")
    assert sorted(p.name for p in (owned / "nerf").iterdir()) == ["lego"]


@pytest.mark.usefixtures("offer")
def test_the_command_fetches_and_prints_the_folders(tmp_path, capsys):
    called("download", "nerf", "--out", tmp_path, "--scenes", "ship", "lego")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [str(tmp_path / "ship"), str(tmp_path / "lego")]


def test_without_a_name_the_command_lists_the_sets(capsys):
    called("download")
    said = capsys.readouterr().out
    for chosen in DATASETS:
        assert chosen.name in said
        assert chosen.page in said
    assert "nlr: the scenes of neural lumigraph rendering (needs a browser)" in said
    assert "scenes: chair, drums, ficus, hotdog, lego, materials, mic, ship" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("nerf-syntetic",),
            "the set: found 'nerf-syntetic'",
        ),
        (("7scenes", "--out", "x"), "take '7-scenes'"),
        (("zzz",), "take one of these"),
        (("cambridge", "--out", "x", "--scenes", "kingscollege"), "the scene: found 'kingscollege'"),
        (("cambridge",), "output: found nothing"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(words, refusal(capsys, "download", *arguments))
    assert not any(tmp_path.iterdir())


def test_control_c_ends_the_command(monkeypatch, tmp_path, capsys):
    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(lumifield.download, "download", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main.main(["download", "llff", "--out", str(tmp_path)])
    assert capsys.readouterr().err == "lumifield: interrupted\n"


def test_the_table_is_sound():
    assert len({chosen.name for chosen in DATASETS}) == len(DATASETS)
    for chosen in DATASETS:
        assert chosen.page.startswith(("https://", "http://www.computationalimaging.org"))
        assert bool(chosen.archives) != (chosen.pyramids_of is not None)
        scenes = download.scenes_of(chosen)
        assert len(set(scenes)) == len(scenes) > 0
        for archive in chosen.archives:
            assert archive.file.endswith((".zip", ".tar.gz"))
            assert archive.url is None or archive.url.startswith("https://")
