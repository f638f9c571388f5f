"""Captures of one ball in the layouts that come with silhouettes, in a world of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import made_scenes as made
from lumifield.geometry.cameras import Cameras, pinhole_cameras

# The sphere that holds the object [world units], and the ball in its middle, in units of the sphere.
CENTER, RADIUS, BALL = (5.0, -3.0, 2.0), 2.5, 0.6
FOCAL = 30.0


def around(n: int, size: tuple[int, int] = (24, 18)) -> Cameras:
    """Cameras of the world about the sphere."""
    return pinhole_cameras(made.ring(n, target=CENTER, radius=8.0, height=3.0), FOCAL * size[0] / 24, size)


def ball(
    cameras: Cameras, index: int, radius: float = BALL * RADIUS, center: tuple[float, float, float] = CENTER
) -> np.ndarray:
    """Where a camera sees the ball: 255 there, 0 elsewhere."""
    width, height = cameras.size[index].tolist()
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ray = cameras.directions(torch.full(x.shape, index), x, y)
    ray = ray / ray.norm(dim=-1, keepdim=True)
    offset = torch.tensor(center, dtype=ray.dtype) - cameras.positions[index]
    across = offset - (ray @ offset)[..., None] * ray
    return np.where((across.norm(dim=-1) < radius).numpy(), 255, 0).astype(np.uint8)


def lens(cameras: Cameras, index: int) -> np.ndarray:
    """The matrix to pixels whose centers are whole numbers."""
    (fx, fy), (cx, cy) = cameras.focal[index].tolist(), cameras.center[index].tolist()
    return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])


def w2c(cameras: Cameras, index: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3] = cameras.c2w[index].double().numpy()
    return np.linalg.inv(pose)


def projection(cameras: Cameras, index: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3] = lens(cameras, index) @ w2c(cameras, index)[:3]
    return matrix


def sphere(radius: float = RADIUS) -> np.ndarray:
    matrix = np.diag([radius, radius, radius, 1.0])
    matrix[:3, 3] = CENTER
    return matrix


def dtu(root: Path, *, n: int = 10, size: tuple[int, int] = (24, 18), masks: bool = True, spheres: bool = True) -> Path:
    cameras, matrices = around(n, size), {}
    for index in range(n):
        made.save(root / f"image/{index:06d}.png", made.image(index, size, 3))
        if masks:
            made.save(root / f"mask/{index:03d}.png", ball(cameras, index))
        matrices[f"world_mat_{index}"] = projection(cameras, index)
        if spheres:
            matrices[f"scale_mat_{index}"] = sphere()
    np.savez(root / "cameras_sphere.npz", **matrices)
    return root


def edited(path: Path, **changes: np.ndarray | None) -> None:
    """Changes matrices of a file, or removes those that are None."""
    with np.load(path) as file:
        matrices = {name: file[name] for name in file.files} | changes
    np.savez(path, **{name: matrix for name, matrix in matrices.items() if matrix is not None})


def nlr(root: Path, *, n: int = 10) -> Path:
    """Every other image is twice as large."""
    content = {}
    for index in range(n):
        name, size = f"{index:02d}", (48, 36) if index % 2 else (24, 18)
        cameras = around(n, size)
        made.save(root / f"rgb/{name}_rgb.png", made.image(index, size, 3))
        made.save(root / f"mattes/{name}_mask.png", ball(cameras, index))
        matrix, pose = lens(cameras, index).tolist(), w2c(cameras, index).tolist()
        content[name] = {"intrinsics": {"camera_matrix": matrix}, "extrinsics": pose}
    (root / "calib_export.yaml").write_text(yaml.safe_dump(content))
    return root


def recalibrated(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrites the cameras of NLR's layout."""
    path = root / "calib_export.yaml"
    path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text()))))


def metanlr(root: Path, *, n: int = 10, size: tuple[int, int] = (24, 18), masks: bool = True) -> Path:
    """The tables are pickled, as the original made them; the world is turned against the object."""
    cameras = around(n, size)
    for index in range(n):
        (fx, fy), (cx, cy) = cameras.focal[index].tolist(), cameras.center[index].tolist()
        near, far = 1.0, 1e4
        projection = np.zeros((4, 4))
        projection[0, 0], projection[0, 2] = 2 * fx / size[0], 1 - 2 * cx / size[0]
        projection[1, 1], projection[1, 2] = 2 * fy / size[1], 2 * cy / size[1] - 1
        projection[2, 2:] = -(far + near) / (far - near), -2 * far * near / (far - near)
        projection[3, 2] = -1
        made.save(root / f"{index:02d}_rgb.png", made.image(index, size, 3))
        if masks:
            made.save(root / f"{index:02d}_mask.png", ball(cameras, index))
        table = {"view": np.diag([1.0, -1, -1, 1]) @ w2c(cameras, index), "projection": projection}
        np.save(
            root / f"{index:02d}_rgb_meta.npy", np.array(table | {"resolution": list(size), "name": "ball"}, object)
        )
    np.save(root / "model_matrix.npy", np.array({"model_matrix": sphere()}, object))
    return root
