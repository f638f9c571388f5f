"""Methods and scenes whose images and depths are known in closed form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lumifield.data import Source
from lumifield.data.scene import Frame, Scene
from lumifield.geometry.cameras import Cameras, pinhole_cameras
from lumifield.geometry.rays import Ndc, Rays
from lumifield.methods import Instant
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import LoadedRun, RunConfig, TrainingSummary
from lumifield.runtime.image_io import to_uint8

CPU = torch.device("cpu")


class Ball(Method):
    """An opaque unit ball round the origin, colored by its normals; `calls` counts the forward passes.

    Its density falls by a factor of e every twentieth beyond its surface.
    """

    calls = 0

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        self.calls += 1
        b = (rays.origins * rays.directions).sum(-1)
        inner = b**2 - (rays.origins**2).sum(-1) + 1
        hit = inner > 0
        t = torch.where(hit, -b - inner.clamp_min(0).sqrt(), rays.far)
        normal = rays.origins + t[:, None] * rays.directions
        rgb = torch.where(hit[:, None], normal * 0.5 + 0.5, context.background.expand(len(rays), 3))
        return Rendered(rgb, t, hit.float(), samples=len(rays))

    def density(self, points: Tensor) -> Tensor:
        return 100 * torch.exp(20 * (1 - points.norm(dim=-1)))


class Room(Method):
    """The inside of an opaque ball of radius 3 round the origin, with a pattern of waves on it."""

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        b = (rays.origins * rays.directions).sum(-1)
        t = -b + (b**2 - (rays.origins**2).sum(-1) + 9).sqrt()
        points = rays.origins + t[:, None] * rays.directions
        waves = torch.tensor([[2.0, 5.0, -1.0], [-4.0, 1.0, 3.0], [1.0, -2.0, 6.0]])
        rgb = 0.5 + 0.2 * torch.sin(points @ waves.T) + 0.2 * torch.cos(points @ waves * 0.5)
        return Rendered(rgb, t, torch.ones_like(t))

    def density(self, points: Tensor) -> Tensor:
        return 100 * torch.exp(20 * (points.norm(dim=-1) - 3))


class Wall(Method):
    """An opaque wall at the z of normalized device coordinates `z`."""

    def __init__(self, z: float) -> None:
        super().__init__()
        self.z = z

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        t = (self.z - rays.origins[:, 2]) / rays.directions[:, 2]
        return Rendered(torch.full_like(rays.origins, 0.5), t, torch.ones_like(t))

    def density(self, points: Tensor) -> Tensor:
        return 100 * torch.exp(20 * (points[:, 2] - self.z))


def around(n: int, size: tuple[int, int] = (32, 24), distance: float = 4.0) -> Cameras:
    """Cameras on a level circle that look at the origin; z points up."""
    poses = []
    for index in range(n):
        angle = 2 * math.pi * index / n
        away = torch.tensor([math.cos(angle), math.sin(angle), 0.0])
        down = torch.tensor([0.0, 0.0, -1.0])
        poses.append(torch.stack([torch.linalg.cross(down, -away), down, -away, distance * away], -1))
    return pinhole_cameras(torch.stack(poses), float(size[0]), size)


def scene_of(cameras: Cameras, *, frame: Frame | None = None, ndc: Ndc | None = None) -> Scene:
    """A white scene without images, from t = 2 to t = 6."""
    n = len(cameras)
    return Scene(
        cameras=cameras,
        names=tuple(f"view_{index}" for index in range(n)),
        near=torch.full((n,), 2.0),
        far=torch.full((n,), 6.0),
        box=torch.tensor([[-1.5] * 3, [1.5] * 3]),
        frame=frame or Frame.identity(),
        background="white",
        ndc=ndc,
    )


def run_of(folder: Path, method: Method, scenes: dict[str, Scene], source: Source | None = None) -> LoadedRun:
    """A run that has trained for 10 s on 5 images."""
    config = RunConfig(getattr(method, "settings", Instant()), source)
    return LoadedRun(folder, method, config, source, scenes, CPU, TrainingSummary(10.0, 5000, 50, 5))


def photograph(folder: Path, scene: Scene, split: str, method: Method | None = None) -> Source:
    """Writes what a method (`Ball`) looks like as one split of a Blender scene."""
    width, _ = scene.size(0)
    frames = []
    for index, name in enumerate(scene.names):
        image = to_uint8(render_view(method or Ball(), scene, index, device=CPU).rgb)
        Image.fromarray(image.numpy()).save(folder / f"{split}_{name}.png")
        c2w = scene.cameras.c2w[index] * torch.tensor([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"./{split}_{name}", "transform_matrix": [*c2w.tolist(), [0, 0, 0, 1]]})
    angle = 2 * math.atan(0.5 * width / float(scene.cameras.focal[0, 0]))
    content = {"camera_angle_x": angle, "frames": frames}
    (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return Source(folder, background="white")
