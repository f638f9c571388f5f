"""Scene readers: load the posed images of one split as a `Scene`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError

if TYPE_CHECKING:
    from lumifield.data.image_files import ImageFiles
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


def list_splits(source: Source) -> tuple[str, ...]:
    """Available splits among "train", "val" and "test"."""
    return _reader(source).splits(source)


def read_scene(source: Source, split: str, *, max_images: int | None = None, rows: slice = slice(None)) -> Scene:
    """One split with its images: all of them, those of `rows`, or `at_most` evenly spaced ones.

    Only these images are decoded; those of other splits are not opened.
    """
    scene, files = locate_images(source, split)
    kept = list(range(len(scene)))[rows]
    if max_images is not None and max_images < len(kept):
        kept = [kept[index * len(kept) // max_images] for index in range(max_images)]
    return attach_images(scene, files, kept)


def describe_split(source: Source, split: str) -> str:
    """Describes how the images of a split were selected; "unknown" if the folder is not a scene."""
    from lumifield.data import held_out_views

    layout = find_format(source.data) if source.format == "auto" else source.format
    return "unknown" if layout is None else held_out_views.describe_split(source, layout, split)


def attach_images(scene: Scene, files: ImageFiles, rows: list[int]) -> Scene:
    """The scene of `locate_images`, reduced to `rows`, with decoded images."""
    from lumifield.data.image_files import decode_images

    if len(rows) < len(scene):
        scene, files = scene.select(rows), files.select(rows)
    return replace(scene, images=decode_images(files, scene.cameras.size))


def read_cameras(source: Source, split: str) -> Scene:
    """Cameras of one split; only the headers of its images are read."""
    return locate_images(source, split)[0]


def locate_images(source: Source, split: str) -> tuple[Scene, ImageFiles]:
    """Cameras and image files of one split; only the headers of the images are read."""
    reader = _reader(source)
    available = reader.splits(source)
    if split not in available:
        raise DataError(source.data, "split", repr(split), f"one of {', '.join(available)}", "choose one of these")
    scene, files = reader.cameras(source, split)
    if bool((scene.cameras.size < 1).any()):
        smallest = min(min(size) for size in files.sizes)
        raise DataError(
            source.data, "downscale", str(source.downscale), f"at most {smallest} for these images", "lower it"
        )
    if split == "train" and source.pose_noise:
        scene = _perturb_positions(source, scene)
    files = replace(files, cached=source.cache)
    return _apply_bounds(source, scene), files if source.masks is None else _add_masks(source.masks, files)


def _add_masks(folder: Path, files: ImageFiles) -> ImageFiles:
    """Adds the masks of a folder; raises `DataError` if an image has none."""
    masks = tuple(folder / f"{path.stem}.png" for path in files.paths)
    for mask in masks:
        if not mask.is_file():
            expected = "a PNG file for each image, with the same name"
            raise DataError(mask, "mask", "missing", expected, "add it or give another folder")
    return replace(files, masks=masks, masked=True)


def _perturb_positions(source: Source, scene: Scene) -> Scene:
    """Adds reproducible Gaussian noise to the camera positions."""
    import torch

    c2w = scene.cameras.c2w.clone()
    c2w[:, :, 3] += source.pose_noise * torch.randn(len(scene), 3, generator=torch.Generator().manual_seed(0))
    return replace(scene, cameras=replace(scene.cameras, c2w=c2w))


def _apply_bounds(source: Source, scene: Scene) -> Scene:
    """Overrides near and far."""
    near = scene.near if source.near is None else scene.near * 0 + source.near
    far = scene.far if source.far is None else scene.far * 0 + source.far
    wrong = ((near < 0) | (near >= far)).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        found = f"{float(near[row]):g} to {float(far[row]):g} for {scene.names[row]}"
        raise DataError(source.data, "near and far", found, "0 <= near < far", "correct them")
    if source.bounds == "depth" and scene.ndc is not None:
        found, fix = "depth with normalized device coordinates", "remove it"
        raise DataError(source.data, "bounds", found, "distance, because NDC rays run from 0 to 1", fix)
    return replace(scene, near=near, far=far, bounds_are_z_depth=source.bounds == "depth")


def _reader(source: Source) -> Reader:
    check_folder(source.data)
    if source.downscale < 1:
        raise DataError(source.data, "downscale", str(source.downscale), "1 or more", "raise it")
    if not 0 <= source.pose_noise < math.inf:
        raise DataError(source.data, "pose_noise", f"{source.pose_noise:g}", "0 or more", "raise it")
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
    return detect_format(source.data) if source.format == "auto" else source.format


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
    return b'"fl_x"' in path.read_bytes()


def _lists_an_object(path: Path) -> bool:
    """Whether a transforms file is from learnit: a field of view, and image names without extension."""
    content = path.read_bytes()
    return b'"camera_angle_x"' in content and b'"fl_x"' not in content and not NAME_WITH_EXTENSION.search(content)
