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

# Silhouette edges are half transparent, and their depth lies between front and back: they are left out.
MIN_POINT_OPACITY, GRAZING = 0.9, 0.1
LAYOUT = [("place", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)]
FLOATS, BYTES = ("x", "y", "z", "nx", "ny", "nz"), ("red", "green", "blue")


def write_points(settings: PointsExport, run: LoadedRun, out: Path, progress: Progress | None) -> None:
    """Renders the training views and writes the surface points of their pixels."""
    check_output(out, (".ply",), ".ply")
    scene = run.scenes["train"].without_images()
    normals = Normals.for_training_scene(scene, settings.normals)
    share = ceil(settings.num_points / max(len(scene), 1))
    parts = []
    for index in range(len(scene)):
        view = render_view(run.method, scene, index, device=run.device, chunk=run.chunk, normals=normals)
        parts.append(points_of_view(view, scene, index, share))
        if progress is not None:
            progress(index + 1, len(scene))
    points = np.concatenate([np.empty(0, LAYOUT), *parts])
    if len(points) == 0:
        found, fix = "no surface in any training view", "train longer"
        raise DataError(run.folder, "scene", found, "opaque surfaces", fix)
    write_ply(points, out)


def points_of_view(view: RenderedView, scene: Scene, index: int, most: int) -> np.ndarray:
    """Surface points of one view in world coordinates, at most `most`, evenly spaced over the pixels."""
    assert view.normal is not None
    rays = image_rays(scene.cameras, index, scene.near, scene.far).to("cpu")
    distance, normal = view.depth.reshape(-1), view.normal.reshape(-1, 3)
    place = scene.frame.to_world(rays.origins + distance[:, None] / scene.frame.scale * rays.directions)
    facing = -(normal * (rays.directions @ scene.frame.rotation.T)).sum(-1)
    sure = (view.opacity.reshape(-1) > MIN_POINT_OPACITY) & (facing > GRAZING) & place.isfinite().all(-1)
    row = sure.nonzero()[:, 0]
    if len(row) > most:
        row = row[torch.arange(most) * len(row) // most]
    return point_rows(place[row], normal[row], to_uint8(view.rgb.reshape(-1, 3)[row]))


def point_rows(place: Float[Tensor, "p 3"], normal: Float[Tensor, "p 3"], color: UInt8[Tensor, "p 3"]) -> np.ndarray:
    """Points as rows of the file."""
    rows = np.empty(len(place), LAYOUT)
    rows["place"], rows["normal"], rows["color"] = place.numpy(), normal.numpy(), color.numpy()
    return rows


def write_ply(points: np.ndarray, out: Path) -> None:
    """Writes a binary PLY file."""
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property float {name}" for name in FLOATS] + [f"property uchar {name}" for name in BYTES]
    header = "\n".join([*lines, "end_header", ""])
    with replacing(out) as temporary:
        temporary.write_bytes(header.encode("ascii") + points.tobytes())
