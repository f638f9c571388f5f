"""Web page export: baked voxels, a ray marching shader and controls in one self-contained HTML file."""

from __future__ import annotations

import base64
import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from lumifield.data.scene import Scene, background_color
from lumifield.export import Progress, WebExport
from lumifield.export.voxel_baking import BRICK_SIZE, BakedVoxels, bake_voxels
from lumifield.export.voxel_grid import SparseVoxels
from lumifield.geometry.poses import estimate_up
from lumifield.rendering.camera_paths import overview_camera, scene_focus
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.config import to_plain
from lumifield.runtime.files import check_output, replacing

VALUE_SCALE, DERIVATIVE_SCALE = 128, 256
"""Values are stored in multiples of 1 / 128 from -0.5 to 1.49, derivatives in multiples of 1 / 256 below 0.5."""


def export_web_page(settings: WebExport, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
    """Bakes a run and writes its page; raises `DataError` before baking if `out` is not an HTML file."""
    check_output(out, (".html",), ".html")
    page = build_page(bake_voxels(settings, run, progress), run.scenes["train"])
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def build_page(baked: BakedVoxels, scene: Scene) -> str:
    """Source text of the self-contained page."""
    bricks = find_occupied_bricks(baked.voxels)
    values = quantize_voxels(baked)[brick_rows(baked.voxels, bricks)]
    # Channel by channel and brick by brick, because similar values compress better next to each other.
    content = gzip.compress(brick_distances(bricks).tobytes() + values.permute(2, 0, 1).numpy().tobytes(), mtime=0)
    contents = {
        "metadata": json.dumps(page_metadata(baked, scene, len(values)), allow_nan=False),
        "shader": read_page_source("ray_march.frag"),
        "viewer": read_page_source("viewer.js"),
        "voxels": base64.b64encode(content).decode("ascii"),
    }
    page = read_page_source("page.html")
    for name, text in contents.items():
        page = page.replace("{{" + name + "}}", text)
    return page


def read_page_source(name: str) -> str:
    """Text of a source file of the page."""
    return files("lumifield.export").joinpath("page", name).read_text(encoding="utf-8")


def page_metadata(baked: BakedVoxels, scene: Scene, num_bricks: int) -> dict[str, Any]:
    """Metadata of the voxels and the initial camera in world coordinates."""
    grid, frame, camera = baked.voxels.grid, scene.frame, overview_camera(scene)
    distance = (scene_focus(scene) - camera.positions[0]).norm()
    ndc = None if scene.ndc is None else to_plain(scene.ndc)
    return {
        "resolution": grid.resolution,
        "numBricks": num_bricks,
        "box": grid.scene_box.box.tolist(),
        "contracted": grid.scene_box.contracted,
        "ndc": ndc,
        "near": float(scene.near.min()) if grid.scene_box.contracted or ndc else 0.0,
        "far": float(scene.far.max()),
        "stepSize": grid.step_size,
        "coneAngle": grid.cone_angle,
        "background": background_color(scene.background).tolist(),
        "frame": {
            "rotation": frame.rotation.tolist(),
            "translation": frame.translation.tolist(),
            "scale": float(frame.scale),
        },
        "c2w": frame.poses_to_world(camera.c2w)[0].tolist(),
        "focal": camera.focal[0].tolist(),
        "size": camera.size[0].tolist(),
        "up": (frame.rotation @ estimate_up(scene.cameras.c2w)).tolist(),
        "distance": float(distance * frame.scale),
    }


def find_occupied_bricks(voxels: SparseVoxels) -> Bool[Tensor, "b b b"]:
    """Mask of the bricks with opacity at a corner of a cell."""
    cells = voxels.occupied_cells.float()[None, None]
    return F.max_pool3d(cells, BRICK_SIZE)[0, 0] > 0


def brick_rows(voxels: SparseVoxels, bricks: Bool[Tensor, "b b b"]) -> Int[Tensor, "n 512"]:
    """Rows of the first corners of the cells of each occupied brick, in order.

    The last corners of the grid belong to no brick: opacity fades within the last cell.
    """
    n, num_bricks = voxels.grid.resolution, len(bricks)
    blocks = voxels.row[:n, :n, :n].reshape(*(num_bricks, BRICK_SIZE) * 3)
    return blocks.permute(0, 2, 4, 1, 3, 5)[bricks].flatten(1).long()


def brick_distances(bricks: Bool[Tensor, "b b b"]) -> UInt8[np.ndarray, "b b b"]:
    """Distance to the nearest occupied brick in the maximum norm [bricks]."""
    return np.asarray(distance_transform_cdt(~bricks.numpy(), "chessboard"), np.uint8)


def quantize_voxels(baked: BakedVoxels) -> UInt8[Tensor, "v 13"]:
    """Alpha, value and derivatives of each row in 8 bits; negative values in two's complement, empty space zero."""
    alpha = baked.voxels.alpha[:, None] * 255
    values = (baked.coefficients[:, 0] * VALUE_SCALE).clamp(-64, 191)
    derivatives = (baked.coefficients[:, 1:].flatten(1) * DERIVATIVE_SCALE).clamp(-128, 127)
    return torch.cat([alpha, values, derivatives], -1).round().int().remainder(256).byte()
