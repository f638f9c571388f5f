"""Decompose an image with `nerf-w`: static scene, transient objects, uncertainty and depth.

Without a dataset of your own, `lumifield synthesize-data tourists` makes images with people and changing light.
"""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image

import lumifield as lf

CHANNELS = ("static", "transient", "uncertainty")


def main(
    run: Path = Path("runs/wild"), data: Path = Path("data"), index: int = 0, out: Path = Path("wild.png")
) -> None:
    """Writes a training image of DATA and its parts side by side to OUT."""
    trained, scene = lf.load_run(run), lf.load_scene(data, "train")
    view = trained.render(scene.cameras[index], appearance_of=scene.names[index], channels=CHANNELS)
    panels = [scene.ground_truth(index), *(view.channels[name] for name in CHANNELS)]
    panels.append((view.depth / view.depth.max())[..., None])
    rgb = np.concatenate([np.broadcast_to(panel, (*panel.shape[:2], 3)) for panel in panels], 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * rgb.clip(0, 1)).astype(np.uint8)).save(out)
    print(f"image, static scene, transient objects, uncertainty and depth of {scene.names[index]}: {out}")


if __name__ == "__main__":
    tyro.cli(main)
