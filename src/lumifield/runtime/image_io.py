"""Images and depth maps on disk.

Images are `(height, width, channels)`, top row first; colors are sRGB in [0, 1] or uint8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lumifield.errors import DataError
from lumifield.runtime.files import replacing


def to_uint8(values: Float[Tensor, "*s"]) -> UInt8[Tensor, "*s"]:
    """Values in [0, 1] rounded to 256 levels; values outside are clipped, NaN becomes 0."""
    return (values.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def write_png(path: Path, pixels: UInt8[Tensor, "h w 3"] | UInt8[Tensor, "h w"]) -> None:
    """Writes a color or gray image as PNG; raises `DataError` if `path` is not writable."""
    with replacing(path) as temporary:
        Image.fromarray(pixels.cpu().numpy()).save(temporary, format="png")


def write_npy(path: Path, values: Float[Tensor, "h w"]) -> None:
    """Writes float32 values in NumPy format."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, values.cpu().float().numpy(), allow_pickle=False)


def write_bytes(path: Path, values: Float[Tensor, "h w"]) -> None:
    """Writes little-endian float32 values without a header, row by row from the top."""
    with replacing(path) as temporary:
        temporary.write_bytes(values.cpu().numpy().astype("<f4").tobytes())


def write_pfm(path: Path, values: Float[Tensor, "h w"] | Float[Tensor, "h w 3"]) -> None:
    """Writes a portable float map, gray (`Pf`) or color (`PF`): little-endian float32, bottom row first."""
    array = values.cpu().numpy().astype("<f4")
    header = f"{'Pf' if array.ndim == 2 else 'PF'}\n{array.shape[1]} {array.shape[0]}\n-1.000000\n"
    with replacing(path) as temporary:
        temporary.write_bytes(header.encode("ascii") + array[::-1].tobytes())


def read_pfm(path: Path) -> Float[Tensor, "h w"] | Float[Tensor, "h w 3"]:
    """Values of a portable float map of either byte order; raises `DataError` for any other file."""
    kind, size, scale, body = _pfm_parts(path)
    channels = {b"Pf": 1, b"PF": 3}.get(kind)
    if channels is None:
        raise DataError(path, "first line", repr(kind[:20])[1:], "'Pf' or 'PF'", "use a portable float map")
    width, height, order = _pfm_layout(path, size, scale)
    expected = width * height * channels * 4
    if len(body) != expected:
        raise DataError(path, "data", f"{len(body)} bytes", f"{expected} bytes", "write the file again")
    array = np.frombuffer(body, f"{order}f4").reshape(height, width, channels)[::-1]
    return torch.from_numpy(array.astype(np.float32)).squeeze(-1)


def _pfm_parts(path: Path) -> tuple[bytes, bytes, bytes, bytes]:
    try:
        kind, size, scale, body = path.read_bytes().split(b"\n", 3)
    except FileNotFoundError as error:
        raise DataError(path, "file", "nothing", "a portable float map", "correct the path") from error
    except ValueError as error:
        raise DataError(
            path, "header", "an incomplete header", "three lines before the data", "write the file again"
        ) from error
    return kind.strip(), size, scale, body


def _pfm_layout(path: Path, size: bytes, scale: bytes) -> tuple[int, int, str]:
    try:
        width, height = (int(n) for n in size.split())
        if width < 1 or height < 1:
            raise ValueError("empty")
        return width, height, "<" if float(scale) < 0 else ">"
    except ValueError as error:
        found = repr(size + b" " + scale)[1:41]
        raise DataError(path, "header", found, "width, height and scale", "write the file again") from error
