"""Render a portable scene: `still_life.zip` holds the weights and cameras of a run, without images.

`lumifield export weights RUN --out FILE.zip` makes one of any run; `scripts/portable_scene.py` made this one.
"""

from pathlib import Path

import tyro

import lumifield as lf

SCENE = Path(__file__).with_name("still_life.zip")


def main(scene: Path = SCENE, out: Path = Path("runs/example/portable.gif"), frames: int = 24, size: int = 160) -> None:
    """Writes an orbit around the scene to OUT."""
    lf.load_run(scene).render_path(out, "orbit", num_frames=frames, size=(size, size), fps=12)
    print(f"{scene.stat().st_size / 1000:.0f} kB rendered to {out}")


if __name__ == "__main__":
    tyro.cli(main)
