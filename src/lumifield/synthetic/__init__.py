"""Synthetic datasets: path-traced procedural scenes with exact ground truth, in the formats of public datasets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lumifield.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StillLife:
    """A path-traced still life: fruit, a vase, a bowl, wooden boxes and golden rings on a round table.

    In `blender` and its multiscale variant `multicam` the background is transparent. `llff` shows the table before a
    wall from a forward-facing grid of cameras; every eighth image is a test view.
    """

    image_width: int = 160
    """Image width [pixels]; images are square, or 4:3 for llff."""
    num_train: int = 60
    """Number of training views."""
    num_val: int = 8
    """Number of validation views."""
    num_test: int = 16
    """Number of test views, on an orbit around the table."""
    samples_per_pixel: int = 24
    """Light paths per pixel."""
    seed: int = 0
    """Seed of the camera azimuths and the rendering noise."""
    format: Literal["blender", "multicam", "llff"] = "blender"
    """Dataset format."""
    ground_truth: bool = True
    """Write depth, normals and masks of the validation and test views, and the mesh."""
    ground_truth_train: bool = False
    """Also write depth, normals and masks of the training views."""


@dataclass(frozen=True)
class Tourists:
    """Tourist photos of the still life before its wall for training, and clean images for testing.

    Training images vary in exposure, tint and daylight, and many are occluded by a person. `phototourism` has one focal
    length per image, `cambridge` radial distortion, `seven_scenes` depth.
    """

    image_width: int = 160
    """Image width [pixels]; images are 4:3."""
    num_train: int = 60
    """Number of training views."""
    num_test: int = 12
    """Number of clean test views."""
    samples_per_pixel: int = 24
    """Light paths per pixel."""
    seed: int = 0
    """Seed of poses, colors, occluders and rendering noise."""
    format: Literal["phototourism", "cambridge", "seven_scenes"] = "phototourism"
    """Dataset format."""


@dataclass(frozen=True)
class ObjectCategory:
    """Objects of one category with random shapes and colors, in learnit's ShapeNet format, for meta-learning."""

    category: Literal["cars", "chairs", "lamps"] = "chairs"
    """Category of the objects."""
    image_width: int = 64
    """Image width and height [pixels]."""
    num_train: int = 48
    """Number of training objects."""
    num_val: int = 4
    """Number of validation objects."""
    num_test: int = 8
    """Number of test objects."""
    num_views: int = 50
    """Number of views per object, at random positions on a sphere."""
    samples_per_pixel: int = 16
    """Light paths per pixel."""
    seed: int = 0
    """Seed of shapes, colors, poses and rendering noise."""


@dataclass(frozen=True)
class ObjectCaptures:
    """Captures of sculptures with high-contrast textures and object masks, from all sides or from an arc.

    `dtu` stores a normalization matrix and binary masks; `nlr` stores neither, and images of two sizes.
    `ground_truth/mesh.ply` holds the surfaces.
    """

    num_objects: int = 1
    """Number of objects; several are written to one folder per object."""
    image_width: int = 64
    """Image width and height [pixels]; in nlr, every second image is narrower and smaller."""
    num_train: int = 8
    """Number of training views per object."""
    num_val: int = 4
    """Number of validation views per object."""
    num_test: int = 8
    """Number of test views per object."""
    azimuth_range: float = 360.0
    """Arc of the camera positions around the object [degrees]."""
    samples_per_pixel: int = 64
    """Light paths per pixel."""
    seed: int = 0
    """Seed of shapes, colors, poses and rendering noise."""
    format: Literal["dtu", "nlr"] = "dtu"
    """Dataset format."""


@dataclass(frozen=True)
class FlowPairs:
    """Image pairs with exact optical flow: flat shapes that fly over a background, for pre-training image features."""

    num_pairs: int = 100
    """Number of image pairs."""
    image_width: int = 256
    """Image width [pixels]; images are 4:3."""
    seed: int = 0
    """Seed of shapes, colors and motion."""
    format: Literal["flying_chairs_2", "flying_chairs"] = "flying_chairs_2"
    """Dataset format: forward and backward flow with occlusion masks, or forward flow only."""


DatasetSettings = StillLife | Tourists | ObjectCategory | ObjectCaptures | FlowPairs


COMMAND_NAMES = {
    StillLife: "still-life",
    Tourists: "tourists",
    ObjectCategory: "object-category",
    ObjectCaptures: "object-captures",
    FlowPairs: "flow-pairs",
}


def synthesize_data(settings: DatasetSettings, out: str | os.PathLike[str], progress: Progress | None = None) -> None:
    """Generates a synthetic dataset in the new folder `out`, which appears only once it is complete.

    `progress` is called with the number of images done and in total. Raises `DataError` for settings out of range, and
    if `out` is not empty or not writable.
    """
    # Imported here because compiled code takes a second to import, which the command line should not wait for.
    from lumifield.runtime.folders import fresh_folder
    from lumifield.synthetic import (
        object_captures,
        object_categories,
        optical_flow_pairs,
        still_life_writers,
        tourist_writers,
    )

    validate_settings(settings)
    report_progress = progress or (lambda done, total: None)
    with fresh_folder(Path(out)) as folder:
        match settings:
            case StillLife(format="blender"):
                still_life_writers.write_blender(settings, folder, report_progress)
            case StillLife(format="multicam"):
                still_life_writers.write_multicam(settings, folder, report_progress)
            case StillLife():
                still_life_writers.write_llff(settings, folder, report_progress)
            case Tourists(format="phototourism"):
                tourist_writers.write_phototourism(settings, folder, report_progress)
            case Tourists(format="cambridge"):
                tourist_writers.write_cambridge(settings, folder, report_progress)
            case Tourists():
                tourist_writers.write_seven_scenes(settings, folder, report_progress)
            case ObjectCategory():
                object_categories.write_object_category(settings, folder, report_progress)
            case ObjectCaptures():
                object_captures.write_object_captures(settings, folder, report_progress)
            case FlowPairs():
                optical_flow_pairs.write_flow_pairs(settings, folder, report_progress)


def validate_settings(settings: DatasetSettings) -> None:
    """Raises `DataError` for settings out of range."""
    command = f"synthesize-data {COMMAND_NAMES[type(settings)]}"
    divisor = 8 if isinstance(settings, StillLife) and settings.format == "multicam" else 4
    width = settings.image_width
    if width < divisor or width % divisor:
        raise DataError(command, "image_width", str(width), f"a positive multiple of {divisor}", "choose another width")
    # Triangulation of a landmark takes at least two views.
    min_train = 2 if isinstance(settings, Tourists) else 1
    minimums = {"num_train": min_train, "num_val": 0, "num_test": 0, "num_views": 1}
    minimums |= {"samples_per_pixel": 1, "num_objects": 1, "num_pairs": 1}
    for field, minimum in minimums.items():
        value = getattr(settings, field, minimum)
        if value < minimum:
            raise DataError(command, field, str(value), f"at least {minimum}", f"increase {field}")
    if isinstance(settings, ObjectCaptures) and not 0 < settings.azimuth_range <= 360:
        found = f"{settings.azimuth_range:g}"
        raise DataError(command, "azimuth_range", found, "above 0 and at most 360", "choose another range")
