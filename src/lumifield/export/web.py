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
from lumifield.export.baking import BRICK, Baked, bake_voxels
from lumifield.export.voxel_grid import Voxels, cells_with_corners
from lumifield.geometry.poses import estimate_up
from lumifield.rendering.camera_paths import overview_camera, scene_focus
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.config import to_plain
from lumifield.runtime.files import check_output, replacing

VALUE_SCALE, SLOPE_SCALE = 128, 256
"""Values are stored in multiples of 1 / 128 from -0.5 to 1.49, derivatives in multiples of 1 / 256 below 0.5."""


def write_web(settings: WebExport, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
    """Bakes a run and writes its page; raises `DataError` early if `out` is not a page."""
    check_output(out, (".html",), ".html")
    page = build_page(bake_voxels(settings, run, progress), run.scenes["train"])
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def build_page(baked: Baked, scene: Scene) -> str:
    """The self-contained page."""
    bricks = occupied_bricks(baked.voxels)
    numbers = quantize_voxels(baked)[brick_rows(baked.voxels, bricks)]
    # Channel by channel and brick by brick, because similar values compress better next to each other.
    content = gzip.compress(brick_distances(bricks).tobytes() + numbers.permute(2, 0, 1).numpy().tobytes(), mtime=0)
    parts = {
        "about": json.dumps(page_metadata(baked, scene, len(numbers)), allow_nan=False),
        "march": read_page_part("march.frag"),
        "viewer": read_page_part("viewer.js"),
        "voxels": base64.b64encode(content).decode("ascii"),
    }
    page = read_page_part("page.html")
    for name, text in parts.items():
        page = page.replace("{{" + name + "}}", text)
    return page


def read_page_part(name: str) -> str:
    """A source file of the page."""
    return files("lumifield.export").joinpath("page", name).read_text(encoding="utf-8")


def page_metadata(baked: Baked, scene: Scene, bricks: int) -> dict[str, Any]:
    """Metadata of the voxels and the initial camera in world coordinates."""
    lattice, frame, first = baked.voxels.lattice, scene.frame, overview_camera(scene)
    distance = (scene_focus(scene) - first.positions[0]).norm()
    ndc = None if scene.ndc is None else to_plain(scene.ndc)
    return {
        "side": lattice.side,
        "bricks": bricks,
        "box": lattice.space.box.tolist(),
        "contracted": lattice.space.contracted,
        "ndc": ndc,
        "near": float(scene.near.min()) if lattice.space.contracted or ndc else 0.0,
        "far": float(scene.far.max()),
        "step": lattice.step,
        "cone": lattice.cone,
        "background": background_color(scene.background).tolist(),
        "frame": {
            "rotation": frame.rotation.tolist(),
            "translation": frame.translation.tolist(),
            "scale": float(frame.scale),
        },
        "c2w": frame.poses_to_world(first.c2w)[0].tolist(),
        "focal": first.focal[0].tolist(),
        "size": first.size[0].tolist(),
        "up": (frame.rotation @ estimate_up(scene.cameras.c2w)).tolist(),
        "distance": float(distance * frame.scale),
    }


def occupied_bricks(voxels: Voxels) -> Bool[Tensor, "b b b"]:
    """Bricks with opacity at a corner of a cell."""
    cells = cells_with_corners(voxels.row > 0).float()[None, None]
    return F.max_pool3d(cells, BRICK)[0, 0] > 0


def brick_rows(voxels: Voxels, bricks: Bool[Tensor, "b b b"]) -> Int[Tensor, "n 512"]:
    """Rows of the first corners of the cells of each occupied brick, in order.

    The last corners of the grid belong to no brick: opacity fades within the last cell.
    """
    side = voxels.lattice.side
    split = voxels.row[:side, :side, :side].reshape(
        *(read_page_part for count in bricks.shape for read_page_part in (count, BRICK))
    )
    return split.permute(0, 2, 4, 1, 3, 5)[bricks].flatten(1).long()


def brick_distances(bricks: Bool[Tensor, "b b b"]) -> UInt8[np.ndarray, "b b b"]:
    """Distance to the nearest occupied brick in the maximum norm [bricks]."""
    return np.asarray(distance_transform_cdt(~bricks.numpy(), "chessboard"), np.uint8)


def quantize_voxels(baked: Baked) -> UInt8[Tensor, "v 13"]:
    """Alpha, value and derivatives of each row in 8 bits; negative values in two's complement, empty space zero."""
    alpha = baked.voxels.alpha[:, None] * 255
    value = (baked.light[:, 0] * VALUE_SCALE).clamp(-64, 191)
    slopes = (baked.light[:, 1:].flatten(1) * SLOPE_SCALE).clamp(-128, 127)
    return torch.cat([alpha, value, slopes], -1).round().int().remainder(256).byte()
