"""Render one view of a run with its depth in world units; the images of the data are not needed."""

from pathlib import Path

import numpy as np
import tyro

import lumifield as lf


def main(run: Path = Path("runs/example/run"), index: int = 0, out: Path = Path("runs/example/view")) -> None:
    """Writes rgb.png and depth.npy to OUT."""
    trained = lf.load_run(run)
    view = trained.render(trained.cameras("test")[index])
    out.mkdir(parents=True, exist_ok=True)
    view.save(out / "rgb.png")
    np.save(out / "depth.npy", view.depth)
    print(f"rendered in {view.seconds:.2f} s, {(view.opacity > 0.5).mean():.0%} of the pixels are opaque, see {out}")


if __name__ == "__main__":
    tyro.cli(main)
