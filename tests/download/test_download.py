"""`lumifield download`: from a dataset name to folders of scenes, with a local server."""

import hashlib
import io
import json
import logging
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

import lumifield.download
from commands import called, files, largest_file, refusal
from lumifield import download
from lumifield.cli import main
from lumifield.download.datasets import DATASETS, DatasetArchive, PublishedDataset
from lumifield.download.resumable_download import RetryPolicy
from refusals import refuses
from serving import FaultyServer, make_tar, make_zip, run_server

PAGE = "https://example.org/page"
SCENES = ("lego", "ship", "mic")
CONTENT = {f"nerf_synthetic/{scene}/{name}": scene.encode() for scene in SCENES for name in ("a.txt", "train/b.txt")}
EXTRA = {"__MACOSX/nerf_synthetic/lego/._a.txt": b"junk", "nerf_synthetic/README": b"words"}
NO_DELAY = RetryPolicy(timeout=60, max_attempts=2, initial_delay=0.0)


@pytest.fixture(autouse=True)
def _without_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with run_server(FaultyServer(make_zip(CONTENT | EXTRA))) as server:
        yield server


@pytest.fixture
def publish(monkeypatch, server):
    """Replaces the published datasets by one on the local server and its multiscale version."""

    def replace_datasets(*archives):
        archives = archives or (DatasetArchive("nerf.zip", SCENES, server.url),)
        datasets = (
            PublishedDataset("nerf", "Scenes", PAGE, "research", archives),
            PublishedDataset("multiscale", "Multiscale scenes", PAGE, "research", multiscale_of="nerf"),
        )
        monkeypatch.setattr(download, "DATASETS", datasets)

    replace_datasets()
    return replace_datasets


def download_scenes(out, *scenes, name="nerf"):
    return download.download_dataset(name, out, scenes, retry=NO_DELAY, progress=lambda file, done, total: None)


@contextmanager
def refuses_on_one_line(field, found="", **expectations):
    with refuses(field, found, **expectations) as caught:
        yield caught
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("publish")
def test_every_scene_gets_a_folder_and_nothing_else_remains(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    out = tmp_path / "deep" / "out"
    assert download_scenes(out) == tuple(out / scene for scene in SCENES)
    assert sorted(files(out)) == sorted(f"{scene}/{name}" for scene in SCENES for name in ("a.txt", "train/b.txt"))
    assert f"Scenes: research ({PAGE})" in caplog.text
    assert "no published checksum" in caplog.text


@pytest.mark.usefixtures("publish")
def test_selected_scenes_are_downloaded_and_the_others_later(tmp_path, server, caplog):
    caplog.set_level(logging.INFO)
    assert download_scenes(tmp_path, "ship", "ship") == (tmp_path / "ship",)
    assert {name.split("/")[0] for name in files(tmp_path)} == {"ship"}
    (tmp_path / "ship" / "a.txt").write_text("mine")
    download_scenes(tmp_path)
    assert {name.split("/")[0] for name in files(tmp_path)} == set(SCENES)
    assert (tmp_path / "ship" / "a.txt").read_text() == "mine"
    assert f"{tmp_path / 'ship'} exists already" in caplog.text
    download_scenes(tmp_path)
    assert len(server.requested_ranges) == 2


def test_an_archive_of_one_scene_may_lack_its_folder_and_nest_archives(tmp_path, server, publish):
    server.content = make_tar({"seq-01.zip": make_zip({"seq-01/frame.txt": b"1"}), "words.txt": b"w"})
    publish(
        DatasetArchive("chess.tar.gz", ("chess",), server.url),
        DatasetArchive("fire.zip", ("fire",), "http://never.invalid/"),
    )
    download_scenes(tmp_path, "chess")
    assert sorted(files(tmp_path)) == ["chess/seq-01/frame.txt", "chess/words.txt"]


@pytest.mark.usefixtures("publish")
def test_an_interrupted_download_is_resumed_by_the_next_call(tmp_path, server):
    server.faults, server.permanent_fault = ["truncate"], "503"
    with refuses_on_one_line("download", "503") as caught:
        download_scenes(tmp_path)
    assert "run the command again later" in caught.value.fix
    assert sorted(files(tmp_path)) == ["nerf.zip.part", "nerf.zip.part.json"]
    server.permanent_fault = None
    download_scenes(tmp_path)
    assert server.requested_ranges[-1] == f"bytes={len(server.content) // 2}-"
    assert not (tmp_path / "nerf.zip.part").exists()


def test_the_checksum_is_verified(tmp_path, server, publish):
    publish(DatasetArchive("nerf.zip", SCENES, server.url, sha256="0" * 64))
    found = hashlib.sha256(server.content).hexdigest()
    with refuses_on_one_line("sha256", found, path=server.url):
        download_scenes(tmp_path)
    assert not files(tmp_path)
    publish(DatasetArchive("nerf.zip", SCENES, server.url, sha256=found))
    download_scenes(tmp_path)


@pytest.mark.parametrize(
    ("content", "field", "found"),
    [
        (b"<html>Quota exceeded</html>", "file type", "another type"),
        (make_zip({"nerf/lego/../../../evil": b"x"}), "entry", "which points outside of the folder"),
        (make_zip({"nerf/lego/a": b"x"}), "content", "no ship"),
    ],
)
@pytest.mark.usefixtures("publish")
def test_a_bad_archive_leaves_nothing(tmp_path, server, content, field, found):
    server.content = content
    with refuses_on_one_line(field, found) as caught:
        download_scenes(tmp_path)
    assert f"open {PAGE} in a browser, save nerf.zip as {tmp_path / 'nerf.zip'}, and run" in caught.value.fix
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("publish")
def test_a_truncated_archive_is_refused_and_the_next_call_restarts(tmp_path, server):
    server.faults = ["short-length"]
    with refuses_on_one_line("file type") as caught:
        download_scenes(tmp_path)
    assert "run the command again" in caught.value.fix
    assert download_scenes(tmp_path)
    assert server.requested_ranges == [None, None]


def test_a_dataset_for_browsers_states_the_fix_and_uses_the_saved_file(tmp_path, server, publish):
    publish(DatasetArchive("nerf.zip", SCENES))
    saved = tmp_path / "nerf.zip"
    with refuses_on_one_line("nerf", "a download for browsers only", path=PAGE) as caught:
        download_scenes(tmp_path)
    assert f"save nerf.zip as {saved}, and run the command again" in caught.value.fix
    saved.write_bytes(server.content[:-30])
    with refuses_on_one_line("file type", path=saved):
        download_scenes(tmp_path)
    saved.write_bytes(server.content)
    download_scenes(tmp_path)
    assert saved.is_file()
    assert (tmp_path / "lego" / "a.txt").is_file()
    assert not server.requested_ranges


@pytest.mark.usefixtures("publish")
def test_an_unreadable_file_is_refused(tmp_path, server, monkeypatch):
    (tmp_path / "nerf.zip").write_bytes(server.content)

    def deny(self, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with refuses_on_one_line("file", "Permission denied"):
        download_scenes(tmp_path)


@pytest.mark.usefixtures("publish")
def test_a_full_disk_during_extraction_keeps_the_download(tmp_path, server):
    server.content = make_zip({f"nerf/{scene}/noise": bytes(400_000) for scene in SCENES})
    with largest_file(100_000), refuses_on_one_line("output folder", "File too large"):
        download_scenes(tmp_path)
    assert sorted(files(tmp_path)) == ["nerf.zip.part", "nerf.zip.part.json"]
    download_scenes(tmp_path)
    assert len(server.requested_ranges) == 1


@pytest.mark.usefixtures("publish")
def test_an_interruption_during_extraction_keeps_the_download(tmp_path, server, monkeypatch):
    def interrupt(self, *arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download_scenes(tmp_path)
    assert sorted(files(tmp_path)) == ["nerf.zip.part", "nerf.zip.part.json"]
    download_scenes(tmp_path)
    assert len(server.requested_ranges) == 1


@pytest.mark.usefixtures("publish")
def test_a_file_with_the_name_of_a_scene_is_kept(tmp_path):
    (tmp_path / "lego").write_text("mine")
    with refuses_on_one_line("output folder", "a file"):
        download_scenes(tmp_path)
    assert (tmp_path / "lego").read_text() == "mine"


@pytest.mark.usefixtures("publish")
def test_a_file_with_the_name_of_the_output_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with refuses_on_one_line("output", "file exists"):
        download_scenes(tmp_path / "out")


@pytest.mark.usefixtures("publish")
def test_multiscale_scenes_are_computed_from_blender_scenes(tmp_path, server):
    image = io.BytesIO()
    Image.new("RGBA", (16, 16)).save(image, "PNG")
    content = {"camera_angle_x": 0.7, "frames": [{"file_path": "./train/r_0", "transform_matrix": [[0.0] * 4] * 4}]}
    blender = {"transforms_train.json": json.dumps(content).encode(), "train/r_0.png": image.getvalue()}
    server.content = make_zip({f"nerf/{scene}/{name}": blender[name] for scene in SCENES for name in blender})
    out = tmp_path / "out"
    (out / "nerf").mkdir(parents=True)
    (out / "nerf" / "nerf.zip").write_bytes(server.content)
    assert download_scenes(out, "mic", name="multiscale") == (out / "mic",)
    assert len(json.loads((out / "mic" / "metadata.json").read_text())["train"]["file_path"]) == 4
    assert sorted(files(out / "nerf")) == ["nerf.zip"]
    (out / "nerf" / "nerf.zip").unlink()
    download_scenes(out, name="multiscale")
    assert sorted(path.name for path in out.iterdir()) == sorted(SCENES)
    with_blender = tmp_path / "with_blender"
    download_scenes(with_blender / "nerf", "lego")
    download_scenes(with_blender, "lego", "mic", name="multiscale")
    assert sorted(path.name for path in (with_blender / "nerf").iterdir()) == ["lego"]


@pytest.mark.usefixtures("publish")
def test_the_command_prints_the_folders(tmp_path, capsys):
    called("download", "nerf", "--out", tmp_path, "--scenes", "ship", "lego")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [str(tmp_path / "ship"), str(tmp_path / "lego")]


def test_without_a_name_the_command_lists_the_datasets(capsys):
    called("download")
    listing = capsys.readouterr().out
    for dataset in DATASETS:
        assert dataset.name in listing
        assert dataset.page in listing
    nlr = next(line for line in listing.splitlines() if line.startswith("nlr: "))
    assert nlr.endswith("(needs a browser)")
    assert "scenes: chair, drums, ficus, hotdog, lego, materials, mic, ship" in listing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nerf-syntetic",), "dataset: found 'nerf-syntetic'"),
        (("7scenes", "--out", "x"), "use '7-scenes'"),
        (("zzz",), "use one of these"),
        (("cambridge", "--out", "x", "--scenes", "kingscollege"), "scene: found 'kingscollege'"),
        (("cambridge",), "output: found nothing"),
    ],
)
def test_usage_errors_are_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refusal(capsys, "download", *arguments)
    assert not any(tmp_path.iterdir())


def test_ctrl_c_ends_the_command(monkeypatch, tmp_path, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(lumifield.download, "download_dataset", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main.main(["download", "llff", "--out", str(tmp_path)])
    assert capsys.readouterr().err == "lumifield: interrupted\n"


def test_the_published_datasets_are_consistent():
    assert len({dataset.name for dataset in DATASETS}) == len(DATASETS)
    for dataset in DATASETS:
        assert dataset.page.startswith(("https://", "http://www.computationalimaging.org"))
        assert bool(dataset.archives) != (dataset.multiscale_of is not None)
        scenes = download.list_scenes(dataset)
        assert len(set(scenes)) == len(scenes) > 0
        for archive in dataset.archives:
            assert archive.file.endswith((".zip", ".tar.gz"))
            assert archive.url is None or archive.url.startswith("https://")
