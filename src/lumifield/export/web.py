"""The page: baked voxels, a shader that marches through them and controls, in one HTML file that asks for nothing."""

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
from lumifield.export import Progress, Web
from lumifield.export.bake import BRICK, Baked, bake
from lumifield.export.voxels import Voxels, cells_at
from lumifield.geometry.poses import estimate_up
from lumifield.rendering.camera_paths import overview, subject
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.config import to_plain
from lumifield.runtime.files import check_output, replacing

VALUE_SCALE, SLOPE_SCALE = 128, 256
"""Light is stored as whole multiples of 1 / 128 from -0.5 to 1.49, its slopes as those of 1 / 256 below one half."""


def write(settings: Web, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
    """Bakes a run and writes its page; raises `DataError` before the work where `out` cannot become a page."""
    check_output(out, (".html",), ".html")
    page = page_of(bake(settings, run, progress), run.scenes["train"])
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def page_of(baked: Baked, scene: Scene) -> str:
    """The page; all that it needs is inside."""
    bricks = occupied_bricks(baked.voxels)
    numbers = quantized(baked)[brick_rows(baked.voxels, bricks)]
    # Channel by channel, brick by brick: like stands beside like, which packs better.
    content = gzip.compress(distances(bricks).tobytes() + numbers.permute(2, 0, 1).numpy().tobytes(), mtime=0)
    parts = {
        "about": json.dumps(about(baked, scene, len(numbers)), allow_nan=False),
        "march": part("march.frag"),
        "viewer": part("viewer.js"),
        "voxels": base64.b64encode(content).decode("ascii"),
    }
    page = part("page.html")
    for name, text in parts.items():
        page = page.replace("{{" + name + "}}", text)
    return page


def part(name: str) -> str:
    """A file of the page."""
    return files("lumifield.export").joinpath("page", name).read_text(encoding="utf-8")


def about(baked: Baked, scene: Scene, bricks: int) -> dict[str, Any]:
    """What the page has to know beside the voxels: where they are, and the camera to begin with, in the world frame."""
    lattice, frame, first = baked.voxels.lattice, scene.frame, overview(scene)
    distance = (subject(scene) - first.positions[0]).norm()
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
    """The bricks with a cell that has matter at a corner."""
    cells = cells_at(voxels.row > 0).float()[None, None]
    return F.max_pool3d(cells, BRICK)[0, 0] > 0


def brick_rows(voxels: Voxels, bricks: Bool[Tensor, "b b b"]) -> Int[Tensor, "n 512"]:
    """The rows of the first corners of each brick's cells, in the order of the bricks that are set.

    The last corners of the lattice belong to no brick: there matter fades within the last cell.
    """
    side = voxels.lattice.side
    split = voxels.row[:side, :side, :side].reshape(*(part for count in bricks.shape for part in (count, BRICK)))
    return split.permute(0, 2, 4, 1, 3, 5)[bricks].flatten(1).long()


def distances(bricks: Bool[Tensor, "b b b"]) -> UInt8[np.ndarray, "b b b"]:
    """How many bricks away the nearest one that is set is, in the maximum norm."""
    return np.asarray(distance_transform_cdt(~bricks.numpy(), "chessboard"), np.uint8)


def quantized(baked: Baked) -> UInt8[Tensor, "v 13"]:
    """Alpha, value and slopes of each row in 8 bits; negative numbers as in two's complement, empty space as zeros."""
    alpha = baked.voxels.alpha[:, None] * 255
    value = (baked.light[:, 0] * VALUE_SCALE).clamp(-64, 191)
    slopes = (baked.light[:, 1:].flatten(1) * SLOPE_SCALE).clamp(-128, 127)
    return torch.cat([alpha, value, slopes], -1).round().int().remainder(256).byte()
