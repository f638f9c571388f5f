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


@dataclass(frozen=True)
class Tourists:
    """Photographs of the still life before its wall as tourists take them, and undisturbed ones to judge by.

    The former vary in exposure, tint and daylight, and somebody often stands before the lens. `phototourism` has a
    focal length a photograph, `cambridge` radial distortion, `seven_scenes` depth.
    """

    size: int = 160
    """width of the pictures [pixels]; they are three quarters as high"""
    train: int = 60
    """pictures to learn from"""
    test: int = 12
    """undisturbed pictures to judge by"""
    samples: int = 24
    """light paths per pixel"""
    seed: int = 0
    """of places, colours, people and noise"""
    format: Literal["phototourism", "cambridge", "seven_scenes"] = "phototourism"
    """layout on disk"""


def write(kind: StillLife | Tourists, out: Path, progress: Progress | None = None) -> None:
    """Makes the scene in the new folder `out`, which appears when it is complete.

    `progress` is called with the number of pictures done and to do. Raises `DataError` for settings that make no
    scene, and where `out` is not empty or cannot be written.
    """
    # Here, because compiled code takes a second to import and the settings must not wait for it.
    from lumifield.synthetic import tourist_layouts, writers
    from lumifield.synthetic.folders import fresh_folder

    check(kind)
    report = progress or (lambda done, total: None)
    with fresh_folder(out) as folder:
        match kind:
            case StillLife(format="blender"):
                writers.write_blender(kind, folder, report)
            case StillLife(format="multicam"):
                writers.write_multicam(kind, folder, report)
            case StillLife():
                writers.write_llff(kind, folder, report)
            case Tourists(format="phototourism"):
                tourist_layouts.write_phototourism(kind, folder, report)
            case Tourists(format="cambridge"):
                tourist_layouts.write_cambridge(kind, folder, report)
            case Tourists():
                tourist_layouts.write_seven_scenes(kind, folder, report)


def check(kind: StillLife | Tourists) -> None:
    """Raises `DataError` for settings that make no scene."""
    name = "still life" if isinstance(kind, StillLife) else "tourists"
    whole = 8 if kind.format == "multicam" else 4
    if kind.size < whole or kind.size % whole:
        raise DataError(name, "size", str(kind.size), f"a positive multiple of {whole}", "choose another size")
    # Two photographs at least hold a point in place.
    fewest = 1 if isinstance(kind, StillLife) else 2
    for field, least in (("train", fewest), ("val", 0), ("test", 0), ("samples", 1)):
        if getattr(kind, field, least) < least:
            found = str(getattr(kind, field))
            raise DataError(name, field, found, f"at least {least}", f"choose a larger {field}")
