"""Captures: folders of posed images in one of several formats, opened once and read as scenes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args

from lumifield.errors import DataError

if TYPE_CHECKING:
    from lumifield.data.capture import Capture
    from lumifield.data.scene import Scene

# Each format is a module in `readers`; the first whose `matches` accepts a folder reads it.
Format = Literal[
    "llff",
    "learnit",
    "blender",
    "shapenet",
    "transforms",
    "multicam",
    "dtu",
    "nlr",
    "metanlr",
    "phototourism",
    "colmap",
    "cambridge",
    "seven_scenes",
]
# Options of `Source` that apply only to formats with them in `OPTIONS`.
FORMAT_OPTIONS = ("layout", "focal", "cameras", "object_masks", "min_sharpness")

# Formats of captures of one object with object masks.
OBJECT_FORMATS = ("dtu", "metanlr", "nlr")


@dataclass(frozen=True)
class Source:
    """Where the images are and how to read them."""

    data: Path
    """Folder of the scene."""
    format: Literal["auto", Format] = "auto"
    """Dataset format (auto: detected from the files)."""
    downscale: int = 1
    """Downscale factor of the images."""
    background: Literal["auto", "white", "black", "random"] = "auto"
    """Background behind transparent pixels (auto: white; random: a new color for each training ray)."""
    hold_out: Literal["auto", "every-8th", "center", "none"] = "auto"
    """Test images if the dataset defines no split: every 8th image, or the image whose camera is nearest to the mean
    camera position (auto: every 8th; second half of the frames for ShapeNet, images 0 to 19 for learnit, the published
    views of MetaNLR++ for DTU and NLR)."""
    layout: Literal["auto", "forward", "inward"] = "auto"
    """LLFF only: forward-facing cameras (normalized device coordinates) or an inward-facing ring of cameras."""
    focal: float | None = None
    """7-Scenes only: focal length [pixels of the image files] (525 for images 640 pixels wide)."""
    cameras: str | None = None
    """DTU only: camera file (cameras_sphere.npz, or else cameras.npz)."""
    object_masks: bool = True
    """DTU, NLR and MetaNLR++ only: use the object masks as alpha."""
    masks: Path | None = None
    """Folder of masks named like the images; black pixels are ignored."""
    min_sharpness: float = 0.0
    """transforms only: minimum `sharpness` of a training image, relative to the mean of its neighbors in the list (0:
    use all)."""
    near: float | None = None
    """Near bound of the rays [scene units]."""
    far: float | None = None
    """Far bound of the rays [scene units]."""
    bounds: Literal["distance", "depth"] = "distance"
    """Meaning of near and far: distance from the camera, or z-depth as in learnit."""
    pose_noise: float = 0.0
    """Standard deviation of Gaussian noise added to the training camera positions [scene units]."""
    cache: bool = True
    """Cache decoded images on disk."""


def detect_format(path: Path) -> Format:
    """Format of a scene folder; raises `DataError` if it is not recognized."""
    check_folder(path)
    name = find_format(path)
    if name is not None:
        return name
    found = "empty" if not any(path.iterdir()) else "an unknown format"
    expected = ", ".join(load_reader(name).LAYOUT for name in get_args(Format))
    raise DataError(path, "folder", found, expected, "give a folder that contains one of them")


def find_format(path: Path) -> Format | None:
    """Format of a scene folder (None: not recognized)."""
    return next((name for name in get_args(Format) if load_reader(name).matches(path)), None)


def load_reader(name: Format) -> ModuleType:
    """Reader module of a format.

    `LAYOUT` names the file that its `matches` detects a folder by, `OPTIONS` (if any) are those of `FORMAT_OPTIONS`
    that apply, and `open_files` parses the metadata.
    """
    return import_module(f"lumifield.data.readers.{name}")


def open_capture(source: Source) -> Capture:
    """Opens a capture: detects its format and parses its metadata, once for all that is read from it.

    Raises `DataError` for an unknown format, an option that does not apply to it, or unusable metadata.
    """
    from lumifield.data.capture import Capture

    check_folder(source.data)
    if source.downscale < 1:
        raise DataError(source.data, "downscale", str(source.downscale), "1 or more", "raise it")
    if not 0 <= source.pose_noise < math.inf:
        raise DataError(source.data, "pose_noise", f"{source.pose_noise:g}", "0 or more", "raise it")
    name = detect_format(source.data) if source.format == "auto" else source.format
    reader = load_reader(name)
    _check_options(source, reader)
    return Capture(source, name, reader.open_files(source))


def read_scene(source: Source, split: str, *, max_images: int | None = None) -> Scene:
    """One split with its images; opens the capture for this split alone."""
    return open_capture(source).read(split, max_images=max_images)


def _check_options(source: Source, reader: ModuleType) -> None:
    """Raises `DataError` for an option that does not apply to the format."""
    for option in fields(source):
        value = getattr(source, option.name)
        is_known = option.name not in FORMAT_OPTIONS or option.name in getattr(reader, "OPTIONS", ())
        if not is_known and value != option.default:
            found = "off" if value is False else f"{value:g}" if isinstance(value, float) else repr(value)
            expected = f"the default, as captures with {reader.LAYOUT} have no such option"
            raise DataError(source.data, option.name, found, expected, "remove the option")


def check_folder(path: Path) -> None:
    """Raises `DataError` if the folder does not exist."""
    if not path.exists():
        raise DataError(path, "folder", "missing", "a scene folder", "check the path")
    if not path.is_dir():
        raise DataError(path, "path", "a file", "a scene folder", "give the folder that contains it")
