"""A class of objects in learnit's layout: shaded balls that differ in their tint."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lumifield.data import Source
from lumifield.data.scene import Images, Scene
from lumifield.geometry.poses import opengl_to_opencv
from lumifield.methods import SimpleNerf
from scenes import FOCAL_OF_WIDTH, ball

TINTS = ((1.0, 0.3, 0.3), (0.3, 1.0, 0.3), (0.3, 0.3, 1.0), (1.0, 1.0, 0.3), (1.0, 0.3, 1.0))
NAMES = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}
TINY = SimpleNerf(
    num_samples=8, hidden_dim=12, num_layers=2, num_position_frequencies=5, num_octaves=3.0, batch_size=24, bf16="off"
)


def tinted(number: int, *, views: int = 6, size: int = 8) -> Scene:
    """A ball of one of the tints."""
    scene = ball(views, size)
    assert scene.images is not None
    tint = torch.tensor([*TINTS[number], 1.0])
    pixels = (scene.images.pixels.float() * tint).round().to(torch.uint8)
    return replace(scene, images=Images(pixels, scene.images.offsets))


def balls(root: Path, *, views: int = 6, size: int = 8) -> Source:
    """Objects a to e, of which three are for training."""
    for number, name in enumerate("abcde"):
        scene, folder = tinted(number, views=views, size=size), root / "balls" / name
        folder.mkdir(parents=True)
        frames = []
        for row in range(views):
            assert scene.images is not None
            Image.fromarray(scene.images.image(row, (size, size)).numpy()).save(folder / f"{row:03d}.png")
            frames.append({"file_path": f"./{row:03d}", "transform_matrix": matrix(scene.cameras.c2w[row])})
        content = {"camera_angle_x": 2 * math.atan(0.5 / FOCAL_OF_WIDTH), "frames": frames}
        (folder / "transforms.json").write_text(json.dumps(content))
    (root / "balls_splits.json").write_text(json.dumps(NAMES))
    return Source(root / "balls")


def matrix(c2w: Tensor) -> list[list[float]]:
    """A pose as transforms files have it."""
    return [*opengl_to_opencv(c2w).tolist(), [0.0, 0.0, 0.0, 1.0]]
