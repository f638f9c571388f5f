"""Appearance embeddings of a run by name of a training image, and interpolated along a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.errors import DataError

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun


def embedding_table(run: LoadedRun) -> Float[Tensor, "n e"]:
    """Appearance embedding of each training image; raises `DataError` if the method has none."""
    found = run.method.appearance_embeddings
    if found is None:
        fix = "use mean or affine, or train nerf-w"
        raise DataError(run.folder, "method", "no appearance embeddings", "a method that learns them", fix)
    return found.detach()


def embedding_of(run: LoadedRun, name: str) -> Float[Tensor, " e"]:
    """Embedding of a training image, by name with or without folder and extension, or their mean."""
    rows = embedding_table(run)
    return rows.mean(0) if name == "mean" else rows[image_index(run, name)]


def image_index(run: LoadedRun, name: str) -> int:
    """Index of a training image by name, with or without folder and extension."""
    names = run.scenes["train"].names
    found = [row for row, own in enumerate(names) if name in (own, Path(own).name, Path(own).stem)]
    if len(found) != 1:
        problem = "the name of several images" if found else "no training image"
        expected = f"mean, nearest, or a name such as {Path(names[0]).name}"
        raise DataError(run.folder, f"appearance {name!r}", problem, expected, "name a training image")
    return found[0]


def interpolate_embeddings(run: LoadedRun, names: Sequence[str], frames: int) -> Float[Tensor, "{frames} e"] | None:
    """Embeddings along a path, interpolated linearly between those of named images; None without names (mean)."""
    if not names:
        return None
    rows = torch.stack([embedding_of(run, name) for name in names])
    place = torch.linspace(0, len(rows) - 1, frames, device=rows.device)
    low = place.long().clamp(max=max(len(rows) - 2, 0))
    high = (low + 1).clamp(max=len(rows) - 1)
    return torch.lerp(rows[low], rows[high], (place - low)[:, None])
