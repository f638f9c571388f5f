"""The photographs that colours are looked up in, and what of the surface each of them sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lumifield.core.cameras import Cameras
from lumifield.core.randomness import Draws
from lumifield.core.rays import Rays, camera_rays
from lumifield.core.reprojection import bilinear, cosines, in_picture, nearest
from lumifield.core.scene import Scene, pixels_of

COARSE = 2
"""Pixels a side of a cell for which the distance of the surface is known."""
SOLID = 128
LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class Sight:
    """Scene points in one source: where, whether it sees them, their colours, and the cosine between the rays."""

    xy: Float[Tensor, "p 2"]
    seen: Bool[Tensor, "p"]
    rgb: Float[Tensor, "p 3"]
    cosine: Float[Tensor, "p"]


class Sources(nn.Module):
    """Photographs of any sizes with their silhouettes, all in one buffer, and their cameras.

    `pixels` are rgb and 255 within the silhouette, else 0. `surface` is the distance from the camera at which the ray
    through the middle pixel of each cell of `COARSE` pixels a side meets the surface [scene units], or infinite.
    """

    pixels: Tensor
    offsets: Tensor
    surface: Tensor
    near: Tensor
    far: Tensor
    c2w: Tensor
    focal: Tensor
    centre: Tensor
    size: Tensor
    distortion: Tensor

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        cameras = scene.cameras
        for name in ("c2w", "focal", "centre", "size", "distortion"):
            self.register_buffer(name, getattr(cameras, name).clone())
        self.register_buffer("near", scene.near.clone())
        self.register_buffer("far", scene.far.clone())
        self.sizes = [scene.size(index) for index in range(len(scene))]
        self.register_buffer("offsets", _ends([width * height for width, height in self.sizes]))
        self.starts = self.offsets.tolist()
        self.cells = [(-(-width // COARSE), -(-height // COARSE)) for width, height in self.sizes]
        self.cell_starts = _ends([width * height for width, height in self.cells]).tolist()
        self.register_buffer("surface", torch.full((self.cell_starts[-1],), torch.inf))
        self.register_buffer("pixels", _with_silhouettes(scene, self.starts[-1]))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def cameras(self) -> Cameras:
        """Their cameras."""
        return Cameras(self.c2w, self.focal, self.centre, self.size, self.distortion)

    def picture(self, index: int) -> Float[Tensor, "4 h w"]:
        """One photograph, rgb and silhouette in [0, 1]."""
        width, height = self.sizes[index]
        rows = self.pixels[self.starts[index] : self.starts[index + 1]]
        return rows.view(height, width, 4).permute(2, 0, 1).float() / 255

    def drawn(self, count: int, draws: Draws) -> tuple[Rays, Float[Tensor, "r 3"], Bool[Tensor, "r"]]:
        """Rays through as many pixels of all photographs, their colours, and whether these are in the silhouettes."""
        index = draws.integers(count, self.starts[-1])
        camera, pixel = pixels_of(index, self.offsets, self.size[:, 0])
        rays = camera_rays(self.cameras, camera, pixel, self.near, self.far)
        found = self.pixels[index]
        return rays, found[:, :3].float() / 255, found[:, 3] >= SOLID

    def cell_rays(self, index: int) -> tuple[Rays, Bool[Tensor, "r"]]:
        """The rays through the middle pixels of a photograph's cells, and which of these the silhouette touches."""
        width, height = self.cells[index]
        cell = torch.arange(width * height, device=self.c2w.device)
        middle = COARSE * torch.stack([cell % width, cell // width], -1) + COARSE // 2
        middle = torch.minimum(middle, self.size[index] - 1)
        camera = torch.full_like(cell, index)
        rays = camera_rays(self.cameras, camera, middle, self.near, self.far)
        solid = nn.functional.max_pool2d(self.picture(index)[3:], COARSE, ceil_mode=True)
        return rays, solid.view(-1) > 0

    def look(
        self,
        index: int,
        points: Float[Tensor, "p 3"],
        directions: Float[Tensor, "p 3"],
        surface: Float[Tensor, "cells"],
        slack: float,
    ) -> Sight:
        """Scene points in one photograph: it sees those before it, in its silhouette, that nothing hides.

        `surface` is what this module's buffer of that name holds, now or anew; points up to `slack` behind it are on
        it. Only colours and places carry a gradient.
        """
        size, camera = self.sizes[index], self.cameras[[index]]
        xy, depth = (found[0] for found in camera.project(points))
        with torch.no_grad():
            seen = in_picture(xy, depth, size)
            seen &= nearest(self.pixels[:, 3], self.starts[index], xy, size) >= SOLID
            behind = nearest(surface, self.cell_starts[index], xy / COARSE, self.cells[index])
            seen &= (points - camera.positions).norm(dim=-1) <= behind + slack
        picture = self.picture(index)
        solid = picture[3:]
        found = bilinear(torch.cat([picture[:3] * solid, solid]), xy)
        rgb = found[:, :3] / found[:, 3:].clamp_min(LEAST_SHARE)
        return Sight(xy, seen, rgb, cosines(points, camera.positions[0], directions))


def _with_silhouettes(scene: Scene, count: int) -> Tensor:
    pictures = scene.pictures
    if pictures is None:
        return torch.zeros(count, 4, dtype=torch.uint8)
    solid = torch.ones(count, dtype=torch.bool, device=pictures.pixels.device)
    if pictures.pixels.shape[-1] == 4:
        solid = pictures.pixels[:, 3] >= SOLID
    if pictures.mask is not None:
        solid = solid & pictures.mask
    return torch.cat([pictures.pixels[:, :3], 255 * solid[:, None].to(torch.uint8)], -1)


def _ends(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)
