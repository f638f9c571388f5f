"""Images as numbers: 8 bits, color maps, depth files, and how close two images are.

Images are `(height, width, channels)`, the top row first; colors are sRGB in [0, 1] or uint8.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lumifield.errors import DataError
from lumifield.runtime.files import replacing

Anchors = tuple[tuple[float, float, float], ...]

# Equidistant colors between which a map interpolates: cold to warm, and dark to bright with rising luminance.
SPECTRUM: Anchors = (
    (0.19, 0.07, 0.23),
    (0.25, 0.33, 0.78),
    (0.24, 0.61, 0.99),
    (0.10, 0.84, 0.78),
    (0.38, 0.97, 0.41),
    (0.75, 0.95, 0.22),
    (0.97, 0.73, 0.22),
    (0.93, 0.37, 0.09),
    (0.48, 0.02, 0.01),
)
HEAT: Anchors = ((0.0, 0.0, 0.0), (0.32, 0.07, 0.43), (0.75, 0.19, 0.31), (0.97, 0.55, 0.12), (1.0, 0.98, 0.78))

PSNR_LIMIT = 100.0


def to_uint8(values: Float[Tensor, "*s"]) -> UInt8[Tensor, "*s"]:
    """Values in [0, 1] as the nearest of 256 levels; values outside are clipped, NaN becomes 0."""
    return (values.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def extended(image: Float[Tensor, "c h w"], solid: Bool[Tensor, "h w"], by: int) -> Float[Tensor, "c h w"]:
    """An image whose solid pixels go on `by` pixels further, each time as the mean of those next to them."""
    known = solid.to(image.dtype)[None]
    for _ in range(by):
        *values, share = F.avg_pool2d(torch.cat([image * known, known])[None], 3, 1, 1)[0]
        fresh = (share > 0) & (known == 0)
        image = torch.where(fresh, torch.stack(values) / share, image)
        known = known + fresh
    return image


def mean_squared_error(
    a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """Mean of the squared differences over all channels of the pixels in the mask; NaN where the mask is empty."""
    error = (a.double() - b.double()) ** 2
    return float(error.mean() if mask is None else error[mask].mean())


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio, -10 log10(mse) [dB] for a peak of 1, at most `PSNR_LIMIT` (equal images)."""
    return PSNR_LIMIT if mse <= 0 else min(-10 * math.log10(mse), PSNR_LIMIT)


def colorise(
    values: Float[Tensor, "*s"], low: float, high: float, anchors: Anchors = SPECTRUM
) -> Float[Tensor, "*s 3"]:
    """Colors of values: `low` and below have the first, `high` and above the last anchor's, NaN the first's."""
    table = torch.tensor(anchors, device=values.device, dtype=values.dtype)
    span = high - low if high > low else 1.0
    place = ((values - low) / span).nan_to_num(0.0).clamp(0, 1) * (len(anchors) - 1)
    left = place.floor().long().clamp(max=len(anchors) - 2)
    return torch.lerp(table[left], table[left + 1], (place - left)[..., None])


def sinebow(turns: Float[Tensor, "*s"]) -> Float[Tensor, "*s 3"]:
    """Colors that come round with every whole turn: sin^2(pi (a - turns)) for a = 3/6, 5/6 and 7/6; NaN is no turn."""
    phase = torch.tensor([3 / 6, 5 / 6, 7 / 6], device=turns.device, dtype=turns.dtype)
    return (math.pi * (phase - turns.nan_to_num(0.0, 0.0, 0.0)[..., None])).sin() ** 2


def quantile_range(values: Float[Tensor, " n"], low: float = 0.02, high: float = 0.98) -> tuple[float, float]:
    """The quantiles between which a color map is spread; (0, 1) where there are no finite values."""
    finite = values[values.isfinite()].cpu().double().numpy()
    if finite.size == 0:
        return 0.0, 1.0
    first, last = np.quantile(finite, [low, high])
    return float(first), float(last)


def write_png(path: Path, pixels: UInt8[Tensor, "h w 3"] | UInt8[Tensor, "h w"]) -> None:
    """A color or gray image as PNG; raises `DataError` where `path` cannot be written."""
    with replacing(path) as temporary:
        Image.fromarray(pixels.cpu().numpy()).save(temporary, format="png")


def write_npy(path: Path, values: Float[Tensor, "h w"]) -> None:
    """Float32 values as NumPy's own format."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, values.cpu().float().numpy(), allow_pickle=False)


def write_bytes(path: Path, values: Float[Tensor, "h w"]) -> None:
    """Little-endian float32 values without a header, row after row from the top."""
    with replacing(path) as temporary:
        temporary.write_bytes(values.cpu().numpy().astype("<f4").tobytes())


def write_pfm(path: Path, values: Float[Tensor, "h w"] | Float[Tensor, "h w 3"]) -> None:
    """A portable float map, gray (`Pf`) or color (`PF`): little-endian float32, the bottom row first."""
    array = values.cpu().numpy().astype("<f4")
    header = f"{'Pf' if array.ndim == 2 else 'PF'}\n{array.shape[1]} {array.shape[0]}\n-1.000000\n"
    with replacing(path) as temporary:
        temporary.write_bytes(header.encode("ascii") + array[::-1].tobytes())


def read_pfm(path: Path) -> Float[Tensor, "h w"] | Float[Tensor, "h w 3"]:
    """The values of a portable float map of either byte order; raises `DataError` for a file that is none."""
    kind, size, scale, body = _pfm_parts(path)
    channels = {b"Pf": 1, b"PF": 3}.get(kind)
    if channels is None:
        raise DataError(path, "first line", repr(kind[:20])[1:], "'Pf' or 'PF'", "give a portable float map")
    width, height, order = _pfm_layout(path, size, scale)
    expected = width * height * channels * 4
    if len(body) != expected:
        raise DataError(path, "data", f"{len(body)} bytes long", f"{expected} bytes", "write the file again")
    array = np.frombuffer(body, f"{order}f4").reshape(height, width, channels)[::-1]
    return torch.from_numpy(array.astype(np.float32)).squeeze(-1)


def _pfm_parts(path: Path) -> tuple[bytes, bytes, bytes, bytes]:
    try:
        kind, size, scale, body = path.read_bytes().split(b"\n", 3)
    except FileNotFoundError as error:
        raise DataError(path, "file", "missing", "a portable float map", "correct the path") from error
    except ValueError as error:
        raise DataError(path, "header", "cut short", "three lines before the data", "write the file again") from error
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
