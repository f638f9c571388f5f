"""`export points`: what the training cameras see, as points with colors and normals."""

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
from lumifield.export import Points, Progress
from lumifield.geometry.rays import image_rays
from lumifield.rendering.view import Normals, View, render_view
from lumifield.runtime.files import check_output, replacing
from lumifield.runtime.image_io import to_uint8

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

# Rims of things are half transparent, and their depth lies between front and back: both are left out.
SURE, GRAZING = 0.9, 0.1
LAYOUT = [("place", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)]
FLOATS, BYTES = ("x", "y", "z", "nx", "ny", "nz"), ("red", "green", "blue")


def write(settings: Points, run: LoadedRun, out: Path, progress: Progress | None) -> None:
    """Renders the training views and writes the points that their pixels show."""
    check_output(out, (".ply",), ".ply")
    scene = run.scenes["train"].without_images()
    normals = Normals.learned_from(scene, settings.normals)
    share = ceil(settings.count / max(len(scene), 1))
    parts = []
    for index in range(len(scene)):
        view = render_view(run.method, scene, index, device=run.device, chunk=run.chunk, normals=normals)
        parts.append(seen_points(view, scene, index, share))
        if progress is not None:
            progress(index + 1, len(scene))
    points = np.concatenate([np.empty(0, LAYOUT), *parts])
    if len(points) == 0:
        found, fix = "transparent in every training view", "train longer"
        raise DataError(run.folder, "scene", found, "matter that stops the light", fix)
    save(points, out)


def seen_points(view: View, scene: Scene, index: int, most: int) -> np.ndarray:
    """At most so many points of one view, evenly spread over the pixels that see a surface, in world coordinates."""
    assert view.normal is not None
    rays = image_rays(scene.cameras, index, scene.near, scene.far).to("cpu")
    distance, normal = view.depth.reshape(-1), view.normal.reshape(-1, 3)
    place = scene.frame.to_world(rays.origins + distance[:, None] / scene.frame.scale * rays.directions)
    facing = -(normal * (rays.directions @ scene.frame.rotation.T)).sum(-1)
    sure = (view.opacity.reshape(-1) > SURE) & (facing > GRAZING) & place.isfinite().all(-1)
    row = sure.nonzero()[:, 0]
    if len(row) > most:
        row = row[torch.arange(most) * len(row) // most]
    return packed(place[row], normal[row], to_uint8(view.rgb.reshape(-1, 3)[row]))


def packed(place: Float[Tensor, "p 3"], normal: Float[Tensor, "p 3"], color: UInt8[Tensor, "p 3"]) -> np.ndarray:
    """Points as rows of the file."""
    rows = np.empty(len(place), LAYOUT)
    rows["place"], rows["normal"], rows["color"] = place.numpy(), normal.numpy(), color.numpy()
    return rows


def save(points: np.ndarray, out: Path) -> None:
    """A binary PLY file."""
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property float {name}" for name in FLOATS] + [f"property uchar {name}" for name in BYTES]
    header = "\n".join([*lines, "end_header", ""])
    with replacing(out) as temporary:
        temporary.write_bytes(header.encode("ascii") + points.tobytes())
