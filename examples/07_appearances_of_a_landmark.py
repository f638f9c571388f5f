"""Appearance transfer: each row shows one image, then all camera poses rendered with its appearance.

RUN is an initialization for images of one place: `lumifield meta-train simple-nerf --data PLACE --out RUN`.
"""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageOps

import lumifield as lf


def main(
    run: Path, data: Path, out: Path = Path("appearances.png"), images: tuple[str, ...] = (), side: int = 128
) -> None:
    """Writes a grid of images of at most SIDE pixels to OUT; by default of the first five images of DATA."""
    scene = lf.load_scene(data, "train")
    names = images or scene.names[:5]
    adapted = lf.load_run(run).adapted_to(names)
    rows = []
    for name in names:
        cells = [scene.ground_truth(scene.names.index(name))]
        for camera in adapted.cameras("train"):
            scale = side / max(camera.size)
            size = round(camera.size[0] * scale), round(camera.size[1] * scale)
            cells.append(adapted.render(camera, size=size, appearance_of=name).rgb)
        rows.append(np.concatenate([to_cell(cell, side) for cell in cells], 1))
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(out)
    print(out)


def to_cell(rgb: np.ndarray, side: int) -> np.ndarray:
    """An image fitted into a white square, 8 bits."""
    image = Image.fromarray((255 * rgb.clip(0, 1)).round().astype(np.uint8))
    return np.asarray(ImageOps.pad(image, (side, side), color="white"))


if __name__ == "__main__":
    tyro.cli(main)
