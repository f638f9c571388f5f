"""Multiscale versions of Blender scenes in the multicam format of mip-NeRF: exact means over 1, 2, 4, ... pixels."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from math import tan
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from lumifield.errors import DataError
from lumifield.runtime.config import check_min
from lumifield.runtime.folders import fresh_folder

SPLITS = ("train", "val", "test")
# The bounds that the published converter writes for every Blender scene.
NEAR, FAR = 2.0, 6.0

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class MultiscaleSettings:
    """The number of scales, each half the size of the previous one, and whether colors are weighted by alpha."""

    num_scales: int = 4
    premultiply_alpha: bool = False

    def __post_init__(self) -> None:
        check_min(self, num_scales=1)


def write_multiscale_scene(scene_folder: Path, out: Path, settings: MultiscaleSettings = MultiscaleSettings()) -> None:
    """Writes the multiscale version of the Blender scene in `scene_folder` to the new folder `out`.

    Raises `DataError` if the scene is not readable, if the size of an image is not divisible by the coarsest scale, and
    if `out` is not empty or not writable.
    """
    with fresh_folder(out) as folder:
        write_all_splits(scene_folder, folder, settings)


def write_all_splits(scene_folder: Path, folder: Path, settings: MultiscaleSettings = MultiscaleSettings()) -> None:
    """Writes `images_SPLIT/NNN_dL.png` and `metadata.json`: columns per split, by image, then from fine to coarse."""
    splits = [split for split in SPLITS if (scene_folder / f"transforms_{split}.json").is_file()]
    if not splits:
        fix = "choose a folder in the format of NeRF's Blender scenes"
        raise DataError(scene_folder, "list of images", "nothing", "transforms_train.json", fix)
    columns_by_split = {split: write_split(scene_folder, split, folder, settings) for split in splits}
    metadata = {split: columns for split, columns in columns_by_split.items() if columns}
    (folder / "metadata.json").write_text(json.dumps(metadata))


def write_split(scene_folder: Path, split: str, folder: Path, settings: MultiscaleSettings) -> Columns:
    """Writes the images of one split and returns its metadata columns."""
    fov, frames = read_blender_frames(scene_folder / f"transforms_{split}.json")
    (folder / f"images_{split}").mkdir()
    columns: Columns = defaultdict(list)
    for index, (name, matrix) in enumerate(frames):
        pixels = read_divisible_image(scene_folder / f"{name}.png", 2 ** (settings.num_scales - 1))
        for level in range(settings.num_scales):
            path = f"images_{split}/{index:03d}_d{level}.png"
            level_pixels = average_blocks(pixels, 2**level, premultiply_alpha=settings.premultiply_alpha)
            Image.fromarray(level_pixels).save(folder / path)
            for field, value in camera_columns(fov, level_pixels.shape[1], level_pixels.shape[0], level).items():
                columns[field].append(value)
            columns["file_path"].append(path)
            columns["cam2world"].append(matrix)
    return columns


def read_blender_frames(path: Path) -> tuple[float, list[tuple[str, list[list[float]]]]]:
    """The horizontal field of view [rad] of a `transforms_SPLIT.json`, and name and matrix of each frame."""
    try:
        content = json.loads(path.read_text())
        return content["camera_angle_x"], [(f["file_path"], f["transform_matrix"]) for f in content["frames"]]
    except OSError as error:
        fix = "restore the file or choose another folder"
        raise DataError(path, "file", "nothing", "the list of training images", fix) from error
    except (ValueError, KeyError, TypeError) as error:
        expected = "camera_angle_x and frames with file_path and transform_matrix"
        found = f"an unusable list ({error!r})"
        raise DataError(path, "content", found, expected, "repair or replace the file") from error


def read_blender_image(path: Path) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image, RGB or with straight alpha; raises `DataError` if it is not readable."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGBA" if "A" in image.getbands() else "RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else f"an unreadable file ({error})"
        fix = "restore the image or remove it from the list"
        raise DataError(path, "image", found, "a PNG file", fix) from error


def read_divisible_image(path: Path, divisor: int) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image; raises `DataError` if width or height is not a multiple of `divisor`."""
    pixels = read_blender_image(path)
    height, width = pixels.shape[:2]
    if height % divisor or width % divisor:
        expected = f"width and height divisible by {divisor}"
        raise DataError(path, "image size", f"{width} x {height}", expected, "crop the images or use fewer scales")
    return pixels


def average_blocks(
    pixels: UInt8[np.ndarray, "h w c"], block_size: int, *, premultiply_alpha: bool = False
) -> UInt8[np.ndarray, "rows columns c"]:
    """Means over `block_size` x `block_size` pixels, rounded down as in the published dataset.

    Each channel is averaged by itself; with `premultiply_alpha`, colors are weighted by alpha.
    """
    height, width, channels = pixels.shape
    shape = (height // block_size, block_size, width // block_size, block_size, channels)
    blocks = pixels.reshape(shape).astype(np.int64)
    total, count = blocks.sum((1, 3)), block_size**2
    if not premultiply_alpha or channels < 4:
        return (total // count).astype(np.uint8)
    alpha = total[..., 3:]
    color = (blocks[..., :3] * blocks[..., 3:]).sum((1, 3)) // np.maximum(alpha, 1)
    return np.concatenate([color, alpha // count], -1).astype(np.uint8)


def camera_columns(fov: float, width: int, height: int, level: int) -> dict[str, Any]:
    """The metadata of a level; `pix2cam` maps (x, y, 1) [pixels] to a ray direction with OpenGL axes."""
    focal = width / 2 / tan(fov / 2)
    return {
        "width": width,
        "height": height,
        "focal": focal,
        "pix2cam": [
            [1 / focal, 0.0, -width / 2 / focal],
            [0.0, -1 / focal, height / 2 / focal],
            [0.0, 0.0, -1.0],
        ],
        "label": level,
        "near": NEAR,
        "far": FAR,
        "lossmult": 4.0**level,
    }
