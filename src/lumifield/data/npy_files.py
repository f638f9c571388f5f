"""NumPy files with poses and bounds (LLFF, learnit)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lumifield.errors import DataError


def load_array(path: Path, what: str) -> Shaped[np.ndarray, "..."]:
    """The array of a `.npy` file; raises `DataError` if it is missing or contains Python objects."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(path, "file", "missing", what, "choose another format") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(path, "content", f"no array ({error})", "a NumPy array", "write the file again") from None


def validate_bounds(bounds: Float[np.ndarray, "n 2"], path: Path) -> Float[Tensor, "n 2"]:
    """Near and far depth of each image; raises `DataError` unless 0 < near < far."""
    for row, (near, far) in enumerate(bounds.tolist()):
        if not 0 < near < far < math.inf:
            found, expected = f"{near:g} and {far:g}", "0 < near < far"
            raise DataError(path, f"bounds in row {row}", found, expected, "correct the depths")
    return torch.from_numpy(bounds.copy())
