"""Image files of a split, decoded one at a time into the flat uint8 buffer of a scene."""

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

# Version of the decoder in the keys of the cache.
DECODER = 1
# Splits with fewer pixels are decoded each time instead of cached.
MIN_CACHED_PIXELS = 2**23
EXTENSIONS = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")


@dataclass(frozen=True)
class ImageFiles:
    """Image files of a split with their sizes (width, height) and whether any has alpha, read from the headers.

    `masks` are files whose black pixels are ignored (None: no mask for the image), `masked` tells whether any image of
    the split has one. `undistortion` resamples images whose distortion `Cameras` cannot represent; `sizes` are those
    after resampling. `silhouettes` are object masks that become the alpha of their images (None: none). `cached` tells
    whether decoded images are cached on disk.
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
        """The files of the given rows."""
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            sizes=tuple(self.sizes[row] for row in rows),
            masks=tuple(self.masks[row] for row in rows),
            undistortion=tuple(self.undistortion[row] for row in rows),
            silhouettes=tuple(self.silhouettes[row] for row in rows),
        )

    def with_undistortion(self, undistortion: Sequence[Undistortion | None]) -> ImageFiles:
        """The files with a resampling on decoding per image (None: none)."""
        sizes = (size if one is None else one.size for one, size in zip(undistortion, self.sizes, strict=True))
        return replace(self, sizes=tuple(sizes), undistortion=tuple(undistortion))

    def with_object_masks(self, silhouettes: Sequence[Path | None]) -> ImageFiles:
        """The files with an object mask per image; raises `DataError` for a mask of another size."""
        for path, size in zip(silhouettes, self.sizes, strict=True):
            if path is not None:
                with _opened(path) as image:
                    _check_size(path, image.size, size)
        return replace(self, silhouettes=tuple(silhouettes), alpha=self.alpha or any(silhouettes))


def read_headers(paths: Sequence[Path], masks: Sequence[Path | None] | None = None) -> ImageFiles:
    """Reads the headers of image files; raises `DataError` for a missing or invalid one."""
    sizes, alpha = [], False
    for path in paths:
        with _opened(path) as image:
            sizes.append(image.size)
            alpha = alpha or _has_alpha(image)
    masks = tuple(masks) if masks else (None,) * len(paths)
    none = (None,) * len(paths)
    return ImageFiles(tuple(paths), tuple(sizes), alpha, masks, any(masks), undistortion=none, silhouettes=none)


def resolve_background(files: ImageFiles, requested: Literal["auto", "white", "black", "random"]) -> Background:
    """Background of the images; "auto" is white if they have alpha."""
    if requested == "random" and not files.alpha:
        raise DataError(
            files.paths[0], "alpha channel", "absent", "one for a random background", "choose another background"
        )
    if requested == "auto":
        return "white" if files.alpha else "none"
    return requested


def decode_images(files: ImageFiles, sizes: Int[Tensor, "n 2"]) -> Images:
    """All images, downscaled to `sizes` (width, height), in one buffer in memory or mapped from the cache.

    Downscaling takes the mean of the unpremultiplied RGBA values of each block, as the published half-size Blender
    scenes do, so that colors of transparent pixels count. Raises `DataError` for a damaged image.
    """
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.prod(-1).cumsum(0)])
    total, channels = int(offsets[-1]), 4 if files.alpha else 3
    wanted = [(width, height) for width, height in sizes.tolist()]

    def decode_all() -> Iterator[UInt8[np.ndarray, "_ c"]]:
        for index, size in enumerate(wanted):
            yield _image(files, index, size).reshape(-1, channels)

    is_cached = files.cached and sum(width * height for width, height in files.sizes) >= MIN_CACHED_PIXELS
    array = (
        cached_array(_key(files, wanted), (total, channels), decode_all)
        if is_cached
        else assemble_array((total, channels), decode_all)
    )
    return Images(torch.from_numpy(array), offsets, _mask(files, wanted))


def _image(files: ImageFiles, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "h w c"]:
    whole = _pixels(files.paths[index], "RGBA" if files.alpha else "RGB")
    if (silhouette := files.silhouettes[index]) is not None:
        whole = np.concatenate([whole[..., :3], read_gray(silhouette)[..., None]], -1)
    undistortion = files.undistortion[index]
    return downscale_image(whole if undistortion is None else undistortion.apply(whole), size)


def _mask(files: ImageFiles, wanted: list[tuple[int, int]]) -> Bool[Tensor, " p"] | None:
    """Mask of the valid pixels of all images; None if all are valid."""
    if not files.masked:
        return None
    masks = [
        np.ones(size[0] * size[1], bool) if path is None else _valid_pixels(path, whole, size)
        for path, whole, size in zip(files.masks, files.sizes, wanted, strict=True)
    ]
    return torch.from_numpy(np.concatenate(masks))


def _key(files: ImageFiles, wanted: list[tuple[int, int]]) -> tuple[object, ...]:
    """Everything that the decoded images depend on."""
    read = [path for path in (*files.paths, *files.silhouettes) if path is not None]
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in read]
    has_silhouette = [path is not None for path in files.silhouettes]
    undistortions = [None if one is None else one.key() for one in files.undistortion]
    return (DECODER, files.alpha, stats, has_silhouette, wanted, undistortions)


def downscale_image(pixels: UInt8[np.ndarray, "h w c"], size: tuple[int, int]) -> UInt8[np.ndarray, "rows columns c"]:
    """An image at `size` (width, height): means of blocks, or a Hamming filter if the factor is not an integer."""
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
    # Channel by channel, because Pillow would weight colors by alpha.
    channels_resized = [Image.fromarray(pixels[..., c]).resize(size, Image.Resampling.HAMMING) for c in range(channels)]
    return np.stack([np.asarray(channel) for channel in channels_resized], -1)


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix in EXTENSIONS and not p.name.startswith("."))


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """RGB values of an image, without alpha."""
    return _pixels(path, "RGB").copy()


def read_gray(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Gray values of an image."""
    return _pixels(path, "L")[..., 0]


def read_single_channel(path: Path) -> Float[np.ndarray, "h w"]:
    """Values of a single-channel image of any type; raises `DataError` if it is damaged."""
    with _opened(path) as image:
        values = np.asarray(image, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(path, "depth image", "in color", "one channel", "give the file that holds depth")
    return values


def _valid_pixels(path: Path, expected: tuple[int, int], size: tuple[int, int]) -> Bool[np.ndarray, " p"]:
    """Mask of the valid pixels of a downscaled image: those with only valid pixels in their block."""
    mask = read_gray(path)
    _check_size(path, (mask.shape[1], mask.shape[0]), expected)
    valid = np.where(mask > 0, 255, 0).astype(np.uint8)
    return downscale_image(valid[..., None], size).reshape(-1) == 255


def _check_size(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raises `DataError` if a mask has another size than its image."""
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
    # Pillow raises these for damage in the header, a chunk and the data.
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            path, "image", f"damaged or cut off ({error})", "a whole PNG or JPEG file", "copy the file again"
        ) from None
