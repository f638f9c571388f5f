"""Writes a synthetic scene: images, cameras in the files of each format, and ground truth in `ground_truth/`.

Files in `ground_truth/` are named like the images: `NAME_depth.npy` (float32 distance along the unit ray through each
pixel center, infinite for the background), `NAME_normal.npy` (float32, world axes, zero for the background) and
`NAME_mask.png` (object index, 0 for the background). `items.json` names the objects from 1 on, and `mesh.ply` holds
their surfaces.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from lumifield.synthetic import Progress, StillLife, still_life, views
from lumifield.synthetic.mesh import write_mesh
from lumifield.synthetic.pyramid import build_pyramid
from lumifield.synthetic.stage import Packed, Stage, pack
from lumifield.synthetic.tracer import render_ground_truth, render_image
from lumifield.synthetic.views import View

# A matrix with OpenGL axes (right, up, back) from one with OpenCV axes, and the other way about.
OPENGL = np.array([1.0, -1.0, -1.0, 1.0])
# Readers of LLFF hold out every eighth image, from the first.
HOLD_OUT = 8
BOUND_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True)
class Shot:
    """An image to take: its path without suffix, its camera, and the split that it belongs to."""

    name: str
    view: View
    split: str


def write_blender(settings: StillLife, folder: Path, progress: Progress) -> None:
    """The table in the layout of NeRF's Blender scenes: `transforms_SPLIT.json` and images with straight alpha."""
    stage = still_life.table()
    scene, shots = pack(stage), blender_shots(settings)
    for shot, pixels in taken(scene, shots, settings, progress):
        save(folder / f"{shot.name}.png", pixels)
    for split in ("train", "val", "test"):
        frames = [
            {"file_path": f"./{shot.name}", "transform_matrix": opengl(shot.view).tolist()}
            for shot in shots
            if shot.split == split
        ]
        text = json.dumps({"camera_angle_x": views.ANGLE, "frames": frames}, indent=1)
        (folder / f"transforms_{split}.json").write_text(text)
    write_ground_truth(folder / "ground_truth", stage, shots, settings)


def write_multicam(settings: StillLife, folder: Path, progress: Progress) -> None:
    """The pyramid of the Blender scene, as mip-NeRF uses it; the truth is that of each scale's own pixels."""
    with tempfile.TemporaryDirectory() as flat:
        write_blender(replace(settings, ground_truth=False), Path(flat), progress)
        build_pyramid(Path(flat), folder)
    columns_of = json.loads((folder / "metadata.json").read_text())
    shots = []
    for split, columns in columns_of.items():
        for row in range(len(columns["file_path"])):
            c2w = np.array(columns["cam2world"][row])[:3] * OPENGL
            view = View(c2w, columns["focal"][row], columns["width"][row], columns["height"][row])
            shots.append(Shot(columns["file_path"][row].removesuffix(".png"), view, split))
    write_ground_truth(folder / "ground_truth", still_life.table(), shots, settings)


def write_llff(settings: StillLife, folder: Path, progress: Progress) -> None:
    """The room in LLFF's layout: `images/` and `poses_bounds.npy`, one row of 17 numbers an image."""
    stage = still_life.room()
    scene = pack(stage)
    grid = views.grid(settings.train + settings.val + settings.test, settings.size)
    shots = [Shot(f"images/{i:03d}", view, "train" if i % HOLD_OUT else "test") for i, view in enumerate(grid)]
    for shot, pixels in taken(scene, shots, settings, progress):
        save(folder / f"{shot.name}.png", pixels[..., :3])
    np.save(folder / "poses_bounds.npy", np.stack([llff_row(scene, shot.view) for shot in shots]))
    write_ground_truth(folder / "ground_truth", stage, shots, settings)


def blender_shots(settings: StillLife) -> list[Shot]:
    """Train and val views from all sides, test views from one round; no two splits share a place."""
    turn = 2.4 * settings.seed
    splits = {
        "train": views.sphere(settings.train, turn, settings.size),
        "val": views.sphere(settings.val, turn + 1.1, settings.size),
        "test": views.orbit(settings.test, turn, settings.size),
    }
    return [Shot(f"{split}/r_{i}", view, split) for split, some in splits.items() for i, view in enumerate(some)]


def taken(
    scene: Packed, shots: list[Shot], settings: StillLife, progress: Progress
) -> Iterator[tuple[Shot, UInt8[np.ndarray, "h w 4"]]]:
    """The images, one after the other."""
    for i, shot in enumerate(shots):
        yield shot, render_image(scene, shot.view, settings.samples, settings.seed * 1_000_003 + i)
        progress(i + 1, len(shots))


def save(path: Path, pixels: UInt8[np.ndarray, "h w *c"]) -> None:
    """Writes a PNG, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def opengl(view: View) -> Float[np.ndarray, "4 4"]:
    """Camera to world for a camera with axes right, up, back."""
    return np.concatenate([view.c2w * OPENGL, [[0.0, 0.0, 0.0, 1.0]]])


def llff_row(scene: Packed, view: View) -> Float[np.ndarray, "17"]:
    """Columns down, right, back, position and (height, width, focal), row by row; then near and far [depth along the
    optical axis]: percentiles of what is seen."""
    right, down, forward, position = view.c2w.T
    pose = np.stack([down, right, -forward, position, (view.height, view.width, view.focal)], 1)
    depth = render_ground_truth(scene, view).depth * (view.rays() @ forward)
    return np.concatenate([pose.reshape(-1), np.percentile(depth, BOUND_PERCENTILES)])


def write_ground_truth(folder: Path, stage: Stage, shots: list[Shot], settings: StillLife) -> None:
    """What the pixels' centers see, for the images that the settings choose, and the items' names and mesh."""
    if not settings.ground_truth:
        return
    scene = pack(stage)
    for shot in shots:
        if shot.split == "train" and not settings.truth_train:
            continue
        seen = render_ground_truth(scene, shot.view)
        save(folder / f"{shot.name}_mask.png", seen.item)
        np.save(folder / f"{shot.name}_depth.npy", seen.depth)
        np.save(folder / f"{shot.name}_normal.npy", seen.normal)
    folder.mkdir(exist_ok=True)
    (folder / "items.json").write_text(json.dumps([item.name for item in stage.items], indent=1))
    write_mesh(folder / "mesh.ply", stage)
