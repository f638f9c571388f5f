import os
from pathlib import Path

import pytest
import torch

import made_reconstructions as sfm
import made_scenes as made
from lumifield.data import Source
from lumifield.data.scene_collection import list_tasks
from lumifield.errors import DataError

SPLIT = {"train": ["b", "a"], "val": ["c"], "test": ["d"]}


def objects(root: Path, *, synset: str = "", listing: str | None = "things_splits.json") -> Path:
    """Objects a to d in `root / things`; no two images are equal."""
    folder = root / "things"
    for number, name in enumerate("abcd"):
        made.shapenet(folder / synset / name, first=10 * number)
    if listing is not None:
        made.write(root / listing, SPLIT)
    return folder


def names(source: Source, split: str) -> list[str]:
    return [task.name for task in list_tasks(source, split)]


@pytest.mark.parametrize("synset", ["", "03001627"])
@pytest.mark.parametrize(
    "listing", ["things_splits.json", "thing_splits.json", "things/splits.json", "things/any_splits.json"]
)
def test_objects_with_their_list(tmp_path, synset, listing):
    folder = objects(tmp_path, synset=synset, listing=listing)
    for split, listed in SPLIT.items():
        assert names(Source(folder), split) == sorted(listed)
        assert names(Source(folder / synset), split) == sorted(listed)


def test_a_task_has_all_frames_of_its_object(tmp_path):
    task = list_tasks(Source(objects(tmp_path)), "train")[1]
    scene = task.load_images()
    assert (task.name, scene.names) == ("b", ("000", "001", "002", "003", "004"))
    assert torch.equal(scene.images.image(4, (8, 8)), torch.from_numpy(made.image(14, (8, 8), 4)))
    assert task.held_out() is None
    assert task.cameras().names == scene.names
    assert task.cameras().images is None


def test_some_rows_decode_no_other_image(tmp_path):
    task = list_tasks(Source(objects(tmp_path)), "train")[0]
    (tmp_path / "things/a/004.png").write_bytes((tmp_path / "things/a/004.png").read_bytes()[:60])
    assert task.load_images(slice(1, 3)).names == ("001", "002")
    with pytest.raises(DataError, match=r"004\.png: image: found damaged or cut off \(image file is truncated\)"):
        task.load_images()


def test_settings_reach_every_task(tmp_path):
    scene = list_tasks(Source(objects(tmp_path), downscale=2, far=5.0, background="black"), "val")[0].load_images()
    assert (scene.size(0), scene.far.tolist(), scene.background) == ((4, 4), [5.0] * 5, "black")


def test_without_a_list_every_eighth_scene_is_held_out(tmp_path):
    for number in range(9):
        made.shapenet(tmp_path / str(number), n=1)
    assert names(Source(tmp_path), "test") == ["0", "8"]
    assert names(Source(tmp_path), "train") == list("1234567")
    assert names(Source(tmp_path, hold_out="none"), "train") == list("012345678")
    with pytest.raises(DataError, match=r"val split: found empty"):
        list_tasks(Source(tmp_path), "val")


def test_a_folder_of_any_scenes(tmp_path):
    made.blender(tmp_path / "a")
    made.transforms(tmp_path / "b")
    (tmp_path / "notes").mkdir()
    made.transforms(tmp_path / "c")
    (tmp_path / "readme.txt").touch()
    first, second = list_tasks(Source(tmp_path), "train")
    assert (first.name, second.name) == ("b", "c")
    assert first.load_images().names[0] == "images/001.png"
    assert first.held_out().names == ("images/000.png", "images/008.png")
    (blender,) = list_tasks(Source(tmp_path), "test")
    assert (len(blender.load_images()), len(blender.held_out())) == (3, 2)


def test_the_val_split_judges_where_there_is_no_test(tmp_path):
    (made.blender(tmp_path / "a") / "transforms_test.json").unlink()
    made.blender(tmp_path / "b", counts=(3, 2, 2))
    for split in ("val", "test"):
        (tmp_path / f"b/transforms_{split}.json").unlink()
    made.write(tmp_path / "splits.json", {"train": ["a", "b"]})
    first, second = list_tasks(Source(tmp_path), "train")
    assert first.held_out().names == ("val/r_0", "val/r_1")
    assert second.held_out() is None


def test_every_photograph_of_a_scene_is_a_task(tmp_path):
    sfm.colmap(tmp_path, made.ring(9), place="dense/sparse")
    found = list_tasks(Source(tmp_path), "train")
    assert [task.name for task in found] == [f"{n:03d}.png" for n in range(1, 8)]
    scene = found[2].load_images()
    assert scene.names == ("003.png",)
    assert torch.equal(scene.images.image(0, sfm.SIZE), torch.from_numpy(made.image(3, sfm.SIZE, 3)))
    assert found[2].held_out() is None


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (
            lambda root: made.write(root / "things_splits.json", {"train": ["a", "gone"]}),
            r"things_splits\.json: scene gone of train: found missing",
        ),
        (
            lambda root: made.write(root / "things_splits.json", {"train": "a"}),
            r"things_splits\.json: train: found no list of names",
        ),
        (
            lambda root: made.write(root / "things_splits.json", ["a"]),
            r"things_splits\.json: train: found no list of names",
        ),
        (
            lambda root: made.write(root / "things_splits.json", {"test": ["a"]}),
            r"things_splits\.json: train split: found empty",
        ),
        (
            lambda root: [made.write(root / f"things/{n}_splits.json", SPLIT) for n in "xy"],
            r"things: list of splits: found not one \(x_splits\.json, y_splits\.json\)",
        ),
    ],
)
def test_lists_that_cannot_be(tmp_path, break_, message):
    folder = objects(tmp_path)
    break_(tmp_path)
    with pytest.raises(DataError, match=message):
        list_tasks(Source(folder), "train")


def test_folders_that_hold_no_scenes(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"folder: found without scenes"):
        list_tasks(Source(tmp_path), "train")
    with pytest.raises(DataError, match=r"gone: folder: found missing"):
        list_tasks(Source(tmp_path / "gone"), "train")


def test_several_collections_are_not_mixed(tmp_path):
    for name in ("cars", "chairs"):
        made.shapenet(tmp_path / name / "a")
    expected = r"folder: found of 2 collections \(cars, chairs\)"
    with pytest.raises(DataError, match=expected):
        list_tasks(Source(tmp_path), "train")


def test_questions_that_make_no_sense(tmp_path):
    folder = objects(tmp_path, listing=None)
    with pytest.raises(DataError, match=r"split: found 'valid'"):
        list_tasks(Source(folder), "valid")
    with pytest.raises(DataError, match=r"hold_out: found 'center'"):
        list_tasks(Source(folder, hold_out="center"), "train")


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real data")
def test_real_collections():
    root = Path(os.environ["LUMIFIELD_DATA"])
    cars = Source(root / "kenney_views/cars", downscale=2)
    assert [len(list_tasks(cars, split)) for split in SPLIT] == [14, 2, 4]
    assert names(cars, "test") == ["suv", "tractor-police", "truck", "truck-flat"]
    assert len(list_tasks(cars, "test")[0].load_images()) == 50
    liberty = list_tasks(Source(root / "statue_of_liberty"), "train")
    assert len(liberty) == 99
    assert liberty[5].load_images().size(0) == (400, 600)
