"""Train from Python: synthesize a small still life, train on it, evaluate the test views."""

from pathlib import Path

import tyro

import lumifield as lf


def main(folder: Path = Path("runs/example"), size: int = 96, steps: int = 500) -> None:
    """Writes FOLDER/still-life and FOLDER/run."""
    scene = folder / "still-life"
    if not scene.exists():
        lf.synthesize_data(lf.StillLife(image_width=size, num_train=30, num_val=4, num_test=4), scene)
    run = lf.train(scene, lf.Instant(), steps=steps, out=folder / "run")
    metrics = run.evaluate("test")
    print(f"PSNR {metrics.psnr:.2f} dB over {len(metrics.per_image)} test views, see {metrics.report}")


if __name__ == "__main__":
    tyro.cli(main)
