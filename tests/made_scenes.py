"""Small scenes in each on-disk format, with images whose every pixel is known."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lumifield.geometry.poses import look_at, opengl_to_opencv
from lumifield.synthetic.multiscale import write_multiscale_scene

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def ring(n: int, *, target: tuple[float, float, float] = (0, 0, 0), radius: float = 4.0, height: float = 1.5):
    """OpenCV poses on a circle about `target`, all looking at it."""
    angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    offsets = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.full_like(angle, height)], -1)
    return look_at(offsets + torch.tensor(target, dtype=torch.float64), -offsets, UP)


def row(n: int):
    """OpenCV poses side by side that all look along +y."""
    across = torch.linspace(-1, 1, n, dtype=torch.float64)
    positions = torch.stack([across, 0.1 * across**2, 0.2 * across], -1)
    forward = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64).repeat(n, 1)
    return look_at(positions, forward, UP)


def image(index: int, size: tuple[int, int], channels: int) -> np.ndarray:
    """Noise that is always the same for the same index."""
    return np.random.default_rng(index).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def matrix(c2w: torch.Tensor) -> list[list[float]]:
    """The 4x4 OpenGL matrix of an OpenCV pose."""
    return [*opengl_to_opencv(c2w).tolist(), [0.0, 0.0, 0.0, 1.0]]


def blender(root: Path, *, size: tuple[int, int] = (8, 6), channels: int = 4, counts=(3, 2, 2)) -> Path:
    for split, n in zip(("train", "val", "test"), counts, strict=True):
        frames = []
        for index, pose in enumerate(ring(n)):
            save(root / split / f"r_{index}.png", image(index, size, channels))
            frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": matrix(pose)})
        write(root / f"transforms_{split}.json", {"camera_angle_x": 0.8, "frames": frames})
    return root


def multicam(root: Path, *, size: tuple[int, int] = (24, 16), channels: int = 4, counts=(3, 2, 2)) -> Path:
    """The pyramid of four sizes of a Blender scene of `size`."""
    with tempfile.TemporaryDirectory() as folder:
        write_multiscale_scene(blender(Path(folder), size=size, channels=channels, counts=counts), root)
    return root


def transforms(root: Path, *, n: int = 10, size: tuple[int, int] = (8, 6), channels: int = 3, **extra: Any) -> Path:
    frames = []
    for index, pose in enumerate(ring(n, target=(5, -3, 2))):
        save(root / "images" / f"{index:03d}.png", image(index, size, channels))
        frames.append({"file_path": f"images/{index:03d}.png", "sharpness": 30.0, "transform_matrix": matrix(pose)})
    lens = {"fl_x": 9.0, "fl_y": 9.5, "cx": 4.2, "cy": 2.9, "w": size[0], "h": size[1], "k1": 0.05, "p2": 0.001}
    write(root / "transforms.json", {**lens, **extra, "frames": frames})
    return root


def llff(
    root: Path, poses: torch.Tensor, *, size: tuple[int, int] = (16, 12), focal: float = 14.0, folders=("images",)
) -> Path:
    """`size` is that of the images in `images`; a folder `images_K` holds them at 1/K."""
    right, down, forward, position = poses.numpy().transpose(2, 0, 1)
    n = len(poses)
    hwf = np.tile([[size[1], size[0], focal]], (n, 1))
    table = np.stack([down, right, -forward, position, hwf], -1).reshape(n, 15)
    root.mkdir(parents=True, exist_ok=True)
    near, far = 2 + 0.1 * np.arange(n), 20 - 0.1 * np.arange(n)
    np.save(root / "poses_bounds.npy", np.concatenate([table, np.stack([near, far], -1)], 1))
    for folder in folders:
        factor = int(folder.removeprefix("images").removeprefix("_") or 1)
        for index in range(n):
            save(root / folder / f"{index:03d}.png", image(index, (size[0] // factor, size[1] // factor), 3))
    return root


def shapenet(root: Path, *, n: int = 5, size: tuple[int, int] = (8, 8), first: int = 0) -> Path:
    """An object as learnit has it; its images are noise, from `first` on."""
    frames = []
    for index, pose in enumerate(ring(n)):
        save(root / f"{index:03d}.png", image(first + index, size, 4))
        frames.append({"file_path": f"./{index:03d}", "transform_matrix": matrix(pose)})
    write(root / "transforms.json", {"camera_angle_x": 0.8, "frames": frames})
    return root


def edit(path: Path, change) -> None:
    """Rewrites a JSON file after `change(content)` has altered it."""
    content = json.loads(path.read_text())
    change(content)
    write(path, content)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
