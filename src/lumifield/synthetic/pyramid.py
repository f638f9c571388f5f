"""The multiscale pyramid of a Blender scene, in mip-NeRF's multicam layout: exact means over 1, 2, 4, … pixels."""

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
from lumifield.runtime.config import at_least
from lumifield.runtime.folders import fresh_folder

SPLITS = ("train", "val", "test")
# The bounds that the published converter states for every Blender scene.
NEAR, FAR = 2.0, 6.0

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Pyramid:
    """How many sizes there are, each half the one before, and whether colors count by their alpha in the means."""

    scales: int = 4
    premultiplied: bool = False

    def __post_init__(self) -> None:
        at_least(1, self, "scales")


def multiscale(scene_folder: Path, out: Path, pyramid: Pyramid = Pyramid()) -> None:
    """Writes the pyramid of the Blender scene in `scene_folder` to the new folder `out`.

    Raises `DataError` where the scene cannot be read, an image's sides cannot be halved so often, or `out` cannot be
    written or is not empty.
    """
    with fresh_folder(out) as folder:
        build_pyramid(scene_folder, folder, pyramid)


def build_pyramid(scene_folder: Path, folder: Path, pyramid: Pyramid = Pyramid()) -> None:
    """Writes `images_SPLIT/NNN_dL.png` and `metadata.json`: columns for each split, by image, then fine to coarse."""
    found = [split for split in SPLITS if (scene_folder / f"transforms_{split}.json").is_file()]
    if not found:
        fix = "name a folder in the layout of NeRF's Blender scenes"
        raise DataError(scene_folder, "the list of images", "missing", "transforms_train.json", fix)
    columns = {split: split_pyramid(scene_folder, split, folder, pyramid) for split in found}
    metadata = {split: listed for split, listed in columns.items() if listed}
    (folder / "metadata.json").write_text(json.dumps(metadata))


def split_pyramid(scene_folder: Path, split: str, folder: Path, pyramid: Pyramid) -> Columns:
    """Writes the images of one split and returns its columns."""
    angle, frames = listed(scene_folder / f"transforms_{split}.json")
    (folder / f"images_{split}").mkdir()
    columns: Columns = defaultdict(list)
    for number, (name, matrix) in enumerate(frames):
        pixels = opened(scene_folder / f"{name}.png", 2 ** (pyramid.scales - 1))
        for level in range(pyramid.scales):
            path = f"images_{split}/{number:03d}_d{level}.png"
            smaller = shrunk(pixels, 2**level, premultiplied=pyramid.premultiplied)
            Image.fromarray(smaller).save(folder / path)
            for field, value in camera(angle, smaller.shape[1], smaller.shape[0], level).items():
                columns[field].append(value)
            columns["file_path"].append(path)
            columns["cam2world"].append(matrix)
    return columns


def listed(path: Path) -> tuple[float, list[tuple[str, list[list[float]]]]]:
    """The horizontal angle [rad] of a `transforms_SPLIT.json`, and name and matrix of each of its images."""
    try:
        content = json.loads(path.read_text())
        return content["camera_angle_x"], [(f["file_path"], f["transform_matrix"]) for f in content["frames"]]
    except OSError as error:
        fix = "restore it or name another folder"
        raise DataError(path, "content", "missing", "the list of training images", fix) from error
    except (ValueError, KeyError, TypeError) as error:
        expected = "camera_angle_x and frames with file_path and transform_matrix"
        raise DataError(path, "content", f"unusable ({error!r})", expected, "repair or replace the file") from error


def image_of(path: Path) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image, RGB or with straight alpha; raises `DataError` for one that cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGBA" if "A" in image.getbands() else "RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        found = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({error})"
        raise DataError(path, "the image", found, "a PNG file", "restore it or drop it from the list") from error


def opened(path: Path, whole: int) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image whose sides are multiples of `whole`."""
    pixels = image_of(path)
    height, width = pixels.shape[:2]
    if height % whole or width % whole:
        fix = "crop the images or ask for fewer scales"
        raise DataError(path, "the size", f"{width} x {height}", f"sides that are multiples of {whole}", fix)
    return pixels


def shrunk(
    pixels: UInt8[np.ndarray, "h w c"], side: int, *, premultiplied: bool = False
) -> UInt8[np.ndarray, "rows columns c"]:
    """Means over `side` x `side` pixels, straight alpha as it is, rounded down as in the published set.

    `premultiplied`: means of colors that count by their alpha, so that those of transparent pixels do not.
    """
    height, width, channels = pixels.shape
    blocks = pixels.reshape(height // side, side, width // side, side, channels).astype(np.int64)
    total, count = blocks.sum((1, 3)), side**2
    if not premultiplied or channels < 4:
        return (total // count).astype(np.uint8)
    alpha = total[..., 3:]
    color = (blocks[..., :3] * blocks[..., 3:]).sum((1, 3)) // np.maximum(alpha, 1)
    return np.concatenate([color, alpha // count], -1).astype(np.uint8)


def camera(angle: float, width: int, height: int, level: int) -> dict[str, Any]:
    """The columns that follow from a level's size; `pix2cam` maps (x, y, 1) [pixels] to a ray with OpenGL axes."""
    focal = width / 2 / tan(angle / 2)
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
