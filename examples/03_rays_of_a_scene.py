"""Draw the rays of a scene: a training batch, and the same rays on a map seen from above.

Rays are never stored. `draw` picks pixels uniformly over all images and makes their rays then.
"""

from pathlib import Path

import torch
import tyro
from PIL import Image, ImageDraw

from lumifield.data import Source, read_scene
from lumifield.data.scene import sample_batch
from lumifield.runtime.rng import Rng

SIDE, REACH = 640, 5.0


def main(
    data: Path = Path("runs/example/still-life"), rays: int = 200, out: Path = Path("runs/example/rays.png")
) -> None:
    """Leaves a map of the rays in OUT; its sides span 10 scene units."""
    scene = read_scene(Source(data), "train")
    batch = sample_batch(scene, rays, Rng(torch.Generator().manual_seed(0)))
    print(f"{len(batch.rays)} rays of {len(scene)} images, colors {tuple(batch.rgb.shape)}")

    begin = batch.rays.origins + batch.rays.near[:, None] * batch.rays.directions
    end = batch.rays.origins + batch.rays.far[:, None] * batch.rays.directions
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    for a, b, color in zip(begin.tolist(), end.tolist(), (batch.rgb * 255).int().tolist(), strict=True):
        pen.line([on_map(a), on_map(b)], fill=tuple(color))
    for camera in scene.cameras.positions.tolist():
        x, y = on_map(camera)
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill="black")
    out.parent.mkdir(parents=True, exist_ok=True)
    image.save(out)
    print(out)


def on_map(point: list[float]) -> tuple[float, float]:
    """The pixel of a scene point: x to the right, y upwards, z dropped."""
    return SIDE / 2 * (1 + point[0] / REACH), SIDE / 2 * (1 - point[1] / REACH)


if __name__ == "__main__":
    tyro.cli(main)
