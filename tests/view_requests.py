"""View requests and runs for the tests of the viewer."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from analytic import Ball, around, run_of, scene_of
from lumifield.data.scene import Frame
from lumifield.runs.run_folder import LoadedRun
from lumifield.viewer.render_queue import ViewRequest

VIEW = ViewRequest((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -8.0), 0.8, 4 / 3, 96)


def rotated_frame() -> Frame:
    """A frame that differs from the world in rotation, translation and scale."""
    c, s = math.cos(0.3), math.sin(0.3)
    return Frame(torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]), torch.tensor([5.0, -2.0, 1.0]), 2.5)


def ball_run(folder: Path) -> LoadedRun:
    """A run of a ball with six training cameras."""
    return run_of(folder / "ball", Ball(), {"train": scene_of(around(6, (64, 48)), frame=rotated_frame())})
