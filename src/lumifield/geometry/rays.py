"""Rays through pixels, in scene coordinates or normalized device coordinates."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lumifield.geometry.cameras import Cameras


@dataclass(frozen=True)
class Ndc:
    """Normalized device coordinates of a forward-facing capture (NeRF, appendix C): camera looks along -z of OpenGL,
    near plane at `plane` [scene units]."""

    focal: tuple[float, float]
    size: tuple[int, int]
    plane: float = 1.0


@dataclass(frozen=True)
class Rays:
    """Points `origins + t * directions` for `near <= t <= far`.

    `directions` have unit length, except for NDC rays, whose t runs from 0 to 1. `viewdirs` are unit scene directions.
    `radius` is the pixel width at t = 1 [scene units per t]; `image` is the image index; `place` is the normalized
    image position, 0 to 1 from left to right and from top to bottom.
    """

    origins: Float[Tensor, "*r 3"]
    directions: Float[Tensor, "*r 3"]
    viewdirs: Float[Tensor, "*r 3"]
    radius: Float[Tensor, "*r"]
    near: Float[Tensor, "*r"]
    far: Float[Tensor, "*r"]
    image: Int[Tensor, "*r"]
    place: Float[Tensor, "*r 2"]

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Rays:
        return Rays(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device | str) -> Rays:
        """The same rays on `device`."""
        return Rays(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def warp_rays_to_ndc(rays: Rays, ndc: Ndc) -> Rays:
    """Rays in normalized device coordinates (NeRF, appendix C, equations 25-26).

    Input: OpenCV scene frame of the average camera. Output: NDC axes x right, y up, z from -1 (near plane) to 1
    (infinity).
    """
    flip = torch.tensor([1.0, -1.0, -1.0], device=rays.origins.device)
    o, d = rays.origins * flip, rays.directions * flip
    o = o - ((ndc.plane + o[..., 2]) / d[..., 2])[..., None] * d
    ax, ay = 2 * ndc.focal[0] / ndc.size[0], 2 * ndc.focal[1] / ndc.size[1]
    oz, dz = o[..., 2], d[..., 2]
    origins = torch.stack([-ax * o[..., 0] / oz, -ay * o[..., 1] / oz, 1 + 2 * ndc.plane / oz], -1)
    directions = torch.stack(
        [
            -ax * (d[..., 0] / dz - o[..., 0] / oz),
            -ay * (d[..., 1] / dz - o[..., 1] / oz),
            1 - origins[..., 2],
        ],
        -1,
    )
    zero = torch.zeros_like(rays.near)
    # Width of the pixel on the near plane, as the mean of its sides in NDC.
    reach = (o - rays.origins * flip).norm(dim=-1)
    radius = rays.radius * reach * (ax + ay) / (2 * ndc.plane)
    return Rays(origins, directions, rays.viewdirs, radius, zero, zero + 1, rays.image, rays.place)


def points_to_ndc(points: Float[Tensor, "*p 3"], ndc: Ndc) -> Float[Tensor, "*p 3"]:
    """Scene points in normalized device coordinates (NeRF, appendix C, equation 8)."""
    x, y, z = points.unbind(-1)
    ax, ay = 2 * ndc.focal[0] / ndc.size[0], 2 * ndc.focal[1] / ndc.size[1]
    return torch.stack([ax * x / z, -ay * y / z, 1 - 2 * ndc.plane / z], -1)


def points_from_ndc(points: Float[Tensor, "*p 3"], ndc: Ndc) -> Float[Tensor, "*p 3"]:
    """Scene points of normalized device coordinates; inverse of `points_to_ndc`. z = 1 is at infinity."""
    x, y, z = points.unbind(-1)
    depth = 2 * ndc.plane / (1 - z)
    ax, ay = 2 * ndc.focal[0] / ndc.size[0], 2 * ndc.focal[1] / ndc.size[1]
    return torch.stack([x * depth / ax, -y * depth / ay, depth], -1)


def distance_from_t(t: Float[Tensor, "*r"], rays: Rays, ndc: Ndc | None) -> Float[Tensor, "*r"]:
    """Distance from the camera [scene units] of the point at `t`, with the NDC warp undone.

    `rays` are the rays before `warp_rays_to_ndc`.
    """
    if ndc is None:
        return t
    oz, dz = -rays.origins[..., 2], -rays.directions[..., 2]
    start = -(ndc.plane + oz) / dz
    # Appendix C, equation 20: t' = 1 - oz / (oz + t dz), with oz = -plane at the shifted origin.
    along = t / (1 - t).clamp_min(1e-6) * ndc.plane / dz.abs()
    return start + along


def camera_rays(
    cameras: Cameras,
    camera: Int[Tensor, " r"],
    pixel: Int[Tensor, "r 2"],
    near: Float[Tensor, " n"],
    far: Float[Tensor, " n"],
    ndc: Ndc | None = None,
    *,
    bounds_are_z_depth: bool = False,
) -> Rays:
    """Rays through the centers of pixels `(column, row)` of the given cameras.

    If `bounds_are_z_depth`, `near` and `far` are depths along the optical axis, else distances.
    """
    x, y = pixel[:, 0] + 0.5, pixel[:, 1] + 0.5
    local = cameras.directions(camera, x, y)
    length = local.norm(dim=-1)
    unit = local / length[:, None]
    scale = length if bounds_are_z_depth else torch.ones_like(length)
    rays = Rays(
        origins=cameras.positions[camera],
        directions=unit,
        viewdirs=unit,
        radius=1 / (cameras.focal[camera].mean(-1) * length),
        near=near[camera] * scale,
        far=far[camera] * scale,
        image=camera,
        place=(pixel + 0.5) / cameras.size[camera],
    )
    return rays if ndc is None else warp_rays_to_ndc(rays, ndc)


def offset_rays(rays: Rays, size: tuple[int, int], step: tuple[float, float]) -> Rays:
    """Rays of images of `size` (height, width), in row order, offset by a fraction of a pixel to the right and down.

    Directions are interpolated linearly between pixels: exact to second order in the angle of a pixel.
    """
    right, down = step

    def shift(values: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        grid = values.view(-1, *size, values.shape[-1])
        return (grid + right * _gradient(grid, 2) + down * _gradient(grid, 1)).view_as(values)

    directions = F.normalize(shift(rays.directions), dim=-1)
    return replace(rays, directions=directions, viewdirs=directions, place=shift(rays.place))


def _gradient(grid: Float[Tensor, "n h w c"], axis: int) -> Float[Tensor, "n h w c"]:
    return torch.gradient(grid, dim=axis)[0] if grid.shape[axis] > 1 else torch.zeros_like(grid)


def points_on_rays(rays: Rays, z: Float[Tensor, "r n"]) -> Float[Tensor, "r n 3"]:
    """Points at depths `z` on each ray."""
    return torch.addcmul(rays.origins[:, None], rays.directions[:, None], z[..., None])


def image_rays(
    cameras: Cameras,
    index: int,
    near: Float[Tensor, " n"],
    far: Float[Tensor, " n"],
    ndc: Ndc | None = None,
    *,
    bounds_are_z_depth: bool = False,
) -> Rays:
    """All rays of one image, in row order from the top left."""
    width, height = cameras.size[index].tolist()
    device = cameras.c2w.device
    row, column = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    pixel = torch.stack([column.reshape(-1), row.reshape(-1)], -1)
    camera = torch.full((width * height,), index, dtype=torch.int64, device=device)
    return camera_rays(cameras, camera, pixel, near, far, ndc, bounds_are_z_depth=bounds_are_z_depth)
