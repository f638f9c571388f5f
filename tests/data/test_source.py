import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.errors import DataError
from scenes import cut_off


def test_settings_need_no_torch():
    code = "import sys, lumifield.data; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_formats_are_told_apart(tmp_path):
    assert data.detect_format(made.blender(tmp_path / "a")) == "blender"
    assert data.detect_format(made.transforms(tmp_path / "b")) == "transforms"
    assert data.detect_format(made.llff(tmp_path / "c", made.row(3))) == "llff"
    assert data.detect_format(made.multicam(tmp_path / "e")) == "multicam"
    split_files = made.blender(tmp_path / "d")
    made.edit(split_files / "transforms_train.json", lambda content: content.update(fl_x=9.0))
    assert data.detect_format(split_files) == "transforms"


def test_a_forced_format_overrides_detection(tmp_path):
    made.llff(tmp_path, made.row(9))
    made.transforms(tmp_path, n=9, size=(16, 12))
    assert data.open_capture(Source(tmp_path)).cameras("train").ndc is not None
    assert data.open_capture(Source(tmp_path, format="transforms")).cameras("train").unbounded


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda p: p.rmdir(), r"folder: found missing"),
        (lambda p: None, r"folder: found empty"),
        (lambda p: (p / "readme.txt").touch(), "folder: found an unknown format"),
        (lambda p: (p.rmdir(), p.touch()), r"path: found a file"),
    ],
    ids=["missing", "empty", "unknown", "file"],
)
def test_unusable_folders(tmp_path, arrange, message):
    folder = tmp_path / "scene"
    folder.mkdir()
    arrange(folder)
    with pytest.raises(DataError, match=message) as error:
        data.detect_format(folder)
    assert str(error.value).startswith(str(folder))
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (made.blender, {"layout": "inward"}, "layout: found 'inward'"),
        (made.transforms, {"layout": "forward"}, "layout: found 'forward'"),
        (made.blender, {"hold_out": "every-8th"}, "hold_out: found 'every-8th'"),
        (made.blender, {"min_sharpness": 0.5}, "min_sharpness: found 0.5"),
        (made.transforms, {"min_sharpness": 1.0}, "min_sharpness: found 1"),
        (made.transforms, {"background": "random"}, "alpha channel: found absent"),
        (made.blender, {"downscale": 0}, "downscale: found 0"),
        (made.blender, {"downscale": 60}, "downscale: found 60"),
    ],
)
def test_options_that_cannot_apply_are_refused(tmp_path, make, options, message):
    with pytest.raises(DataError, match=message):
        data.open_capture(Source(make(tmp_path), **options)).cameras("train")


def test_bounds_that_are_asked_for(tmp_path):
    source = Source(made.blender(tmp_path), near=1.5, far=7.0)
    scene = data.open_capture(source).cameras("val")
    assert (scene.near.tolist(), scene.far.tolist()) == ([1.5] * 2, [7.0] * 2)
    assert data.open_capture(Source(tmp_path, far=9.0)).cameras("val").near.tolist() == [2.0] * 2
    for bounds, found in (({"near": 6.0}, "6 to 6"), ({"near": -1.0}, "-1 to 6"), ({"far": 1.0}, "2 to 1")):
        with pytest.raises(DataError, match=f"near and far: found {found} for val/r_0"):
            data.open_capture(Source(tmp_path, **bounds)).cameras("val")


def test_an_unknown_split_names_those_there_are(tmp_path):
    with pytest.raises(DataError, match="split: found 'val'"):
        data.open_capture(Source(made.transforms(tmp_path))).cameras("val")


def test_some_images_evenly_spread(tmp_path):
    source = Source(made.transforms(tmp_path, n=9), hold_out="none")
    whole, some = data.read_scene(source, "train"), data.read_scene(source, "train", max_images=3)
    assert some.names == (whole.names[0], whole.names[3], whole.names[6])
    assert torch.equal(some.ground_truth(1), whole.ground_truth(3))
    assert data.read_scene(source, "train", max_images=20).names == whole.names


def test_some_rows_alone(tmp_path):
    source = Source(made.transforms(tmp_path, n=5), hold_out="none")
    whole = data.read_scene(source, "train")
    for row in (0, 2, 4):
        cut_off(tmp_path / whole.names[row])
    some = data.open_capture(source).read("train", rows=slice(1, None, 2))
    assert some.names == (whole.names[1], whole.names[3])
    assert torch.equal(some.ground_truth(1), whole.ground_truth(3))
    assert len(data.open_capture(source).read("train", rows=slice(7, None))) == 0


def test_rows_without_a_mask_still_know_that_the_split_has_masks(tmp_path):
    source = Source(made.transforms(tmp_path, n=3), hold_out="none")
    made.save(tmp_path / "masks/1.png", np.zeros((6, 8), dtype=np.uint8))
    made.edit(tmp_path / "transforms.json", lambda content: content["frames"][1].update(mask_path="masks/1.png"))
    assert data.open_capture(source).read("train", rows=slice(1)).images.mask.all()
    assert not data.open_capture(source).read("train", rows=slice(1, 2)).images.mask.any()


def test_cameras_are_those_that_read_gives(tmp_path):
    for make in (made.blender, made.transforms, lambda p: made.llff(p, made.row(9))):
        source = Source(make(tmp_path / make.__name__), downscale=2)
        outline, whole = data.open_capture(source).cameras("train"), data.read_scene(source, "train")
        assert outline.images is None
        assert torch.equal(outline.cameras.size, whole.cameras.size)
        assert len(whole.images.pixels) == int(whole.cameras.size.prod(-1).sum())
        assert whole.names == outline.names


def damage(root: Path, keep: set[str]) -> None:
    for path in root.rglob("*.png"):
        if path.relative_to(root).as_posix() not in keep and path.name not in keep:
            path.write_bytes(b"not an image")


@pytest.mark.parametrize("make", [made.transforms, lambda p: made.llff(p, made.ring(10))], ids=["transforms", "llff"])
def test_training_opens_no_test_image(tmp_path, make):
    source = Source(make(tmp_path))
    before = data.read_scene(source, "train")
    damage(tmp_path, set(before.names))
    after = data.read_scene(source, "train")
    assert torch.equal(before.images.pixels, after.images.pixels)
    assert torch.equal(before.box, after.box)
    with pytest.raises(DataError, match=r"image: found damaged or cut off \(cannot identify image file '"):
        data.read_scene(source, "test")


def test_training_needs_no_file_of_another_split(tmp_path):
    made.blender(tmp_path)
    before = data.read_scene(Source(tmp_path), "train")
    for split in ("val", "test"):
        shutil.rmtree(tmp_path / split)
        (tmp_path / f"transforms_{split}.json").unlink()
    after = data.read_scene(Source(tmp_path), "train")
    assert torch.equal(before.images.pixels, after.images.pixels)
    assert data.open_capture(Source(tmp_path)).splits == ("train",)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"frames": 5}', '{"frames": [1]}'])
@pytest.mark.parametrize("name", ["transforms_train.json", "transforms.json"])
def test_broken_lists_of_frames(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"(content: found no JSON|frames: found missing or no list)"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_lists_without_frames_or_names(tmp_path):
    path = tmp_path / "transforms.json"
    made.write(path, {"frames": []})
    with pytest.raises(DataError, match="frames: found empty"):
        data.open_capture(Source(tmp_path)).cameras("train")
    made.write(path, {"frames": [{"transform_matrix": []}]})
    with pytest.raises(DataError, match=r"frames\[0\]\.file_path: found missing"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_no_image_at_all(tmp_path):
    shutil.rmtree(made.blender(tmp_path) / "train")
    with pytest.raises(DataError, match=r"every image: found missing \(3 listed, first \./train/r_0\)"):
        data.read_scene(Source(tmp_path), "train")


def test_absent_images_are_skipped_and_counted_in_one_line(tmp_path, caplog):
    made.transforms(tmp_path)
    for index in (3, 4):
        (tmp_path / "images" / f"{index:03d}.png").unlink()
    with caplog.at_level(logging.WARNING):
        scene = data.open_capture(Source(tmp_path, hold_out="none")).cameras("train")
    assert len(scene) == 8
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'transforms.json'}: 2 of 10 listed images do not exist and are skipped."
    ]


def nan_pose(frame: dict) -> None:
    frame["transform_matrix"][0][3] = float("nan")


def scaled_pose(frame: dict) -> None:
    frame["transform_matrix"] = [[2 * x for x in line] for line in frame["transform_matrix"]]


def mirrored_pose(frame: dict) -> None:
    frame["transform_matrix"] = [[-line[0], *line[1:]] for line in frame["transform_matrix"]]


def short_pose(frame: dict) -> None:
    frame["transform_matrix"] = frame["transform_matrix"][:2]


def worded_pose(frame: dict) -> None:
    frame["transform_matrix"] = [["a"]]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (nan_pose, "NaN or infinity"),
        (scaled_pose, "columns that are not orthonormal"),
        (mirrored_pose, "columns that are not orthonormal"),
        (short_pose, r"shape \(2, 4\)"),
        (worded_pose, "something else"),
    ],
)
@pytest.mark.parametrize(("make", "name"), [(made.blender, "transforms_train"), (made.transforms, "transforms")])
def test_poses_that_cannot_be(tmp_path, make, name, spoil, found):
    make(tmp_path)
    made.edit(tmp_path / f"{name}.json", lambda content: spoil(content["frames"][1]))
    with pytest.raises(DataError, match=rf"{name}\.json: transform_matrix of .*: found {found}"):
        data.open_capture(Source(tmp_path)).cameras("train")


def test_nan_is_the_word_in_the_file(tmp_path):
    """`json` writes NaN as a bare word and reads it again: the pose check has to find it."""
    made.transforms(tmp_path)
    made.edit(tmp_path / "transforms.json", lambda content: nan_pose(content["frames"][1]))
    assert "NaN" in (tmp_path / "transforms.json").read_text()
    assert json.loads("NaN") != json.loads("NaN")


MEASURE = """
import sys
from pathlib import Path
from lumifield import data
scene = data.read_scene(data.Source(Path(sys.argv[1])), "train")
status = Path("/proc/self/status").read_text()
peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
print(len(scene.images.pixels), int(peak) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_grows_by_less_than_eight_bytes_a_pixel(tmp_path):
    def measure(views: int) -> tuple[int, int]:
        root = tmp_path / str(views)
        flat = made.image(0, (4, 4), 4).repeat(100, 0).repeat(100, 1)
        frames = []
        made.save(root / "train/r_0.png", flat)
        for index, pose in enumerate(made.ring(views)):
            shutil.copy(root / "train/r_0.png", root / f"train/c_{index}.png")
            frames.append({"file_path": f"train/c_{index}", "transform_matrix": made.matrix(pose)})
        made.write(root / "transforms_train.json", {"camera_angle_x": 0.8, "frames": frames})
        done = subprocess.run([sys.executable, "-c", MEASURE, root], capture_output=True, text=True, check=True)
        pixels, peak = map(int, done.stdout.split())
        return pixels, peak

    (few, low), (many, high) = measure(10), measure(100)
    assert many - few == 90 * 160_000
    assert (high - low) / (many - few) < 8


def test_bounds_may_be_depths(tmp_path):
    source = Source(made.blender(tmp_path / "a"), bounds="depth")
    assert data.read_scene(source, "train").bounds_are_z_depth
    assert not data.read_scene(Source(tmp_path / "a"), "train").bounds_are_z_depth
    capture = Source(made.llff(tmp_path / "b", made.row(3)), bounds="depth")
    with pytest.raises(DataError, match="bounds: found depth with normalized device coordinates"):
        data.open_capture(capture).cameras("train")


def test_noise_moves_the_training_cameras_alone_and_always_alike(tmp_path):
    made.blender(tmp_path, counts=(200, 2, 2))
    still, moved = (data.open_capture(Source(tmp_path, pose_noise=noise)).cameras("train") for noise in (0.0, 0.2))
    away = moved.cameras.positions - still.cameras.positions
    assert float(away.std()) == pytest.approx(0.2, rel=0.1)
    assert torch.equal(moved.cameras.c2w[..., :3], still.cameras.c2w[..., :3])
    again = data.open_capture(Source(tmp_path, pose_noise=0.2)).cameras("train")
    assert torch.equal(again.cameras.c2w, moved.cameras.c2w)
    tests = (data.open_capture(Source(tmp_path, pose_noise=noise)).cameras("test") for noise in (0.0, 0.2))
    assert torch.equal(*(scene.cameras.c2w for scene in tests))
    with pytest.raises(DataError, match="pose_noise: found -1"):
        data.open_capture(Source(tmp_path, pose_noise=-1.0)).cameras("train")
