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
    """width of the images [pixels]; height too, but three quarters of it for llff"""
    train: int = 60
    """images to learn from"""
    val: int = 8
    """images to watch the training with"""
    test: int = 16
    """images to judge by, on a round about the table"""
    samples: int = 24
    """light paths per pixel"""
    seed: int = 0
    """turns the cameras and changes the noise"""
    format: Literal["blender", "multicam", "llff"] = "blender"
    """layout on disk"""
    ground_truth: bool = True
    """write depth, normals, masks and mesh, for the val and test images"""
    truth_train: bool = False
    """write depth, normals and masks for the train images, too"""


@dataclass(frozen=True)
class Tourists:
    """Images of the still life before its wall as tourists take them, and undisturbed ones to judge by.

    The former vary in exposure, tint and daylight, and somebody often stands before the lens. `phototourism` has a
    focal length an image, `cambridge` radial distortion, `seven_scenes` depth.
    """

    size: int = 160
    """width of the images [pixels]; they are three quarters as high"""
    train: int = 60
    """images to learn from"""
    test: int = 12
    """undisturbed images to judge by"""
    samples: int = 24
    """light paths per pixel"""
    seed: int = 0
    """of places, colors, people and noise"""
    format: Literal["phototourism", "cambridge", "seven_scenes"] = "phototourism"
    """layout on disk"""


@dataclass(frozen=True)
class Family:
    """Objects of one kind with random shapes and colors, in learnit's layout for ShapeNet: to learn a start from."""

    kind: Literal["cars", "chairs", "lamps"] = "chairs"
    """what they are"""
    size: int = 64
    """width and height of the images [pixels]"""
    train: int = 48
    """objects to learn from"""
    val: int = 4
    """objects to watch the learning with"""
    test: int = 8
    """objects to judge by"""
    views: int = 50
    """images of each object, from random places on a sphere"""
    samples: int = 16
    """light paths per pixel"""
    seed: int = 0
    """of shapes, colors, places and noise"""


@dataclass(frozen=True)
class Captures:
    """Sculptures of strong contrast with their silhouettes, photographed from all sides or from within an arc.

    `dtu` has a matrix of the unit sphere and hard silhouettes; `nlr` has neither, and images of two sizes.
    `ground_truth/mesh.ply` holds the surfaces.
    """

    objects: int = 1
    """how many; where there are several each has a folder"""
    size: int = 64
    """width and height of the images [pixels]; every other one of nlr is narrower and smaller"""
    train: int = 8
    """images of each object to learn from"""
    val: int = 4
    """images to watch the training with"""
    test: int = 8
    """images to judge by"""
    arc: float = 360.0
    """how far the cameras go round the object [degrees]"""
    samples: int = 64
    """light paths per pixel"""
    seed: int = 0
    """of shapes, colors, places and noise"""
    format: Literal["dtu", "nlr"] = "dtu"
    """layout on disk"""


@dataclass(frozen=True)
class FlowPairs:
    """Pairs of images with exact flow: flat shapes that fly before a backdrop, to pre-train features on."""

    pairs: int = 100
    """how many"""
    size: int = 256
    """width of the images [pixels]; they are three quarters as high"""
    seed: int = 0
    """of shapes, colors and motion"""
    format: Literal["flying_chairs_2", "flying_chairs"] = "flying_chairs_2"
    """layout on disk: flow both ways and what is hidden, or the flow forwards alone"""


Kind = StillLife | Tourists | Family | Captures | FlowPairs


NAMES = {
    StillLife: "still life",
    Tourists: "tourists",
    Family: "family",
    Captures: "captures",
    FlowPairs: "flow pairs",
}


def synthesize_data(kind: Kind, out: Path, progress: Progress | None = None) -> None:
    """Makes the scene in the new folder `out`, which appears when it is complete.

    `progress` is called with the number of images done and to do. Raises `DataError` for settings that make no
    scene, and where `out` is not empty or cannot be written.
    """
    # Here, because compiled code takes a second to import and the settings must not wait for it.
    from lumifield.runtime.folders import fresh_folder
    from lumifield.synthetic import captures, families, flying, tourist_layouts, writers

    validate_settings(kind)
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
            case Family():
                families.write_family(kind, folder, report)
            case Captures():
                captures.write_captures(kind, folder, report)
            case FlowPairs():
                flying.write_flow_pairs(kind, folder, report)


def validate_settings(kind: Kind) -> None:
    """Raises `DataError` for settings that make no scene."""
    name = NAMES[type(kind)]
    whole = 8 if isinstance(kind, StillLife) and kind.format == "multicam" else 4
    if kind.size < whole or kind.size % whole:
        raise DataError(name, "size", str(kind.size), f"a positive multiple of {whole}", "choose another size")
    # Two images at least hold a point in place.
    fewest = 2 if isinstance(kind, Tourists) else 1
    least_of = {"train": fewest, "val": 0, "test": 0, "views": 1, "samples": 1, "objects": 1, "pairs": 1}
    for field, least in least_of.items():
        if getattr(kind, field, least) < least:
            found = str(getattr(kind, field))
            raise DataError(name, field, found, f"at least {least}", f"choose a larger {field}")
    if isinstance(kind, Captures) and not 0 < kind.arc <= 360:
        raise DataError(name, "arc", f"{kind.arc:g}", "above 0 and at most 360", "choose another arc")
