"""Render your own camera path, a dolly zoom: the camera moves back while its field of view narrows."""

import math
from pathlib import Path

import tyro

import lumifield as lf

HALF_HEIGHT = 1.25
"""Half the height of the visible area at the origin [world units]."""


def main(run: Path = Path("runs/example/run"), frames: int = 40, size: int = 160) -> None:
    """Writes RUN/dolly.mp4."""
    cameras = []
    for frame in range(frames):
        distance = 3.0 + 3.0 * frame / max(frames - 1, 1)
        fov = math.degrees(2 * math.atan(HALF_HEIGHT / distance))
        position = [distance * value for value in (0.6966, -0.5971, 0.3980)]
        cameras.append(lf.Camera.look_at(position, (0, 0, 0), fov=fov, size=(size, size)))
    print(lf.load_run(run).render_path(run / "dolly.mp4", cameras))


if __name__ == "__main__":
    tyro.cli(main)
