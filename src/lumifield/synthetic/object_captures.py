"""Captures of random sculptures with object masks, in the formats of DTU and NLR."""

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

from lumifield.synthetic import ObjectCaptures, Progress
from lumifield.synthetic.camera_placement import CAMERA_DISTANCE, SyntheticView, look_at_c2w
from lumifield.synthetic.path_tracer import render_image
from lumifield.synthetic.png_files import save_png
from lumifield.synthetic.scene_description import SyntheticScene, pack_scene
from lumifield.synthetic.scene_mesh import build_scene_mesh, write_scene_mesh
from lumifield.synthetic.sculptures import make_sculpture

# The bounding sphere of an object, enlarged by SPHERE_MARGIN, fills the shorter side of the image.
HALF_FOV, SPHERE_MARGIN = asin(1 / CAMERA_DISTANCE), 1.05
# Sines of the lowest and the highest elevation of the cameras, and their step as a fraction of this range.
ELEVATION_SINES, ELEVATION_STEP = (-0.2, 0.85), 0.6180339887498949


@dataclass(frozen=True)
class CapturedObject:
    """An object and its bounding sphere in world coordinates."""

    scene: SyntheticScene
    center: Float[np.ndarray, "3"]
    radius: float


def write_object_captures(settings: ObjectCaptures, folder: Path, progress: Progress) -> None:
    """Writes the capture of a single object, or one folder per object."""
    for index in range(settings.num_objects):
        object_folder = folder if settings.num_objects == 1 else folder / f"{index:04d}"
        captured = make_captured_object(settings, index)
        views = capture_views(settings, index, captured)
        for number, pixels in enumerate(_render_views(settings, captured, views)):
            _write_image(settings, object_folder, number, pixels)
            progress(index * len(views) + number + 1, settings.num_objects * len(views))
        if settings.format == "dtu":
            _write_dtu_cameras(object_folder, views, captured)
        else:
            _write_nlr_calibration(object_folder, views)
        _write_splits(settings, object_folder)
        (object_folder / "ground_truth").mkdir()
        write_scene_mesh(object_folder / "ground_truth/mesh.ply", captured.scene)


def make_captured_object(settings: ObjectCaptures, index: int) -> CapturedObject:
    """Object `index`, which does not depend on the number of objects."""
    scene = make_sculpture(np.random.default_rng([settings.seed, index]))
    vertices = build_scene_mesh(scene).vertices
    center = (vertices.min(0) + vertices.max(0)) / 2
    return CapturedObject(scene, center, SPHERE_MARGIN * float(np.linalg.norm(vertices - center, axis=1).max()))


def capture_views(settings: ObjectCaptures, index: int, captured: CapturedObject) -> list[SyntheticView]:
    """Cameras aimed at the center of the object; those of each split are evenly spread over the arc."""
    rng = np.random.default_rng([settings.seed, index, 1])
    positions = []
    for num_views in (settings.num_train, settings.num_val, settings.num_test):
        number, shift = np.arange(num_views), rng.uniform(size=2)
        if num_views:
            azimuths, elevations = (number + 0.5) / num_views + shift[0], number * ELEVATION_STEP + shift[1]
            positions += np.stack([azimuths, elevations], -1).tolist()
    return [_capture_view(settings, captured, number, *position) for number, position in enumerate(positions)]


def _capture_view(
    settings: ObjectCaptures, captured: CapturedObject, number: int, azimuth_fraction: float, elevation_fraction: float
) -> SyntheticView:
    """The camera at fractions of the arc and of the elevation range. In NLR, every second image is narrow and small."""
    azimuth = radians(settings.azimuth_range) * (azimuth_fraction % 1 - 0.5)
    lowest, highest = ELEVATION_SINES
    elevation_sine = lowest + (highest - lowest) * (elevation_fraction % 1)
    cosine = sqrt(1 - elevation_sine * elevation_sine)
    direction = np.array([cosine * np.cos(azimuth), cosine * np.sin(azimuth), elevation_sine])
    offset = CAMERA_DISTANCE * captured.radius * direction
    width, height = settings.image_width, settings.image_width
    if settings.format == "nlr" and number % 2:
        width, height = settings.image_width // 2, settings.image_width * 3 // 4
    c2w = look_at_c2w(captured.center + offset, captured.center)
    return SyntheticView(c2w, width / 2 / tan(HALF_FOV), width, height)


def _render_views(
    settings: ObjectCaptures, captured: CapturedObject, views: list[SyntheticView]
) -> Iterator[UInt8[np.ndarray, "h w 4"]]:
    packed = pack_scene(captured.scene)
    for number, view in enumerate(views):
        yield render_image(packed, view, settings.samples_per_pixel, settings.seed * 1_000_003 + number)


def _write_image(settings: ObjectCaptures, folder: Path, number: int, pixels: UInt8[np.ndarray, "h w 4"]) -> None:
    """Writes the RGB image and the object mask: binary for DTU, with fractional edge pixels for NLR."""
    rgb, alpha = pixels[..., :3], pixels[..., 3]
    if settings.format == "dtu":
        save_png(folder / f"image/{number:06d}.png", rgb)
        save_png(folder / f"mask/{number:03d}.png", np.where(alpha >= 128, 255, 0).astype(np.uint8))
    else:
        save_png(folder / f"rgb/{number:03d}_rgb.png", rgb)
        save_png(folder / f"mattes/{number:03d}_mask.png", alpha)


def _write_dtu_cameras(folder: Path, views: list[SyntheticView], captured: CapturedObject) -> None:
    matrices, sphere = {}, np.diag([captured.radius, captured.radius, captured.radius, 1.0])
    sphere[:3, 3] = captured.center
    for number, view in enumerate(views):
        intrinsics = np.eye(4)
        intrinsics[:3, :3] = _intrinsic_matrix(view)
        matrices |= {f"world_mat_{number}": intrinsics @ _world_to_camera(view), f"scale_mat_{number}": sphere}
    np.savez(folder / "cameras_sphere.npz", **matrices)


def _write_nlr_calibration(folder: Path, views: list[SyntheticView]) -> None:
    calibration = {
        f"{number:03d}": {
            "intrinsics": {"camera_matrix": _intrinsic_matrix(view).tolist()},
            "extrinsics": _world_to_camera(view).tolist(),
        }
        for number, view in enumerate(views)
    }
    (folder / "calib_export.yaml").write_text(yaml.safe_dump(calibration, default_flow_style=None))


def _write_splits(settings: ObjectCaptures, folder: Path) -> None:
    """Writes `splits.json`: the image names of each split, in the order train, val, test."""
    name = "{:06d}" if settings.format == "dtu" else "{:03d}_rgb"
    ends = np.cumsum([0, settings.num_train, settings.num_val, settings.num_test]).tolist()
    spans = zip(("train", "val", "test"), pairwise(ends), strict=True)
    splits = {split: [name.format(number) for number in range(*span)] for split, span in spans}
    (folder / "splits.json").write_text(json.dumps(splits, indent=1))


def _intrinsic_matrix(view: SyntheticView) -> Float[np.ndarray, "3 3"]:
    """The intrinsic matrix for pixel coordinates with integer pixel centers."""
    x, y = (view.width - 1) / 2, (view.height - 1) / 2
    return np.array([[view.focal, 0, x], [0, view.focal, y], [0, 0, 1]])


def _world_to_camera(view: SyntheticView) -> Float[np.ndarray, "4 4"]:
    return np.linalg.inv(np.concatenate([view.c2w, [[0.0, 0.0, 0.0, 1.0]]]))
