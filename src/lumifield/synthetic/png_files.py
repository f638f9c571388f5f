"""PNG files of synthetic scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def save_png(path: Path, pixels: UInt8[np.ndarray, "h w *c"]) -> None:
    """Writes an 8-bit image and creates the folder that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
