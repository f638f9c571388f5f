"""Render one view of a run, with the distance to what it sees in world units.

`render_view` needs the weights and the cameras of the run, not the images.
"""

from pathlib import Path

import torch
import tyro

from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import load_run
from lumifield.runtime.colormaps import quantile_range
from lumifield.runtime.image_io import to_uint8, write_npy, write_png


def main(run: Path = Path("runs/example/run"), index: int = 0, out: Path = Path("runs/example/view")) -> None:
    """Leaves color and depth images and the raw depth in OUT."""
    trained = load_run(run, device="cuda" if torch.cuda.is_available() else "cpu")
    view = render_view(trained.method, trained.scenes["test"], index, device=trained.device)
    write_png(out / "rgb.png", to_uint8(view.rgb))
    write_png(out / "depth.png", view.depth_image(*quantile_range(view.depth[view.hit_mask])))
    write_npy(out / "depth.npy", view.measured_depth)
    print(f"{view.seconds:.2f} s, {float(view.hit_mask.float().mean()):.0%} of the pixels meet matter, see {out}")


if __name__ == "__main__":
    tyro.cli(main)
