"""Captures: folders of posed images in one of several formats, opened once and read as scenes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.data.metadata_files import read_metadata
from lumifield.errors import DataError

if TYPE_CHECKING:
    from lumifield.data.capture import Capture
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

# Formats of captures of one object with object masks.
OBJECT_FORMATS = ("dtu", "metanlr", "nlr")
# An image name with a file extension, in a list of frames.
NAME_WITH_EXTENSION = re.compile(rb'"file_path"\s*:\s*"[^"]*\.\w+"')


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
    layout = find_format(path)
    if layout is not None:
        return layout
    found = "empty" if not any(path.iterdir()) else "an unknown format"
    raise DataError(path, "folder", found, LAYOUTS, "give a folder that contains one of them")


def find_format(path: Path) -> Format | None:
    """Format of a scene folder (None: not recognized)."""
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
    layout = detect_format(source.data) if source.format == "auto" else source.format
    _check_options(source, layout)
    reader = import_module(f"lumifield.data.readers.{layout}")
    return Capture(source, layout, reader.open_files(source))


def read_scene(source: Source, split: str, *, max_images: int | None = None) -> Scene:
    """One split with its images; opens the capture for this split alone."""
    return open_capture(source).read(split, max_images=max_images)


def _check_options(source: Source, layout: Format) -> None:
    """Raises `DataError` for an option that does not apply to the format."""
    if layout != "llff" and source.layout != "auto":
        raise DataError(source.data, "layout", repr(source.layout), "auto, because only LLFF has layouts", "remove it")
    if source.focal is not None and (layout != "seven_scenes" or not 0 < source.focal < math.inf):
        raise DataError(source.data, "focal", f"{source.focal:g}", "a positive number, for 7-Scenes only", "remove it")
    if source.cameras is not None and layout != "dtu":
        raise DataError(
            source.data,
            "cameras",
            repr(source.cameras),
            "unset, because only DTU has camera files to choose from",
            "remove it",
        )
    if source.min_sharpness and (layout != "transforms" or not 0 < source.min_sharpness < 1):
        expected = "0 to below 1, for transforms only"
        raise DataError(source.data, "min_sharpness", f"{source.min_sharpness:g}", expected, "remove it")
    if not source.object_masks and layout not in OBJECT_FORMATS:
        expected = f"on, because only {', '.join(OBJECT_FORMATS)} have object masks"
        raise DataError(source.data, "object_masks", "off", expected, "remove the option")


def check_folder(path: Path) -> None:
    """Raises `DataError` if the folder does not exist."""
    if not path.exists():
        raise DataError(path, "folder", "missing", "a scene folder", "check the path")
    if not path.is_dir():
        raise DataError(path, "path", "a file", "a scene folder", "give the folder that contains it")


def _has(path: Path, split: str) -> bool:
    return (path / f"transforms_{split}.json").is_file()


def _names_focal_length(path: Path) -> bool:
    """Whether a transforms file gives `fl_x`: instant-ngp and nerfstudio, not Blender."""
    return b'"fl_x"' in read_metadata(path)


def _lists_an_object(path: Path) -> bool:
    """Whether a transforms file is from learnit: a field of view, and image names without extension."""
    content = read_metadata(path)
    return b'"camera_angle_x"' in content and b'"fl_x"' not in content and not NAME_WITH_EXTENSION.search(content)
