"""Captures of sculptures with their silhouettes, in the layouts of DTU and of NLR."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import asin, radians, sqrt, tan
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float, UInt8

from lumifield.synthetic import Captures, Progress
from lumifield.synthetic.mesh import mesh, write_mesh
from lumifield.synthetic.sculptures import sculpture
from lumifield.synthetic.stage import Stage, pack
from lumifield.synthetic.tracer import render_image
from lumifield.synthetic.views import DISTANCE, View, looking
from lumifield.synthetic.writers import save

# The sphere of an object fills the shorter side of an image; it is this much larger than the object.
HALF_ANGLE, MARGIN = asin(1 / DISTANCE), 1.05
# Sines of the lowest and the highest elevation of the cameras; the share of a turn between cameras next to each other.
HEIGHTS, TURN = (-0.2, 0.85), 0.6180339887498949


@dataclass(frozen=True)
class Subject:
    """An object and the sphere that holds it, in the world."""

    stage: Stage
    center: Float[np.ndarray, "3"]
    radius: float


def write_captures(settings: Captures, folder: Path, progress: Progress) -> None:
    """The capture of one object, or a folder for each of several."""
    for index in range(settings.objects):
        place = folder if settings.objects == 1 else folder / f"{index:04d}"
        one = subject(settings, index)
        shots = views(settings, index, one)
        for number, pixels in enumerate(_taken(settings, one, shots)):
            _write_image(settings, place, number, pixels)
            progress(index * len(shots) + number + 1, settings.objects * len(shots))
        if settings.format == "dtu":
            _write_matrices(place, shots, one)
        else:
            _write_calibration(place, shots)
        _write_splits(settings, place)
        (place / "ground_truth").mkdir()
        write_mesh(place / "ground_truth/mesh.ply", one.stage)


def subject(settings: Captures, index: int) -> Subject:
    """The object of an index; it does not depend on how many others there are."""
    stage = sculpture(np.random.default_rng([settings.seed, index]))
    vertices = mesh(stage).vertices
    center = (vertices.min(0) + vertices.max(0)) / 2
    return Subject(stage, center, MARGIN * float(np.linalg.norm(vertices - center, axis=1).max()))


def views(settings: Captures, index: int, one: Subject) -> list[View]:
    """Cameras that look at the middle of the object: those of each split spread evenly over the arc."""
    rng = np.random.default_rng([settings.seed, index, 1])
    places = []
    for count in (settings.train, settings.val, settings.test):
        number, shift = np.arange(count), rng.uniform(size=2)
        places += np.stack([(number + 0.5) / count + shift[0], number * TURN + shift[1]], -1).tolist() if count else []
    return [_view(settings, one, number, *place) for number, place in enumerate(places)]


def _view(settings: Captures, one: Subject, number: int, around: float, up: float) -> View:
    """The camera at parts of the arc and of the heights. In NLR's layout every other image is narrow and small."""
    azimuth, height = radians(settings.arc) * (around % 1 - 0.5), HEIGHTS[0] + (HEIGHTS[1] - HEIGHTS[0]) * (up % 1)
    level = sqrt(1 - height * height)
    offset = DISTANCE * one.radius * np.array([level * np.cos(azimuth), level * np.sin(azimuth), height])
    width, tall = settings.size, settings.size
    if settings.format == "nlr" and number % 2:
        width, tall = settings.size // 2, settings.size * 3 // 4
    return View(looking(one.center + offset, one.center), width / 2 / tan(HALF_ANGLE), width, tall)


def _taken(settings: Captures, one: Subject, shots: list[View]) -> Iterator[UInt8[np.ndarray, "h w 4"]]:
    scene = pack(one.stage)
    for number, view in enumerate(shots):
        yield render_image(scene, view, settings.samples, settings.seed * 1_000_003 + number)


def _write_image(settings: Captures, folder: Path, number: int, pixels: UInt8[np.ndarray, "h w 4"]) -> None:
    """The object alone, and its silhouette: a hard one for DTU, for NLR with the shares of its edges."""
    shown, alpha = pixels[..., :3], pixels[..., 3]
    if settings.format == "dtu":
        save(folder / f"image/{number:06d}.png", shown)
        save(folder / f"mask/{number:03d}.png", np.where(alpha >= 128, 255, 0).astype(np.uint8))
    else:
        save(folder / f"rgb/{number:03d}_rgb.png", shown)
        save(folder / f"mattes/{number:03d}_mask.png", alpha)


def _write_matrices(folder: Path, shots: list[View], one: Subject) -> None:
    matrices, sphere = {}, np.diag([one.radius, one.radius, one.radius, 1.0])
    sphere[:3, 3] = one.center
    for number, view in enumerate(shots):
        lens = np.eye(4)
        lens[:3, :3] = _lens(view)
        matrices |= {f"world_mat_{number}": lens @ _inverse(view), f"scale_mat_{number}": sphere}
    np.savez(folder / "cameras_sphere.npz", **matrices)


def _write_calibration(folder: Path, shots: list[View]) -> None:
    content = {
        f"{number:03d}": {"intrinsics": {"camera_matrix": _lens(view).tolist()}, "extrinsics": _inverse(view).tolist()}
        for number, view in enumerate(shots)
    }
    (folder / "calib_export.yaml").write_text(yaml.safe_dump(content, default_flow_style=None))


def _write_splits(settings: Captures, folder: Path) -> None:
    """`splits.json`: the names of the images of each split, the training ones first."""
    name = "{:06d}" if settings.format == "dtu" else "{:03d}_rgb"
    ends = np.cumsum([0, settings.train, settings.val, settings.test]).tolist()
    spans = zip(("train", "val", "test"), pairwise(ends), strict=True)
    named = {split: [name.format(number) for number in range(*span)] for split, span in spans}
    (folder / "splits.json").write_text(json.dumps(named, indent=1))


def _lens(view: View) -> Float[np.ndarray, "3 3"]:
    """The matrix to pixels whose centers are whole numbers."""
    across, down = (view.width - 1) / 2, (view.height - 1) / 2
    return np.array([[view.focal, 0, across], [0, view.focal, down], [0, 0, 1]])


def _inverse(view: View) -> Float[np.ndarray, "4 4"]:
    """From the world to the camera."""
    return np.linalg.inv(np.concatenate([view.c2w, [[0.0, 0.0, 0.0, 1.0]]]))
