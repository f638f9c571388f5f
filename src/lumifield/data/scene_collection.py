"""Collections of scenes for meta-learning; each scene is a task, read on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from lumifield import data
from lumifield.data import Source
from lumifield.data.capture import Capture, attach_images
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
        return attach_images(scene, files, list(range(len(scene)))[rows])

    def held_out(self) -> Scene | None:
        """Held-out images, if the data defines any."""
        found = self.find_held_out()
        return None if found is None else attach_images(*found, list(range(len(found[0]))))


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
        return _image_tasks(source, split)
    place = _scenes_folder(source.data)
    listing = _listing(source.data, place)
    names = _held_out(source, place, split) if listing is None else _listed(listing, place, split)
    if not names:
        where, fix = listing or source.data, "list a scene for this split or choose another"
        raise DataError(where, f"{split} split", "empty", "one scene or more", fix)
    return tuple(_task(source, place / name) for name in sorted(names))


def _image_tasks(source: Source, split: str) -> tuple[Task, ...]:
    scene, files = data.open_capture(source).locate_images(split)

    def one(row: int) -> SceneAndFiles:
        return scene.select([row]), files.select([row])

    return tuple(Task(name, partial(one, row), lambda: None) for row, name in enumerate(scene.names))


def _task(source: Source, folder: Path) -> Task:
    whole = replace(source, data=folder, hold_out="auto")
    if "shapenet" in (source.format, data.find_format(folder)):
        everything = cache(lambda: data.open_capture(replace(whole, hold_out="none")))
        return Task(folder.name, lambda: everything().locate_images("train"), lambda: None)
    capture = cache(lambda: data.open_capture(whole))
    return Task(folder.name, lambda: capture().locate_images("train"), lambda: _held_out_images(capture()))


def _held_out_images(capture: Capture) -> SceneAndFiles | None:
    """Images of the first held-out split of a scene."""
    split = next((split for split in ("test", "val") if split in capture.splits), None)
    return None if split is None else capture.locate_images(split)


def _scenes_folder(folder: Path) -> Path:
    """The folder of the scenes: the given one, or a synset folder in it."""
    if _holds_scenes(folder):
        return folder
    inner = [place for place in _folders(folder) if _holds_scenes(place)]
    if len(inner) == 1:
        return inner[0]
    names = ", ".join(place.name for place in inner)
    found = f"of {len(inner)} collections ({names})" if inner else "without scenes"
    fix = "give one of them" if inner else "give the folder that contains them, or posed images"
    raise DataError(folder, "folder", found, "a folder for each scene", fix)


def _holds_scenes(folder: Path) -> bool:
    return any(data.find_format(scene) for scene in _folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listing(folder: Path, place: Path) -> Path | None:
    """The file that lists the splits: in the folder, or next to it and named after it, in singular or plural."""
    # A number is the id of a synset; its parent folder has the name of the class.
    for owner in (folder, folder.parent) if folder.name.isdecimal() else (folder,):
        inside = sorted({*owner.glob("*splits.json"), *place.glob("*splits.json")})
        if len(inside) > 1:
            found = f"not one ({', '.join(path.name for path in inside)})"
            raise DataError(owner, "list of splits", found, "a single *splits.json", "remove all others")
        sibling = [owner.parent / f"{name}_splits.json" for name in (owner.name, owner.name.removesuffix("s"))]
        found = next((path for path in (*inside, *sibling) if path.is_file()), None)
        if found is not None:
            return found
    return None


def _listed(path: Path, place: Path, split: str) -> list[str]:
    """Scenes that a file lists for a split; raises `DataError` for a missing one."""
    content = load_json(path)
    names = content.get(split, []) if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(path, split, "no list of names", "the folders of the scenes of this split", "correct the file")
    for name in names:
        if not (place / name).is_dir():
            fix = "restore it or remove it from the list"
            raise DataError(path, f"scene {name} of {split}", "missing", f"a folder in {place}", fix)
    return names


def _held_out(source: Source, place: Path, split: str) -> list[str]:
    """Every 8th scene is a test scene."""
    if source.hold_out == "center":
        raise DataError(
            place, "hold_out", "'center'", "every-8th or none for a folder of scenes", "choose one of these"
        )
    names = [folder.name for folder in _folders(place) if data.find_format(folder)]
    test = [] if source.hold_out == "none" else names[::HOLD_OUT_EVERY]
    return {"train": [name for name in names if name not in test], "val": [], "test": test}[split]
