"""Blender scenes whose training images vary and are covered in part, as NeRF-W disturbs them (supplement, section D).

The first training image, and all val and test images, stay as they are.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumifield.runtime.folders import fresh_folder
from lumifield.synthetic.pyramid import image_of, listed

Kind = Literal["color", "occluder", "both"]

# Sizes of the published protocol are for images of this width [pixels].
WIDTH = 800
SIDE, STRIPES = 200, 10
SCALES, SHIFTS = (0.8, 1.2), (-0.2, 0.2)


@dataclass(frozen=True)
class Cast:
    """A color cast: `scale * c + shift` of each channel, in [0, 1]."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def over(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
        """The image with the cast; alpha stays."""
        cast = np.clip(np.array(self.scale) * image[..., :3] / 255 + self.shift, 0, 1)
        return np.concatenate([np.rint(255 * cast).astype(np.uint8), image[..., 3:]], -1)


@dataclass(frozen=True)
class Occluder:
    """An opaque square of upright stripes: its left and top edge and its side [pixels], and the stripes' colors."""

    left: int
    top: int
    side: int
    colors: tuple[tuple[int, ...], ...]

    def over(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
        """The image with the square."""
        covered = image.copy()
        stripe = np.arange(self.side) * len(self.colors) // self.side
        columns = covered[self.top : self.top + self.side, self.left : self.left + self.side]
        columns[..., :3] = np.array(self.colors, np.uint8)[stripe][: columns.shape[1]]
        columns[..., 3:] = 255
        return covered


def perturb(scene_folder: Path, out: Path, kind: Kind, seed: int) -> None:
    """Writes the disturbed copy of the Blender scene in `scene_folder` to the new folder `out`.

    `perturbation.json` says what was done to each image. Raises `DataError` where the scene cannot be read, or `out`
    cannot be written or is not empty.
    """
    _, frames = listed(scene_folder / "transforms_train.json")
    done = {}
    with fresh_folder(out) as folder:
        shutil.copytree(scene_folder, folder, dirs_exist_ok=True)
        for index, (name, _) in enumerate(frames):
            path = folder / f"{name.removesuffix('.png')}.png"
            image = image_of(path)
            if index == 0:
                continue
            disturbances = drawn(kind, seed, index, image.shape[1])
            for disturbance in disturbances:
                image = disturbance.over(image)
            Image.fromarray(image).save(path)
            done[name] = {type(one).__name__.lower(): asdict(one) for one in disturbances}
        content = {"kind": kind, "seed": seed, "images": done}
        (folder / "perturbation.json").write_text(json.dumps(content, indent=1))


def drawn(kind: Kind, seed: int, index: int, width: int) -> list[Cast | Occluder]:
    """What happens to the image number `index` of `width`, in this order: the same cast and square for any kind."""
    cast, square = np.random.default_rng([seed, index, 0]), np.random.default_rng([seed, index, 1])
    found = []
    if kind in ("color", "both"):
        found.append(Cast(tuple(cast.uniform(*SCALES, 3).tolist()), tuple(cast.uniform(*SHIFTS, 3).tolist())))
    if kind in ("occluder", "both"):
        side = max(round(SIDE * width / WIDTH), 1)
        left, top = square.integers(side, 2 * side, 2).tolist()
        colors = square.integers(0, 256, (STRIPES, 3)).tolist()
        found.append(Occluder(left, top, side, tuple(tuple(color) for color in colors)))
    return found
