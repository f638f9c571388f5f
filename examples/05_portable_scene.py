"""Render a portable scene, which needs no images: `still_life.zip` holds a network and its cameras.

`lumifield export weights RUN --out FILE.zip` makes one of any run; `scripts/portable_scene.py` has made this one.
"""

from pathlib import Path

import torch
import tyro

from lumifield.rendering.render import make_path_cameras, render_camera_path
from lumifield.runs.run_folder import load_run

SCENE = Path(__file__).with_name("still_life.zip")


def main(scene: Path = SCENE, out: Path = Path("runs/example/portable.gif"), frames: int = 24, size: int = 160) -> None:
    """Leaves a round about the scene in OUT."""
    run = load_run(scene, device="cuda" if torch.cuda.is_available() else "cpu")
    render_camera_path(run, make_path_cameras(run, "orbit", frames, (size, size)), out, fps=12)
    print(f"{scene.stat().st_size / 1000:.0f} kB became {out}")


if __name__ == "__main__":
    tyro.cli(main)
