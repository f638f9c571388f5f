"""Perturbations of the training views of a Blender scene, as in NeRF in the Wild (supplement, section D).

The first training image and all validation and test images stay unchanged.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumifield.runtime.folders import fresh_folder
from lumifield.synthetic.multiscale import read_blender_frames, read_blender_image

PerturbationKind = Literal["color", "occluder", "both"]

# Side of the occluder for images of REFERENCE_WIDTH in the published protocol [pixels], and its number of stripes.
REFERENCE_WIDTH, OCCLUDER_SIDE, NUM_STRIPES = 800, 200, 10
SCALE_RANGE, SHIFT_RANGE = (0.8, 1.2), (-0.2, 0.2)


@dataclass(frozen=True)
class ColorCast:
    """A color cast: `scale * c + shift` of each channel in [0, 1]."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    key: ClassVar[str] = "cast"

    def apply(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
        """The image with the color cast and unchanged alpha."""
        cast = np.clip(np.array(self.scale) * image[..., :3] / 255 + self.shift, 0, 1)
        return np.concatenate([np.rint(255 * cast).astype(np.uint8), image[..., 3:]], -1)


@dataclass(frozen=True)
class Occluder:
    """An opaque square of vertical stripes: left and top edge and side [pixels], and the colors of the stripes."""

    left: int
    top: int
    side: int
    colors: tuple[tuple[int, ...], ...]
    key: ClassVar[str] = "occluder"

    def apply(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
        """The image behind the occluder."""
        occluded = image.copy()
        stripe = np.arange(self.side) * len(self.colors) // self.side
        square = occluded[self.top : self.top + self.side, self.left : self.left + self.side]
        square[..., :3] = np.array(self.colors, np.uint8)[stripe][: square.shape[1]]
        square[..., 3:] = 255
        return occluded


def perturb_scene(scene_folder: Path, out: Path, kind: PerturbationKind, seed: int) -> None:
    """Writes a perturbed copy of the Blender scene in `scene_folder` to the new folder `out`.

    `perturbation.json` records the perturbations of each image. Raises `DataError` if the scene is not readable, and if
    `out` is not empty or not writable.
    """
    _, frames = read_blender_frames(scene_folder / "transforms_train.json")
    perturbed = {}
    with fresh_folder(out) as folder:
        shutil.copytree(scene_folder, folder, dirs_exist_ok=True)
        for index, (name, _) in enumerate(frames):
            path = folder / f"{name.removesuffix('.png')}.png"
            image = read_blender_image(path)
            if index == 0:
                continue
            perturbations = sample_perturbations(kind, seed, index, image.shape[1])
            for perturbation in perturbations:
                image = perturbation.apply(image)
            Image.fromarray(image).save(path)
            perturbed[name] = {perturbation.key: asdict(perturbation) for perturbation in perturbations}
        content = {"kind": kind, "seed": seed, "images": perturbed}
        (folder / "perturbation.json").write_text(json.dumps(content, indent=1))


def sample_perturbations(kind: PerturbationKind, seed: int, index: int, width: int) -> list[ColorCast | Occluder]:
    """Samples the perturbations of image `index` in their order; each is the same for any `kind` that includes it."""
    color_rng, occluder_rng = np.random.default_rng([seed, index, 0]), np.random.default_rng([seed, index, 1])
    perturbations = []
    if kind in ("color", "both"):
        scale, shift = color_rng.uniform(*SCALE_RANGE, 3), color_rng.uniform(*SHIFT_RANGE, 3)
        perturbations.append(ColorCast(tuple(scale.tolist()), tuple(shift.tolist())))
    if kind in ("occluder", "both"):
        side = max(round(OCCLUDER_SIDE * width / REFERENCE_WIDTH), 1)
        left, top = occluder_rng.integers(side, 2 * side, 2).tolist()
        colors = occluder_rng.integers(0, 256, (NUM_STRIPES, 3)).tolist()
        perturbations.append(Occluder(left, top, side, tuple(tuple(color) for color in colors)))
    return perturbations
