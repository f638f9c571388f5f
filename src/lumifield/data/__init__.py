"""Readers: posed images on disk become a `Scene`, one split at a time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError

if TYPE_CHECKING:
    from lumifield.data.image_files import Files
    from lumifield.data.reader import Reader
    from lumifield.data.scene import Scene

Format = Literal[
    "blender",
    "cambridge",
    "colmap",
    "dtu",
    "learnit",
    "llff",
    "metanlr",
    "multicam",
    "nlr",
    "phototourism",
    "seven_scenes",
    "shapenet",
    "transforms",
]

LAYOUTS = (
    "transforms_train.json (Blender), transforms.json (instant-ngp, nerfstudio, ShapeNet), metadata.json (multicam), "
    "poses_bounds.npy (LLFF), c2w_mats.npy (learnit), sparse (COLMAP), dataset_train.txt (Cambridge), "
    "cameras_sphere.npz (DTU), calib_export.yaml (NLR), NAME_rgb_meta.npy (MetaNLR++), "
    "frame-*.pose.txt or TrainSplit.txt (7-Scenes)"
)

# Layouts of captures of one object with its silhouettes.
OBJECTS = ("dtu", "metanlr", "nlr")
# A name that has an ending, in a list of frames.
ENDED = re.compile(rb'"file_path"\s*:\s*"[^"]*\.\w+"')


@dataclass(frozen=True)
class Source:
    """Which images to read, and how."""

    data: Path
    """Folder of the scene."""
    format: Literal["auto", Format] = "auto"
    """Layout of the folder; auto: told by its files."""
    downscale: int = 1
    """Read images at 1/K of their width and height."""
    background: Literal["auto", "white", "black", "random"] = "auto"
    """What stands behind transparent pixels; auto: white; random: another color for each training ray."""
    hold_out: Literal["auto", "every-8th", "center", "none"] = "auto"
    """Test images where the data names none: indices 0, 8, 16, …, or the camera nearest to the middle; auto: the
    former, but of objects of ShapeNet the second half, of learnit's images the first 20, of DTU's and NLR's views
    those that MetaNLR++ holds out."""
    layout: Literal["auto", "forward", "inward"] = "auto"
    """LLFF only: cameras look forward from one side (normalized device coordinates), or inward from all round."""
    focal: float | None = None
    """7-Scenes only: focal length [pixels of the files] (525 for a width of 640)."""
    cameras: str | None = None
    """DTU only: name of the file with the cameras (cameras_sphere.npz, or else cameras.npz)."""
    silhouettes: bool = True
    """Objects that come with silhouettes (DTU, NLR) are cut out by them; without, images are taken as they are."""
    masks: Path | None = None
    """Folder of masks that are named as the images: what is black in them does not count."""
    least_sharpness: float = 0.0
    """transforms only: leave out training images whose stated `sharpness` is below this share of the mean about
    them in the list (0: none)."""
    near: float | None = None
    """Where rays begin, in the units of the scene frame (as the layout says)."""
    far: float | None = None
    """Where rays end (as the layout says)."""
    bounds: Literal["distance", "depth"] = "distance"
    """What near and far are: distances from the camera, or depths along its axis, as in learnit."""
    camera_noise: float = 0.0
    """Deviation by which the positions of the training cameras are moved, to see what that does [scene units]."""
    cache: bool = True
    """Keep on the disk what takes long to decode."""


def detect(path: Path) -> Format:
    """The format of a scene folder; raises `DataError` where there is none that is known."""
    check_folder(path)
    layout = known(path)
    if layout is not None:
        return layout
    found = "empty" if not any(path.iterdir()) else "of no known layout"
    raise DataError(path, "folder", found, LAYOUTS, "point at the folder that holds one of them")


def known(path: Path) -> Format | None:
    """The format of a scene folder; None where there is none."""
    if (path / "poses_bounds.npy").is_file():
        return "llff"
    if (path / "c2w_mats.npy").is_file():
        return "learnit"
    listed = next((path / f"transforms_{s}.json" for s in ("train", "val", "test") if _has(path, s)), None)
    if listed is not None:
        return "transforms" if _names_focal_length(listed) else "blender"
    if (path / "transforms.json").is_file():
        return "shapenet" if _lists_an_object(path / "transforms.json") else "transforms"
    if (path / "metadata.json").is_file():
        return "multicam"
    if (path / "image").is_dir() and any(path.glob("cameras*.npz")):
        return "dtu"
    if (path / "calib_export.yaml").is_file():
        return "nlr"
    if any(path.glob("*_rgb_meta.npy")):
        return "metanlr"
    if any((path / place).is_dir() for place in ("sparse", "dense/sparse")):
        return "phototourism" if any(path.glob("*.tsv")) else "colmap"
    if any((path / f"dataset_{split}.txt").is_file() for split in ("train", "test", "synthesis")):
        return "cambridge"
    if any((path / f"{split}Split.txt").is_file() for split in ("Train", "Synthesis")) or any(
        path.glob("frame-*.pose.txt")
    ):
        return "seven_scenes"
    return None


def splits(source: Source) -> tuple[str, ...]:
    """The splits that the data has, of "train", "val" and "test"."""
    return _reader(source).splits(source)


def read(source: Source, split: str, *, at_most: int | None = None, rows: slice = slice(None)) -> Scene:
    """One split with its images, or those of some `rows`, or `at_most` so many of them, evenly spread.

    No other image is decoded, and no file of another split is opened.
    """
    scene, files = located(source, split)
    kept = list(range(len(scene)))[rows]
    if at_most is not None and at_most < len(kept):
        kept = [kept[index * len(kept) // at_most] for index in range(at_most)]
    return pictured(scene, files, kept)


def split_rule(source: Source, split: str) -> str:
    """How the images of a split were chosen, in words; unknown where the folder is no scene, as of a collection."""
    from lumifield.data import holdout

    layout = known(source.data) if source.format == "auto" else source.format
    return "unknown" if layout is None else holdout.told(source, layout, split)


def pictured(scene: Scene, files: Files, rows: list[int]) -> Scene:
    """These rows of what `located` returns, with their images."""
    from lumifield.data.image_files import decode

    if len(rows) < len(scene):
        scene, files = scene.select(rows), files.select(rows)
    return replace(scene, images=decode(files, scene.cameras.size))


def cameras(source: Source, split: str) -> Scene:
    """One split without its images, of which only the headers are read."""
    return located(source, split)[0]


def located(source: Source, split: str) -> tuple[Scene, Files]:
    """One split without its images, and the files that hold them, of which only the headers are read."""
    reader = _reader(source)
    known = reader.splits(source)
    if split not in known:
        raise DataError(source.data, "split", repr(split), f"one of {', '.join(known)}", "choose one of these")
    scene, files = reader.cameras(source, split)
    if bool((scene.cameras.size < 1).any()):
        smallest = min(min(size) for size in files.sizes)
        raise DataError(
            source.data, "downscale", str(source.downscale), f"at most {smallest} for these images", "lower it"
        )
    if split == "train" and source.camera_noise:
        scene = _shaken(source, scene)
    files = replace(files, cached=source.cache)
    return _bounded(source, scene), files if source.masks is None else _masked(source.masks, files)


def _masked(folder: Path, files: Files) -> Files:
    """The files with the masks of a folder; raises `DataError` where it has none for an image."""
    masks = tuple(folder / f"{path.stem}.png" for path in files.paths)
    for mask in masks:
        if not mask.is_file():
            expected = "a PNG image for each image, named as it"
            raise DataError(mask, "mask", "missing", expected, "add it, or name another folder")
    return replace(files, masks=masks, masked=True)


def _shaken(source: Source, scene: Scene) -> Scene:
    """The scene with cameras moved at random, always the same."""
    import torch

    c2w = scene.cameras.c2w.clone()
    c2w[:, :, 3] += source.camera_noise * torch.randn(len(scene), 3, generator=torch.Generator().manual_seed(0))
    return replace(scene, cameras=replace(scene.cameras, c2w=c2w))


def _bounded(source: Source, scene: Scene) -> Scene:
    """The scene with the bounds that are asked for."""
    near = scene.near if source.near is None else scene.near * 0 + source.near
    far = scene.far if source.far is None else scene.far * 0 + source.far
    wrong = ((near < 0) | (near >= far)).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        found = f"{float(near[row]):g} to {float(far[row]):g} for {scene.names[row]}"
        raise DataError(source.data, "near and far", found, "0 <= near < far", "correct them")
    if source.bounds == "depth" and scene.ndc is not None:
        found, fix = "depth for normalized device coordinates", "drop it"
        raise DataError(source.data, "bounds", found, "distance, as their rays run from 0 to 1", fix)
    return replace(scene, near=near, far=far, bounds_are_z_depth=source.bounds == "depth")


def _reader(source: Source) -> Reader:
    check_folder(source.data)
    if source.downscale < 1:
        raise DataError(source.data, "downscale", str(source.downscale), "1 or more", "raise it")
    if not 0 <= source.camera_noise < math.inf:
        raise DataError(source.data, "camera_noise", f"{source.camera_noise:g}", "0 or more", "raise it")
    layout = _layout(source)
    _check_options(source, layout)
    match layout:
        case "blender":
            from lumifield.data.readers.blender import READER as reader
        case "cambridge":
            from lumifield.data.readers.cambridge import READER as reader
        case "colmap":
            from lumifield.data.readers.colmap import READER as reader
        case "dtu":
            from lumifield.data.readers.dtu import READER as reader
        case "learnit":
            from lumifield.data.readers.learnit import READER as reader
        case "llff":
            from lumifield.data.readers.llff import READER as reader
        case "metanlr":
            from lumifield.data.readers.metanlr import READER as reader
        case "multicam":
            from lumifield.data.readers.multicam import READER as reader
        case "nlr":
            from lumifield.data.readers.nlr import READER as reader
        case "phototourism":
            from lumifield.data.readers.phototourism import READER as reader
        case "seven_scenes":
            from lumifield.data.readers.seven_scenes import READER as reader
        case "shapenet":
            from lumifield.data.readers.shapenet import READER as reader
        case "transforms":
            from lumifield.data.readers.transforms import READER as reader
    return reader


def _layout(source: Source) -> Format:
    return detect(source.data) if source.format == "auto" else source.format


def _check_options(source: Source, layout: Format) -> None:
    """Raises `DataError` for an option that the layout has no use for."""
    if layout != "llff" and source.layout != "auto":
        raise DataError(source.data, "layout", repr(source.layout), "auto, as only LLFF data has layouts", "drop it")
    if source.focal is not None and (layout != "seven_scenes" or not 0 < source.focal < math.inf):
        raise DataError(source.data, "focal", f"{source.focal:g}", "above zero, and for 7-Scenes only", "drop it")
    if source.cameras is not None and layout != "dtu":
        raise DataError(source.data, "cameras", repr(source.cameras), "unset, as only DTU's have a name", "drop it")
    if source.least_sharpness and (layout != "transforms" or not 0 < source.least_sharpness < 1):
        expected = "0 to below 1, and for transforms only"
        raise DataError(source.data, "least_sharpness", f"{source.least_sharpness:g}", expected, "drop it")
    if not source.silhouettes and layout not in OBJECTS:
        expected = f"kept, as only {', '.join(OBJECTS)} have them"
        raise DataError(source.data, "silhouettes", "left out", expected, "drop the option")


def check_folder(path: Path) -> None:
    """Raises `DataError` where there is no such folder."""
    if not path.exists():
        raise DataError(path, "folder", "missing", "a scene folder", "check the path")
    if not path.is_dir():
        raise DataError(path, "path", "no folder", "a scene folder", "point at the folder that holds the file")


def _has(path: Path, split: str) -> bool:
    return (path / f"transforms_{split}.json").is_file()


def _names_focal_length(path: Path) -> bool:
    """Whether a transforms file gives `fl_x`, as instant-ngp's do and Blender's do not."""
    return b'"fl_x"' in path.read_bytes()


def _lists_an_object(path: Path) -> bool:
    """Whether a transforms file is of learnit's kind: an angle of view, and names without an ending."""
    content = path.read_bytes()
    return b'"camera_angle_x"' in content and b'"fl_x"' not in content and not ENDED.search(content)
