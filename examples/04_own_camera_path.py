"""Write your own camera path: a camera backs away while its angle of view narrows, and the object keeps its size.

A path is a JSON list, one object a frame, in the world frame of the data. The command for one is
`lumifield render RUN --path FILE.json --out FILE.mp4`.
"""

import json
import math
from pathlib import Path

import torch
import tyro

from lumifield.geometry.poses import look_at
from lumifield.rendering.render import make_path_cameras, render_camera_path
from lumifield.runs.run_folder import load_run

UP = torch.tensor([0.0, 0.0, 1.0])


def main(run: Path = Path("runs/example/run"), frames: int = 40, size: int = 160) -> None:
    """Leaves RUN/dolly.json and RUN/dolly.mp4."""
    shown = 1.25  # half the height that is seen at the origin [world units]
    distance = 3.0 + 3.0 * torch.linspace(0, 1, frames)
    away = torch.tensor([0.7, -0.6, 0.4]) / math.sqrt(0.7**2 + 0.6**2 + 0.4**2)
    positions = distance[:, None] * away
    cameras = [
        {"c2w": c2w.tolist(), "fov": math.degrees(2 * math.atan(shown / d)), "width": size, "height": size}
        for c2w, d in zip(look_at(positions, -positions, UP), distance.tolist(), strict=True)
    ]
    path = run / "dolly.json"
    path.write_text(json.dumps(cameras))

    trained = load_run(run, device="cuda" if torch.cuda.is_available() else "cpu")
    render_camera_path(trained, make_path_cameras(trained, path, frames), run / "dolly.mp4")
    print(run / "dolly.mp4")


if __name__ == "__main__":
    tyro.cli(main)
