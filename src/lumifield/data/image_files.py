"""Images: images decoded one at a time into the flat uint8 buffer of a scene."""

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

from lumifield.data.image_cache import assemble_array, cached_array
from lumifield.data.scene import Background, Images
from lumifield.data.undistort import Undistortion
from lumifield.errors import DataError

# To be raised when the same files are decoded to other pixels.
DECODER = 1
# Images of fewer pixels in all are decoded faster than they need be kept.
SLOW = 2**23
ENDINGS = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")


@dataclass(frozen=True)
class ImageFiles:
    """The image files of a split: their sizes (width, height) and whether any has alpha, from the headers alone.

    `masks` are files whose pixels of value 0 do not count (None: no mask for that image); `masked` says whether any
    image of the split has one. `straight` resamples images of lenses that cameras cannot say; `sizes` are those
    that they have afterwards. `silhouettes` are files that become the alpha of their images (None: that one has its
    own or none). `cached` says whether what takes long to decode is kept on the disk.
    """

    paths: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    alpha: bool
    masks: tuple[Path | None, ...]
    masked: bool
    undistortion: tuple[Undistortion | None, ...]
    silhouettes: tuple[Path | None, ...]
    cached: bool = True

    def select(self, rows: list[int]) -> ImageFiles:
        """The files of these rows."""
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            sizes=tuple(self.sizes[row] for row in rows),
            masks=tuple(self.masks[row] for row in rows),
            undistortion=tuple(self.undistortion[row] for row in rows),
            silhouettes=tuple(self.silhouettes[row] for row in rows),
        )

    def with_undistortion(self, undistortion: Sequence[Undistortion | None]) -> ImageFiles:
        """The files of images that are resampled when they are decoded (None: that one is not)."""
        sizes = (size if one is None else one.size for one, size in zip(undistortion, self.sizes, strict=True))
        return replace(self, sizes=tuple(sizes), undistortion=tuple(undistortion))

    def with_object_masks(self, silhouettes: Sequence[Path | None]) -> ImageFiles:
        """The files of images that these silhouettes cut out; raises `DataError` for one of another size."""
        for path, size in zip(silhouettes, self.sizes, strict=True):
            if path is not None:
                with _opened(path) as image:
                    _check_size(path, image.size, size)
        return replace(self, silhouettes=tuple(silhouettes), alpha=self.alpha or any(silhouettes))


def read_headers(paths: Sequence[Path], masks: Sequence[Path | None] | None = None) -> ImageFiles:
    """The headers of the files; raises `DataError` for one that is missing or no image."""
    sizes, alpha = [], False
    for path in paths:
        with _opened(path) as image:
            sizes.append(image.size)
            alpha = alpha or _has_alpha(image)
    masks = tuple(masks) if masks else (None,) * len(paths)
    none = (None,) * len(paths)
    return ImageFiles(tuple(paths), tuple(sizes), alpha, masks, any(masks), undistortion=none, silhouettes=none)


def resolve_background(files: ImageFiles, asked: Literal["auto", "white", "black", "random"]) -> Background:
    """What stands behind the images: as asked; for "auto" white where they have alpha."""
    if asked == "random" and not files.alpha:
        raise DataError(
            files.paths[0], "alpha channel", "absent", "one for a random background", "choose another background"
        )
    if asked == "auto":
        return "white" if files.alpha else "none"
    return asked


def decode_images(files: ImageFiles, sizes: Int[Tensor, "n 2"]) -> Images:
    """All images, shrunk to `sizes` (width, height), in one buffer, which is in memory or mapped from the cache.

    Shrinking takes the mean of the straight RGBA values of each block, the convention of the published half-size
    Blender scenes: colors of transparent pixels count as they stand. Raises `DataError` for a damaged image.
    """
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.prod(-1).cumsum(0)])
    total, channels = int(offsets[-1]), 4 if files.alpha else 3
    wanted = [(width, height) for width, height in sizes.tolist()]

    def decoded() -> Iterator[UInt8[np.ndarray, "_ c"]]:
        for index, size in enumerate(wanted):
            yield _image(files, index, size).reshape(-1, channels)

    slow = files.cached and sum(width * height for width, height in files.sizes) >= SLOW
    array = (
        cached_array(_key(files, wanted), (total, channels), decoded)
        if slow
        else assemble_array((total, channels), decoded)
    )
    return Images(torch.from_numpy(array), offsets, _mask(files, wanted))


def _image(files: ImageFiles, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "h w c"]:
    whole = _pixels(files.paths[index], "RGBA" if files.alpha else "RGB")
    if (silhouette := files.silhouettes[index]) is not None:
        whole = np.concatenate([whole[..., :3], read_gray(silhouette)[..., None]], -1)
    undistortion = files.undistortion[index]
    return downscale_image(whole if undistortion is None else undistortion.apply(whole), size)


def _mask(files: ImageFiles, wanted: list[tuple[int, int]]) -> Bool[Tensor, " p"] | None:
    """Which pixels of all images count; None where all do."""
    if not files.masked:
        return None
    masks = [
        np.ones(size[0] * size[1], bool) if path is None else _counting(path, whole, size)
        for path, whole, size in zip(files.masks, files.sizes, wanted, strict=True)
    ]
    return torch.from_numpy(np.concatenate(masks))


def _key(files: ImageFiles, wanted: list[tuple[int, int]]) -> tuple[object, ...]:
    """All that the decoded images depend on."""
    read = [path for path in (*files.paths, *files.silhouettes) if path is not None]
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in read]
    cut = [path is not None for path in files.silhouettes]
    bent = [None if one is None else one.key() for one in files.undistortion]
    return (DECODER, files.alpha, stats, cut, wanted, bent)


def downscale_image(pixels: UInt8[np.ndarray, "h w c"], size: tuple[int, int]) -> UInt8[np.ndarray, "rows columns c"]:
    """An image at `size` (width, height): means of blocks, or of Hamming windows where whole blocks do not fit."""
    height, width, channels = pixels.shape
    if (width, height) == size:
        return pixels
    across, down = width // size[0], height // size[1]
    if (across * size[0], down * size[1]) == (width, height):
        count = across * down
        total = np.full((size[1], size[0], channels), count // 2, np.uint32)
        for row, column in np.ndindex(down, across):
            total += pixels[row::down, column::across]
        return (total // count).astype(np.uint8)
    # Band by band: Pillow would weight the colors of an image with alpha by that alpha.
    bands = [Image.fromarray(pixels[..., c]).resize(size, Image.Resampling.HAMMING) for c in range(channels)]
    return np.stack([np.asarray(band) for band in bands], -1)


def listed_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix in ENDINGS and not p.name.startswith("."))


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image in color, without alpha."""
    return _pixels(path, "RGB").copy()


def read_gray(path: Path) -> UInt8[np.ndarray, "h w"]:
    """An image in shades of gray."""
    return _pixels(path, "L")[..., 0]


def read_single_channel(path: Path) -> Float[np.ndarray, "h w"]:
    """The numbers of an image with one channel of whatever type; raises `DataError` for a damaged one."""
    with _opened(path) as image:
        values = np.asarray(image, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(path, "depth image", "in color", "one channel", "give the file that holds depth")
    return values


def _counting(path: Path, expected: tuple[int, int], size: tuple[int, int]) -> Bool[np.ndarray, " p"]:
    """Which pixels of a shrunk image count: those whose whole block does."""
    mask = read_gray(path)
    _check_size(path, (mask.shape[1], mask.shape[0]), expected)
    counts = np.where(mask > 0, 255, 0).astype(np.uint8)
    return downscale_image(counts[..., None], size).reshape(-1) == 255


def _check_size(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raises `DataError` where a mask is not as large as its image."""
    if found != expected:
        wanted = f"its image's {expected[0]}x{expected[1]}"
        raise DataError(path, "mask size", f"{found[0]}x{found[1]}", wanted, "make the mask as large as its image")


def _pixels(path: Path, mode: Literal["L", "RGB", "RGBA"]) -> UInt8[np.ndarray, "h w c"]:
    with _opened(path) as image:
        pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise DataError(path, "image", "missing", "a PNG or JPEG file", "restore the file") from None
    # Pillow reports damage found in the header, in a chunk and in the data as these three.
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            path, "image", f"damaged or cut off ({error})", "a whole PNG or JPEG file", "copy the file again"
        ) from None
