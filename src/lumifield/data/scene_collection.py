"""Collections of scenes for meta-learning; each scene is a task, read on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lumifield import data
from lumifield.data import Source
from lumifield.data.held_out_views import HOLD_OUT_EVERY
from lumifield.data.image_files import ImageFiles
from lumifield.data.scene import Scene
from lumifield.data.transforms_file import SPLITS, load_json
from lumifield.errors import DataError

SceneAndFiles = tuple[Scene, ImageFiles]


@dataclass(frozen=True)
class Task:
    """One scene of a collection: an object, any scene, or a single image.

    Its images may be used for meta-training. Scenes have further images to evaluate; for objects and images the
    protocol defines the held-out part.
    """

    name: str
    find: Callable[[], SceneAndFiles]
    find_held_out: Callable[[], SceneAndFiles | None]

    def cameras(self) -> Scene:
        """Cameras of the images; only headers are read."""
        return self.find()[0]

    def load_images(self, rows: slice = slice(None)) -> Scene:
        """The images, or those of `rows`; all frames in listed order for an object."""
        scene, files = self.find()
        return data.attach_images(scene, files, list(range(len(scene)))[rows])

    def held_out(self) -> Scene | None:
        """Held-out images, if the data defines any."""
        found = self.find_held_out()
        return None if found is None else data.attach_images(*found, list(range(len(found[0]))))


def list_tasks(source: Source, split: str) -> tuple[Task, ...]:
    """Tasks of a split: images of a scene, or the scenes in the folder `source.data`, sorted by name.

    The split of scenes is defined by a `*splits.json` in the folder or by `FOLDER_splits.json` next to it, a list of
    names per split; otherwise every 8th scene is a test scene, unless `hold_out` is none. Raises `DataError` if the
    split is empty or a listed scene is missing.
    """
    data.check_folder(source.data)
    if split not in SPLITS:
        raise DataError(source.data, "split", repr(split), f"one of {', '.join(SPLITS)}", "choose one of these")
    if data.find_format(source.data) is not None:
        return _photographs(source, split)
    place = _place(source.data)
    listing = _listing(source.data, place)
    names = _held_out(source, place, split) if listing is None else _listed(listing, place, split)
    if not names:
        where, fix = listing or source.data, "list a scene for this split or choose another"
        raise DataError(where, f"{split} split", "empty", "one scene or more", fix)
    return tuple(_task(source, place / name) for name in sorted(names))


def _photographs(source: Source, split: str) -> tuple[Task, ...]:
    scene, files = data.locate_images(source, split)

    def one(row: int) -> SceneAndFiles:
        return scene.select([row]), files.select([row])

    return tuple(Task(name, partial(one, row), lambda: None) for row, name in enumerate(scene.names))


def _task(source: Source, folder: Path) -> Task:
    whole = replace(source, data=folder, hold_out="auto")
    if "shapenet" in (source.format, data.find_format(folder)):
        return Task(folder.name, partial(data.locate_images, replace(whole, hold_out="none"), "train"), lambda: None)
    return Task(folder.name, partial(data.locate_images, whole, "train"), partial(_others, whole))


def _others(source: Source) -> SceneAndFiles | None:
    """The first of a scene's splits that is not for learning."""
    split = next((split for split in ("test", "val") if split in data.list_splits(source)), None)
    return None if split is None else data.locate_images(source, split)


def _place(folder: Path) -> Path:
    """The folder that holds the scenes: the given one, or the one of a synset in it."""
    if _holds_scenes(folder):
        return folder
    inner = [place for place in _folders(folder) if _holds_scenes(place)]
    if len(inner) == 1:
        return inner[0]
    names = ", ".join(place.name for place in inner)
    found = f"of {len(inner)} collections ({names})" if inner else "without scenes"
    fix = "point at one of them" if inner else "point at the folder that holds them, or at images with poses"
    raise DataError(folder, "folder", found, "a folder for each scene", fix)


def _holds_scenes(folder: Path) -> bool:
    return any(data.find_format(scene) for scene in _folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listing(folder: Path, place: Path) -> Path | None:
    """The file that names the splits: within the folder, or beside it and named after it, in singular or plural."""
    # A number is the name of a synset, and the class is the folder that holds it.
    for owner in (folder, folder.parent) if folder.name.isdecimal() else (folder,):
        inside = sorted({*owner.glob("*splits.json"), *place.glob("*splits.json")})
        if len(inside) > 1:
            found = f"not one ({', '.join(path.name for path in inside)})"
            raise DataError(owner, "list of splits", found, "a single *splits.json", "remove all others")
        beside = [owner.parent / f"{name}_splits.json" for name in (owner.name, owner.name.removesuffix("s"))]
        found = next((path for path in (*inside, *beside) if path.is_file()), None)
        if found is not None:
            return found
    return None


def _listed(path: Path, place: Path, split: str) -> list[str]:
    """The scenes that a file names for a split; raises `DataError` for one that is not there."""
    content = load_json(path)
    names = content.get(split, []) if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(path, split, "no list of names", "the folders of the scenes of this split", "correct the file")
    for name in names:
        if not (place / name).is_dir():
            fix = "restore it or take it from the list"
            raise DataError(path, f"scene {name} of {split}", "missing", f"a folder in {place}", fix)
    return names


def _held_out(source: Source, place: Path, split: str) -> list[str]:
    """Every eighth scene for the test, where no file says otherwise."""
    if source.hold_out == "center":
        raise DataError(
            place, "hold_out", "'center'", "every-8th or none for a folder of scenes", "choose one of these"
        )
    names = [folder.name for folder in _folders(place) if data.find_format(folder)]
    test = [] if source.hold_out == "none" else names[::HOLD_OUT_EVERY]
    return {"train": [name for name in names if name not in test], "val": [], "test": test}[split]
