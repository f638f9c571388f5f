"""Input that cannot be used ends a command with one sentence and exit code 2, and nothing is written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import made_objects as objects
import made_reconstructions as sfm
import made_scenes as made
from commands import SENTENCE, called, train
from scenes import cut_off, written

MAKERS = {
    "blender": made.blender,
    "transforms": made.transforms,
    "llff": lambda folder: made.llff(folder, made.row(9)),
    "multicam": made.multicam,
}
LISTS = {
    "blender": "transforms_train.json",
    "transforms": "transforms.json",
    "llff": "poses_bounds.npy",
    "multicam": "metadata.json",
}
IMAGES = {
    "blender": "train/r_1.png",
    "transforms": "images/001.png",
    "llff": "images/001.png",
    "multicam": "images_train/001_d1.png",
}
FRAMED = ("blender", "transforms")


@pytest.fixture
def training(refused, tmp_path):
    """What a training on `tmp_path / "scene"` is refused with."""
    return lambda *options: refused(*train(tmp_path / "scene", tmp_path / "run", *options))


@pytest.fixture(params=MAKERS)
def layout(request) -> str:
    return request.param


@pytest.fixture
def scene(tmp_path, layout) -> Path:
    return MAKERS[layout](tmp_path / "scene")


def test_a_missing_folder(training):
    assert re.search(r"scene: folder: found missing", training())


@pytest.mark.parametrize("named", ["auto", *MAKERS])
def test_an_empty_folder(training, tmp_path, named):
    (tmp_path / "scene").mkdir()
    found = {
        "auto": r"scene: folder: found empty",
        "llff": r"poses_bounds\.npy: file: found missing",
        "multicam": r"metadata\.json: file: found missing",
    }
    missing = r"scene: transforms_train\.json: found missing"
    assert re.search(found.get(named, missing), training("--format", named))


def test_a_file_in_the_place_of_the_folder(training, tmp_path):
    (tmp_path / "scene").touch()
    assert "scene: path: found a file" in training()


def test_a_broken_list_of_photographs(training, scene, layout):
    cut_off(scene / LISTS[layout])
    found = "no array" if layout == "llff" else "no JSON"
    assert re.search(rf"{LISTS[layout]}: content: found {found} \(.*\)", training())


def test_a_list_that_is_no_list(training, scene, layout):
    if layout == "llff":
        np.save(scene / LISTS[layout], np.array(["a"]))
        assert "poses_bounds.npy: array: found of shape (1,)" in training()
    else:
        (scene / LISTS[layout]).write_text("[]")
        if layout == "multicam":
            assert "metadata.json: every split: found missing" in training()
            return
        assert f"{LISTS[layout]}: frames: found missing or no list" in training()


def test_every_image_is_missing(training, scene, layout):
    shutil.rmtree((scene / IMAGES[layout]).parent)
    if layout == "llff":
        assert "scene: images: found missing or empty" in training()
    else:
        assert re.search(rf"{LISTS[layout]}: every image: found missing \(.* listed, first .*\)", training())


def test_a_truncated_image(training, scene, layout):
    cut_off(scene / IMAGES[layout])
    found = r"image: found damaged or cut off \(.*\)"
    assert re.search(f"{IMAGES[layout]}: {found}", training())


def test_a_file_that_is_no_image(training, scene, layout):
    (scene / IMAGES[layout]).write_text("no image")
    assert re.search(rf"{IMAGES[layout]}: image: found damaged or cut off", training())


def test_an_empty_image_file(training, scene, layout):
    (scene / IMAGES[layout]).write_bytes(b"")
    assert re.search(rf"{IMAGES[layout]}: image: found damaged or cut off", training())


def spoil_table(scene: Path, row: int, column: int, value: float) -> None:
    table = np.load(scene / LISTS["llff"])
    table[row, column] = value
    np.save(scene / LISTS["llff"], table)


def test_a_pose_that_is_not_finite(training, scene, layout):
    if layout == "llff":
        spoil_table(scene, 3, 3, np.nan)
        where = r"poses_bounds\.npy: pose in row 3"
    elif layout == "multicam":
        made.edit(scene / LISTS[layout], lambda c: c["train"]["cam2world"][5][0].__setitem__(3, float("nan")))
        where = r"metadata\.json: cam2world of images_train/001_d1\.png"
    else:
        made.edit(
            scene / LISTS[layout],
            lambda content: content["frames"][1]["transform_matrix"][0].__setitem__(3, float("nan")),
        )
        where = rf"{LISTS[layout]}: transform_matrix of .*1.*"
    assert re.search(rf"{where}: found NaN or infinity", training())


@pytest.mark.parametrize("layout", ["blender", "transforms", "llff"])
def test_a_focal_length_of_zero(training, scene, layout):
    if layout == "llff":
        spoil_table(scene, 2, 14, 0.0)
    else:
        key = {"blender": "camera_angle_x", "transforms": "fl_x"}[layout]
        made.edit(scene / LISTS[layout], lambda content: content.update({key: 0.0}))
    field = {"blender": "camera_angle_x", "transforms": r"fl_x of images/\d+\.png", "llff": "focal length in row 2"}
    found = r"found 0\.0"
    assert re.search(f"{LISTS[layout]}: {field[layout]}: {found}", training())


@pytest.mark.parametrize("layout", ["transforms", "llff"])
def test_images_of_another_size_than_stated(training, scene, layout):
    Image.new("RGB", (5, 5)).save(scene / IMAGES[layout])
    found = {
        "transforms": r"transforms\.json: w of images/001\.png: found 8",
        "llff": r"images/001\.png: image size: found 5x5",
    }[layout]
    assert re.search(found, training())


def test_a_table_of_16_columns(training, tmp_path):
    scene = MAKERS["llff"](tmp_path / "scene")
    np.save(scene / LISTS["llff"], np.load(scene / LISTS["llff"])[:, :16])
    assert "poses_bounds.npy: array: found of shape (9, 16)" in training()


@pytest.mark.parametrize("layout", FRAMED)
def test_a_list_without_frames(training, scene, layout):
    made.edit(scene / LISTS[layout], lambda content: content.update(frames=[]))
    assert f"{LISTS[layout]}: frames: found empty" in training()


@pytest.mark.parametrize("layout", ["transforms", "llff"])
def test_a_training_split_of_which_nothing_is_left(training, tmp_path, layout):
    if layout == "llff":
        made.llff(tmp_path / "scene", made.row(1))
    else:
        made.transforms(tmp_path / "scene", n=1)
    assert "scene: train split: found empty" in training()


def test_a_named_split_without_images(training, tmp_path):
    made.transforms(tmp_path / "scene", train_filenames=[], test_filenames=[])
    assert "transforms.json: train_filenames: found empty" in training()


def test_an_unknown_camera_model(training, tmp_path):
    sfm.colmap(tmp_path / "scene", made.ring(9), text=True)
    path = tmp_path / "scene/sparse/0/cameras.txt"
    path.write_text(path.read_text().replace("PINHOLE", "BARREL"))
    said = training()
    assert re.search(r"cameras\.txt: camera model: found BARREL", said)


@pytest.fixture
def landmark(tmp_path):
    """A scene of Photo Tourism with the list of splits that is given."""

    def make(rows: str) -> Path:
        sfm.colmap(tmp_path / "scene", made.ring(9), place="dense/sparse")
        (tmp_path / "scene/place.tsv").write_text("filename\tid\tsplit\n" + rows)
        return tmp_path / "scene"

    return make


def test_a_listed_photograph_that_is_not_there(training, landmark):
    (landmark("000.png\t1\ttrain\n003.png\t2\ttrain\n") / "dense/images/003.png").unlink()
    assert re.search(r"image 003\.png: found missing", training())


def test_a_list_without_splits(training, landmark):
    landmark("000.png\t1\t\n003.png\t2\t\n")
    assert "column split: found without train" in training()


def test_tracks_of_one_photograph(training, tmp_path):
    sfm.colmap(tmp_path / "scene", made.ring(9), tracks=1)
    assert "longest track of a point: found of length 1" in training()


def test_bounds_without_anything_between(training, tmp_path):
    sfm.colmap(tmp_path / "scene", made.ring(9))
    said = training("--near", "1000")
    assert re.search(r"near and far: found 1000 to [\d.]+ for 001\.png", said)


def test_a_missing_matrix_of_the_sphere(training, tmp_path):
    objects.dtu(tmp_path / "scene")
    objects.edited(tmp_path / "scene/cameras_sphere.npz", scale_mat_3=None)
    assert "scale_mat_3: found missing" in training()


def test_a_silhouette_outside_the_sphere(training, tmp_path):
    objects.dtu(tmp_path / "scene", masks=False)
    cameras = objects.around(10)
    for row in range(10):
        outside = 255 - objects.ball(cameras, row, 1.01 * objects.RADIUS)
        made.save(tmp_path / f"scene/mask/{row:03d}.png", outside)
    assert "silhouette within the unit sphere: found 0%" in training()


def test_a_mask_of_another_size(training, tmp_path):
    objects.dtu(tmp_path / "scene")
    made.save(tmp_path / "scene/mask/004.png", np.zeros((9, 12), np.uint8))
    assert "004.png: mask size: found 12x9" in training()


def test_a_pickle_of_more_than_plain_data(training, tmp_path):
    (tmp_path / "scene").mkdir()
    objects.metanlr(tmp_path / "scene")
    np.save(tmp_path / "scene/01_rgb_meta.npy", np.array({"view": Path("x")}, object))
    assert re.search(r"content: found a pickle with pathlib\.PosixPath", training())


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_an_output_that_is_a_file_or_below_one(refused, tmp_path, out):
    source = written(tmp_path / "ball")
    (tmp_path / "file").write_text("taken")
    said = refused(*train(source.data, tmp_path / out))
    assert re.search(rf"{out}/config\.json: output: found an error \(.*\)", said)


def test_a_run_that_is_there_already(refused, tmp_path):
    source = written(tmp_path / "ball")
    called(*train(source.data, tmp_path / "run"))
    assert "run: run folder: found an existing run" in refused(*train(source.data, tmp_path / "run"))


def test_a_process_of_its_own_ends_the_same_way(tmp_path):
    command = [sys.executable, "-m", "lumifield", *map(str, train(tmp_path / "scene", tmp_path / "run"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert SENTENCE.fullmatch(done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []
