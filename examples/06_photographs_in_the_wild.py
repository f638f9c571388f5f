"""What `nerf-w` makes of an image: the lasting scene, what passed before it, how sure it is, and the depth.

Without a data set of yours, `lumifield synthesize-data tourists` makes images of people in changing light.
"""

from pathlib import Path

import torch
import tyro

from lumifield import data
from lumifield.rendering.appearance import embedding_table
from lumifield.rendering.render import channel_image
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import load_run
from lumifield.runtime.colormaps import quantile_range
from lumifield.runtime.image_io import to_uint8, write_png


def main(run: Path = Path("runs/wild"), index: int = 0, out: Path = Path("runs/wild/figure.png")) -> None:
    """Leaves five images side by side of an image of the training of a `nerf-w` run in OUT."""
    trained = load_run(run, device="cuda" if torch.cuda.is_available() else "cpu")
    scene = data.read_scene(trained.source, "train", rows=slice(index, index + 1))
    view = render_view(
        trained.method,
        scene,
        0,
        device=trained.device,
        appearance_embedding=embedding_table(trained)[index],
        channels=("static", "transient", "uncertainty"),
    )
    images = [to_uint8(scene.ground_truth(0)), *(channel_image(view, name) for name in view.channels)]
    images.append(view.depth_image(*quantile_range(view.depth[view.hit_mask])))
    write_png(out, torch.cat(images, 1))
    print(f"image, lasting scene, what passed, uncertainty and depth of {scene.names[0]}: {out}")


if __name__ == "__main__":
    tyro.cli(main)
