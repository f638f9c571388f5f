"""Scenes whose matter is a formula, seen by a method that adds it up along each ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from analytic import around, run_of, scene_of
from lumifield.data.scene import Scene
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.rays import Ndc, Rays
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.rng import Rng
from lumifield.volume.compositing import expected_depth, weights_from_density

RADIUS = 0.8


class Fog(Method):
    """Matter of a given density, its color a formula of place and direction; its rays have `samples` points."""

    def __init__(self, density: Callable[[Tensor], Tensor], *, samples: int = 256) -> None:
        super().__init__()
        self.formula, self.samples = density, samples

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        part = (torch.arange(self.samples) + 0.5) / self.samples
        z = rays.near[:, None] + (rays.far - rays.near)[:, None] * part
        points = rays.origins[:, None] + z[..., None] * rays.directions[:, None]
        length = rays.directions.norm(dim=-1) * (rays.far - rays.near) / self.samples
        weights = weights_from_density(self.formula(points), length[:, None].expand_as(z))
        depth, opacity = expected_depth(weights, z, rays.far)
        rgb = (weights[..., None] * color(points, rays.viewdirs[:, None])).sum(1)
        return Rendered(rgb + (1 - opacity[:, None]) * context.background, depth, opacity, samples=z.numel())

    def density(self, points: Tensor) -> Tensor:
        return self.formula(points)


def color(points: Tensor, directions: Tensor) -> Tensor:
    """Smooth in space, and linear in the direction."""
    return 0.5 + 0.2 * torch.sin(2 * points) + 0.15 * directions


def ball(points: Tensor) -> Tensor:
    """An opaque ball with a soft edge."""
    return 60 * torch.sigmoid((RADIUS - points.norm(dim=-1)) * 40)


def nothing(points: Tensor) -> Tensor:
    return torch.zeros(points.shape[:-1])


def haze(points: Tensor) -> Tensor:
    """Enough to hide what is behind it, too little to be seen in a voxel."""
    return torch.full(points.shape[:-1], 0.3)


def room(points: Tensor) -> Tensor:
    """The ball, and a wall all round at a distance of 9."""
    return ball(points) + 30 * torch.sigmoid((points.norm(dim=-1) - 9) * 4)


def hill(points: Tensor) -> Tensor:
    """A ball in normalized device coordinates, before a wall."""
    near = (points - torch.tensor([0.1, 0.2, -0.1])).norm(dim=-1)
    return 60 * torch.sigmoid((0.4 - near) * 40) + 60 * torch.sigmoid((points[..., 2] - 0.6) * 40)


def bounded(n: int = 8, size: tuple[int, int] = (40, 30)) -> Scene:
    """Cameras round the ball, at several heights."""
    scene = scene_of(tilted(n, size))
    return replace(scene, box=torch.tensor([[-1.2] * 3, [1.2] * 3]))


def tilted(n: int, size: tuple[int, int]):
    cameras = around(n, size, 4.0)
    tilts = []
    for index in range(n):
        angle = 0.9 * torch.sin(torch.tensor(2.4 * index))
        c, s = angle.cos(), angle.sin()
        right, down, forward = cameras.c2w[index, :, :3].unbind(-1)
        turned = c * forward + s * down
        tilts.append(torch.stack([right, c * down - s * forward, turned, -4.0 * turned], -1))
    return replace(cameras, c2w=torch.stack(tilts), focal=1.3 * cameras.focal)


def unbounded(n: int = 10, size: tuple[int, int] = (40, 30)) -> Scene:
    """Cameras between the ball and the wall, without bounds; opaque images."""
    scene = scene_of(tilted(n, size))
    cameras = replace(
        scene.cameras, c2w=scene.cameras.c2w * torch.tensor([1, 1, 1, 0.5]), focal=0.5 * scene.cameras.focal
    )
    return replace(
        scene,
        cameras=cameras,
        near=torch.full((n,), 0.2),
        far=torch.full((n,), 20.0),
        box=torch.tensor([[-2.0] * 3, [2.0] * 3]),
        background="none",
        unbounded=True,
    )


def forward_facing(n: int = 6, size: tuple[int, int] = (40, 30)) -> Scene:
    """Cameras side by side in normalized device coordinates."""
    at = torch.linspace(-0.3, 0.3, n)
    positions = torch.stack([at, 0.5 * at.abs(), torch.zeros(n)], -1)
    c2w = torch.cat([torch.eye(3).expand(n, 3, 3), positions[..., None]], -1)
    scene = scene_of(pinhole_cameras(c2w, 36.0, size), ndc=Ndc((36.0, 36.0), size))
    box = torch.tensor([[-1.2, -1.2, -1.0], [1.2, 1.2, 1.0]])
    return replace(scene, near=torch.zeros(n), far=torch.ones(n), box=box, background="black")


def run(folder, density: Callable[[Tensor], Tensor], scene: Scene) -> LoadedRun:
    return run_of(folder, Fog(density), {"train": scene, "test": scene})


def rng(seed: int = 0) -> Rng:
    return Rng(torch.Generator().manual_seed(seed))
