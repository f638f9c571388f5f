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


def table(run: LoadedRun) -> Float[Tensor, "n e"]:
    """The embedding of each image of the training; raises `DataError` where the method has none."""
    found = run.method.appearance_embeddings
    if found is None:
        fix = "choose mean or affine, or train nerf-w"
        raise DataError(run.folder, "method", "without embeddings of images", "one that learns them", fix)
    return found.detach()


def named(run: LoadedRun, name: str) -> Float[Tensor, " e"]:
    """The embedding of an image of the training, by its name with or without folder and ending, or their mean."""
    rows = table(run)
    return rows.mean(0) if name == "mean" else rows[photograph(run, name)]


def photograph(run: LoadedRun, name: str) -> int:
    """The place of an image in the training, by its name with or without folder and ending."""
    names = run.scenes["train"].names
    found = [row for row, own in enumerate(names) if name in (own, Path(own).name, Path(own).stem)]
    if len(found) != 1:
        told = "the name of several images" if found else "no image of the training"
        expected = f"mean, nearest, or a name such as {Path(names[0]).name}"
        raise DataError(run.folder, f"appearance {name!r}", told, expected, "name one")
    return found[0]


def along(run: LoadedRun, names: Sequence[str], frames: int) -> Float[Tensor, "{frames} e"] | None:
    """Embeddings of a path that leads evenly from one image's to the next; None without names: the mean."""
    if not names:
        return None
    rows = torch.stack([named(run, name) for name in names])
    place = torch.linspace(0, len(rows) - 1, frames, device=rows.device)
    low = place.long().clamp(max=max(len(rows) - 2, 0))
    high = (low + 1).clamp(max=len(rows) - 1)
    return torch.lerp(rows[low], rows[high], (place - low)[:, None])
