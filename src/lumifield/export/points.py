"""Point cloud export: surface points of the training views with colors and normals."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.export import PointsExport, Progress
from lumifield.geometry.rays import image_rays
from lumifield.rendering.view import Normals, RenderedView, render_view
from lumifield.runtime.files import check_output, replacing
from lumifield.runtime.image_io import to_uint8

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

MIN_POINT_OPACITY = 0.9
"""Minimum opacity of a pixel: silhouette edges are half transparent, and their depth lies between front and back."""
MIN_COSINE = 0.1
"""Minimum cosine between normal and viewing direction."""
POINT_DTYPE = [("position", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)]
FLOAT_PROPERTIES, BYTE_PROPERTIES = ("x", "y", "z", "nx", "ny", "nz"), ("red", "green", "blue")


def export_points(settings: PointsExport, run: LoadedRun, out: Path, progress: Progress | None) -> None:
    """Renders the training views and writes the surface points of their pixels."""
    check_output(out, (".ply",), ".ply")
    scene = run.scenes["train"].without_images()
    normals = Normals.for_training_scene(scene, settings.normals)
    max_view_points = ceil(settings.num_points / max(len(scene), 1))
    views = []
    for index in range(len(scene)):
        view = render_view(run.method, scene, index, device=run.device, chunk=run.chunk, normals=normals)
        views.append(extract_view_points(view, scene, index, max_view_points))
        if progress is not None:
            progress(index + 1, len(scene))
    points = np.concatenate([np.empty(0, POINT_DTYPE), *views])
    if len(points) == 0:
        found, fix = "no surface in any training view", "train longer"
        raise DataError(run.folder, "scene", found, "opaque surfaces", fix)
    write_ply(points, out)


def extract_view_points(view: RenderedView, scene: Scene, index: int, max_points: int) -> np.ndarray:
    """Surface points of one view in world coordinates, at most `max_points`, evenly spaced over the pixels."""
    assert view.normal is not None
    rays = image_rays(scene.cameras, index, scene.near, scene.far).to("cpu")
    distance, normal = view.depth.reshape(-1), view.normal.reshape(-1, 3)
    position = scene.frame.to_world(rays.origins + distance[:, None] / scene.frame.scale * rays.directions)
    cosine = -(normal * (rays.directions @ scene.frame.rotation.T)).sum(-1)
    is_opaque = view.opacity.reshape(-1) > MIN_POINT_OPACITY
    row = (is_opaque & (cosine > MIN_COSINE) & position.isfinite().all(-1)).nonzero()[:, 0]
    if len(row) > max_points:
        row = row[torch.arange(max_points) * len(row) // max_points]
    return pack_points(position[row], normal[row], to_uint8(view.rgb.reshape(-1, 3)[row]))


def pack_points(
    position: Float[Tensor, "p 3"], normal: Float[Tensor, "p 3"], color: UInt8[Tensor, "p 3"]
) -> np.ndarray:
    """Points as a structured array of `POINT_DTYPE`."""
    points = np.empty(len(position), POINT_DTYPE)
    points["position"], points["normal"], points["color"] = position.numpy(), normal.numpy(), color.numpy()
    return points


def write_ply(points: np.ndarray, out: Path) -> None:
    """Writes a binary PLY file."""
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property float {name}" for name in FLOAT_PROPERTIES]
    lines += [f"property uchar {name}" for name in BYTE_PROPERTIES]
    header = "\n".join([*lines, "end_header", ""])
    with replacing(out) as temporary:
        temporary.write_bytes(header.encode("ascii") + points.tobytes())
