"""Optical flow files in the `.flo` format of Middlebury."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from lumifield.errors import DataError

# First number of a file.
MAGIC = 202021.25
HEAD = np.dtype([("magic", "<f4"), ("size", "<i4", 2)])


def read_flow(path: Path) -> Float[np.ndarray, "h w 2"]:
    """Displacement of each pixel [pixels], x first; raises `DataError` for a damaged file."""
    content = path.read_bytes()
    head = np.frombuffer(content[: HEAD.itemsize].ljust(HEAD.itemsize, b"\0"), HEAD)
    if head["magic"][0] != np.float32(MAGIC):
        raise DataError(
            path, "content", "another format", f"a .flo file, which begins with {MAGIC}", "copy the file again"
        )
    width, height = head["size"][0].tolist()
    if min(width, height) < 1 or len(content) != HEAD.itemsize + 8 * width * height:
        found, expected = f"{width}x{height} in {len(content)} bytes", "8 bytes per pixel after the first 12"
        raise DataError(path, "size", found, expected, "copy the file again")
    flow = np.frombuffer(content, "<f4", offset=HEAD.itemsize).reshape(height, width, 2).astype(np.float32)
    if not np.isfinite(flow).all():
        raise DataError(path, "flow", "NaN or infinity", "finite displacements", "copy the file again")
    return flow


def write_flow(path: Path, flow: Float[np.ndarray, "h w 2"]) -> None:
    """Writes a `.flo` file."""
    head = np.array([(MAGIC, flow.shape[1::-1])], HEAD)
    path.write_bytes(head.tobytes() + flow.astype("<f4").tobytes())
