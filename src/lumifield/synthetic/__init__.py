"""Procedural scenes with exact truth, their ray tracer, and writers for each on-disk format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lumifield.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StillLife:
    """A path-traced still life: fruit, a vase, a bowl, wooden boxes and golden rings on a round table.

    `blender` and its pyramid `multicam` have transparent surroundings; `llff` shows the table before a wall from a grid
    of cameras, every eighth of which is held out by those who read it.
    """

    size: int = 160
    """width of the pictures [pixels]; height too, but three quarters of it for llff"""
    train: int = 60
    """pictures to learn from"""
    val: int = 8
    """pictures to watch the training with"""
    test: int = 16
    """pictures to judge by, on a round about the table"""
    samples: int = 24
    """light paths per pixel"""
    seed: int = 0
    """turns the cameras and changes the noise"""
    format: Literal["blender", "multicam", "llff"] = "blender"
    """layout on disk"""
    truth: bool = True
    """write depth, normals, masks and mesh, for the val and test pictures"""
    truth_train: bool = False
    """write depth, normals and masks for the train pictures, too"""


def write(kind: StillLife, out: Path, progress: Progress | None = None) -> None:
    """Makes the scene in the new folder `out`, which appears when it is complete.

    `progress` is called with the number of pictures done and to do. Raises `DataError` for settings that make no
    scene, and where `out` is not empty or cannot be written.
    """
    # Here, because compiled code takes a second to import and the settings must not wait for it.
    from lumifield.synthetic import writers
    from lumifield.synthetic.folders import fresh_folder

    check(kind)
    report = progress or (lambda done, total: None)
    with fresh_folder(out) as folder:
        match kind.format:
            case "blender":
                writers.write_blender(kind, folder, report)
            case "multicam":
                writers.write_multicam(kind, folder, report)
            case "llff":
                writers.write_llff(kind, folder, report)


def check(kind: StillLife) -> None:
    """Raises `DataError` for settings that make no scene."""
    whole = 8 if kind.format == "multicam" else 4
    if kind.size < whole or kind.size % whole:
        raise DataError("still life", "size", str(kind.size), f"a positive multiple of {whole}", "choose another size")
    for field, least in (("train", 1), ("val", 0), ("test", 0), ("samples", 1)):
        if getattr(kind, field) < least:
            found = str(getattr(kind, field))
            raise DataError("still life", field, found, f"at least {least}", f"choose a larger {field}")
