"""The looks of some images, each worn by all: a row for each, first the image, then every camera in its look.

RUN is a start for images of one place: `lumifield meta-train simple-nerf --data PLACE --out RUN`.
"""

from dataclasses import replace
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from lumifield.data.scene_collection import list_tasks
from lumifield.meta.adapted_mixture import mix_adapted_clones
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import load_run
from lumifield.runtime.image_io import to_uint8, write_png


def main(run: Path, out: Path = Path("runs/looks.png"), photographs: tuple[str, ...] = (), side: int = 128) -> None:
    """Leaves a grid of images of at most `side` pixels; without names of images the first five are taken."""
    start = load_run(run, device="cuda" if torch.cuda.is_available() else "cpu")
    own = {task.name: task for task in list_tasks(start.source, "train")}
    there = mix_adapted_clones(start, photographs or list(own)[:5])
    scene = there.scenes["train"]
    sizes = [side / max(scene.size(row)) for row in range(len(scene))]
    rows = []
    for row, look in enumerate(there.method.appearance_embeddings):
        images = [shrunk(own[scene.names[row]].photographs().ground_truth(0), sizes[row])]
        for column, size in enumerate(sizes):
            one = scene.select([column])
            small = replace(one, cameras=one.cameras.resized(size))
            images.append(render_view(there.method, small, 0, device=start.device, appearance_embedding=look).rgb)
        rows.append(torch.cat([centerd(image, side) for image in images], 1))
    write_png(out, to_uint8(torch.cat(rows)))
    print(out)


def shrunk(image: Tensor, scale: float) -> Tensor:
    """An image of other size, by means of its pixels."""
    return F.interpolate(image.permute(2, 0, 1)[None], scale_factor=scale, mode="area")[0].permute(1, 2, 0).cpu()


def centerd(image: Tensor, side: int) -> Tensor:
    """An image in the middle of a white square."""
    height, width = (min(length, side) for length in image.shape[:2])
    square = torch.ones(side, side, 3)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image[:height, :width]
    return square


if __name__ == "__main__":
    tyro.cli(main)
