"""Do selected views lie in free space? Compared with the depth of a 7-Scenes folder, which training never saw.

Run `python benchmarks/free_space.py --run RUN --data FOLDER` after `lumifield localize select RUN`. A frame with depth
shows a view's place when that projects into it: *before* the surface, so that it is free, or *behind*, where nobody can
see.
Depth of the sensor has its own focal length, 585 pixels for a width of 640.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from scipy.spatial import KDTree

STRIDE, TOLERANCE = 2, 0.05
FOCAL = 585.0


def main(run: Path, data: Path, views: Path | None = None, focal: float = FOCAL) -> None:
    """Prints the distances of the views from true surfaces [m], and how many are before and behind them."""
    found = measure(views or run / "localize/views.json", data, focal)
    away = f"least {found['least']:.3f}, median {found['median']:.3f} m"
    print(f"{found['views']} views; distance from the nearest true surface: {away}")
    print(f"before a surface in some frame {found['before']:.1%}, in no frame but behind one in some", end=" ")
    print(f"{found['behind']:.1%}, in no frame {found['unseen']:.1%}")


def measure(views: Path, data: Path, focal: float = FOCAL) -> dict[str, float]:
    """Distances of the views from true surfaces [m], and the shares of them before and behind these."""
    places = np.array([view["c2w"] for view in json.loads(views.read_text())])[:, :3, 3]
    before, behind = np.zeros((2, len(places)), int)
    surfaces = []
    for file in sorted(data.rglob("*.depth.png")):
        pose = np.loadtxt(file.with_name(file.name.replace(".depth.png", ".pose.txt")))[:3]
        depth = read_depth(file)
        surfaces.append(surface_points(depth, pose, focal))
        seen, free = project_into_view(places, depth, pose, focal)
        before += seen & free
        behind += seen & ~free
    away = KDTree(np.concatenate(surfaces)).query(places)[0]
    return {
        "views": len(places),
        "least": float(away.min()),
        "median": float(np.median(away)),
        "before": float(np.mean(before > 0)),
        "behind": float(np.mean((before == 0) & (behind > 0))),
        "unseen": float(np.mean(before + behind == 0)),
    }


def read_depth(file: Path) -> np.ndarray:
    """Depth along the axis, 0 where there is none."""
    with Image.open(file) as image:
        values = np.asarray(image).astype(float)
    return np.where(values == 65535, 0, values) / 1000


def local_points(depth: np.ndarray, focal: float, stride: int = 1) -> np.ndarray:
    """The points of every so-manieth row and column with depth, in the axes of the sensor."""
    height, width = depth.shape
    v, u = np.mgrid[:height:stride, :width:stride] + 0.5
    z = depth[::stride, ::stride]
    return np.stack([(u - width / 2) / focal * z, (v - height / 2) / focal * z, z], -1)[z > 0]


def surface_points(depth: np.ndarray, pose: np.ndarray, focal: float) -> np.ndarray:
    """The points that a frame shows, in the world."""
    return local_points(depth, focal, STRIDE) @ pose[:, :3].T + pose[:, 3]


def project_into_view(
    places: np.ndarray, depth: np.ndarray, pose: np.ndarray, focal: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a frame has depth where a place projects to, and whether the place is before it."""
    local = (places - pose[:, 3]) @ pose[:, :3]
    height, width = depth.shape
    ahead = local[:, 2] > TOLERANCE
    at = local[:, :2] / np.where(ahead, local[:, 2], 1)[:, None] * focal + np.array([width, height]) / 2
    inside = ahead & (at >= 0).all(1) & (at < [width, height]).all(1)
    column, row = np.where(inside[:, None], at, 0).astype(int).T
    found = depth[row, column]
    return inside & (found > 0), local[:, 2] < found - TOLERANCE


if __name__ == "__main__":
    tyro.cli(main)
