"""Pictures: photographs decoded one at a time into the flat uint8 buffer of a scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from lumifield.core.scene import Background, Pictures
from lumifield.data.lenses import Straightening
from lumifield.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")


@dataclass(frozen=True)
class Files:
    """The picture files of a split: their sizes (width, height) and whether any has alpha, from the headers alone.

    `masks` are files whose pixels of value 0 do not count (None: no mask for that picture); `masked` says whether any
    picture of the split has one. `straight` resamples pictures of lenses that cameras cannot say; `sizes` are those
    that they have afterwards.
    """

    paths: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    alpha: bool
    masks: tuple[Path | None, ...]
    masked: bool
    straight: tuple[Straightening | None, ...]

    def only(self, rows: list[int]) -> Files:
        """The files of these rows."""
        return Files(
            paths=tuple(self.paths[row] for row in rows),
            sizes=tuple(self.sizes[row] for row in rows),
            alpha=self.alpha,
            masks=tuple(self.masks[row] for row in rows),
            masked=self.masked,
            straight=tuple(self.straight[row] for row in rows),
        )

    def straightened(self, straight: Sequence[Straightening | None]) -> Files:
        """The files of pictures that are resampled when they are decoded (None: that one is not)."""
        sizes = (size if one is None else one.size for one, size in zip(straight, self.sizes, strict=True))
        return replace(self, sizes=tuple(sizes), straight=tuple(straight))


def survey(paths: Sequence[Path], masks: Sequence[Path | None] | None = None) -> Files:
    """The headers of the files; raises `DataError` for one that is missing or no picture."""
    sizes, alpha = [], False
    for path in paths:
        with _opened(path) as picture:
            sizes.append(picture.size)
            alpha = alpha or _has_alpha(picture)
    masks = tuple(masks) if masks else (None,) * len(paths)
    return Files(tuple(paths), tuple(sizes), alpha, masks, any(masks), (None,) * len(paths))


def background(files: Files, asked: Literal["auto", "white", "black", "random"]) -> Background:
    """What stands behind the pictures: as asked; for "auto" white where they have alpha."""
    if asked == "random" and not files.alpha:
        raise DataError(
            files.paths[0], "alpha channel", "absent", "one for a random background", "choose another background"
        )
    if asked == "auto":
        return "white" if files.alpha else "none"
    return asked


def decode(files: Files, sizes: Int[Tensor, "n 2"]) -> Pictures:
    """All pictures, shrunk to `sizes` (width, height), in one buffer that is filled picture by picture.

    Shrinking takes the mean of the straight RGBA values of each block, the convention of the published half-size
    Blender scenes: colours of transparent pixels count as they stand. Raises `DataError` for a damaged picture.
    """
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.prod(-1).cumsum(0)])
    total, channels = int(offsets[-1]), 4 if files.alpha else 3
    pixels = torch.empty(total, channels, dtype=torch.uint8)
    mask = torch.ones(total, dtype=torch.bool) if files.masked else None
    for index, path in enumerate(files.paths):
        rows = slice(int(offsets[index]), int(offsets[index + 1]))
        size = (int(sizes[index, 0]), int(sizes[index, 1]))
        whole = _pixels(path, "RGBA" if files.alpha else "RGB")
        straight = files.straight[index]
        whole = whole if straight is None else straight.apply(whole)
        pixels[rows].numpy()[:] = shrink(whole, size).reshape(-1, channels)
        mask_path = files.masks[index]
        if mask is not None and mask_path is not None:
            mask[rows] = torch.from_numpy(_counting(mask_path, files.sizes[index], size))
    return Pictures(pixels, offsets, mask)


def shrink(pixels: UInt8[np.ndarray, "h w c"], size: tuple[int, int]) -> UInt8[np.ndarray, "rows columns c"]:
    """A picture at `size` (width, height): means of blocks, or of Hamming windows where whole blocks do not fit."""
    height, width, channels = pixels.shape
    if (width, height) == size:
        return pixels
    across, down = width // size[0], height // size[1]
    if (across * size[0], down * size[1]) == (width, height):
        blocks = pixels.reshape(size[1], down, size[0], across, channels)
        count = across * down
        return ((blocks.sum((1, 3), dtype=np.uint32) + count // 2) // count).astype(np.uint8)
    # Band by band: Pillow would weight the colours of a picture with alpha by that alpha.
    bands = [Image.fromarray(pixels[..., c]).resize(size, Image.Resampling.HAMMING) for c in range(channels)]
    return np.stack([np.asarray(band) for band in bands], -1)


def listed_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix in ENDINGS and not p.name.startswith("."))


def raw(path: Path) -> Float[np.ndarray, "h w"]:
    """The numbers of a picture with one channel of whatever type; raises `DataError` for a damaged one."""
    with _opened(path) as picture:
        values = np.asarray(picture, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(path, "depth picture", "in colour", "one channel", "give the file that holds depth")
    return values


def _counting(path: Path, expected: tuple[int, int], size: tuple[int, int]) -> Bool[np.ndarray, "p"]:
    """Which pixels of a shrunk picture count: those whose whole block does."""
    mask = _pixels(path, "L")
    height, width, _ = mask.shape
    if (width, height) != expected:
        wanted = f"its picture's {expected[0]}x{expected[1]}"
        raise DataError(path, "mask size", f"{width}x{height}", wanted, "make the mask as large as its picture")
    counts = np.where(mask > 0, 255, 0).astype(np.uint8)
    return shrink(counts, size).reshape(-1) == 255


def _pixels(path: Path, mode: Literal["L", "RGB", "RGBA"]) -> UInt8[np.ndarray, "h w c"]:
    with _opened(path) as picture:
        pixels = np.asarray(picture.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError:
        raise DataError(path, "picture", "missing", "a PNG or JPEG file", "restore the file") from None
    # Pillow reports damage found in the header, in a chunk and in the data as these three.
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            path, "picture", f"damaged or cut off ({error})", "a whole PNG or JPEG file", "copy the file again"
        ) from None
