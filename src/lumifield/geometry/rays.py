"""Rays: the half-lines along which a scene is sampled, one row a pixel."""

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

    `directions` have unit length, except NDC rays, where t runs from 0 to 1. `viewdirs` are always unit scene
    directions. `radius` is the footprint of a pixel at t = 1 [scene units per t]; `image` the image's index, and
    `place` where in it the ray is: 0 to 1 from left to right and from top to bottom.
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


def to_ndc(rays: Rays, ndc: Ndc) -> Rays:
    """Rays warped into normalized device coordinates (NeRF, appendix C, equations 25-26).

    In: OpenCV scene frame of the average camera. Out: NDC axes x right, y up, z from -1 (near plane) to 1 (infinity).
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
    # The pixel's footprint where the ray meets the near plane, as the mean of its sides in NDC.
    reach = (o - rays.origins * flip).norm(dim=-1)
    radius = rays.radius * reach * (ax + ay) / (2 * ndc.plane)
    return Rays(origins, directions, rays.viewdirs, radius, zero, zero + 1, rays.image, rays.place)


def ndc_points(points: Float[Tensor, "*p 3"], ndc: Ndc) -> Float[Tensor, "*p 3"]:
    """Scene points in normalized device coordinates (NeRF, appendix C, equation 8): where `to_ndc` leads their rays."""
    x, y, z = points.unbind(-1)
    ax, ay = 2 * ndc.focal[0] / ndc.size[0], 2 * ndc.focal[1] / ndc.size[1]
    return torch.stack([ax * x / z, -ay * y / z, 1 - 2 * ndc.plane / z], -1)


def from_ndc(points: Float[Tensor, "*p 3"], ndc: Ndc) -> Float[Tensor, "*p 3"]:
    """Scene points of normalized device coordinates, the inverse of `ndc_points`; z = 1 is infinitely far."""
    x, y, z = points.unbind(-1)
    depth = 2 * ndc.plane / (1 - z)
    ax, ay = 2 * ndc.focal[0] / ndc.size[0], 2 * ndc.focal[1] / ndc.size[1]
    return torch.stack([x * depth / ax, -y * depth / ay, depth], -1)


def metric_depth(t: Float[Tensor, "*r"], rays: Rays, ndc: Ndc | None) -> Float[Tensor, "*r"]:
    """Distance from the camera [scene units] of the point at `t`; undoes the NDC warp where there is one.

    `rays` are the rays before the warp (`to_ndc` has not been applied).
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
    """Rays through the centers of the pixels `(column, row)` of the given cameras.

    `bounds_are_z_depth` says that `near` and `far` are depths along the optical axis and not distances.
    """
    x, y = pixel[:, 0] + 0.5, pixel[:, 1] + 0.5
    local = cameras.directions(camera, x, y)
    length = local.norm(dim=-1)
    unit = local / length[:, None]
    stretch = length if bounds_are_z_depth else torch.ones_like(length)
    rays = Rays(
        origins=cameras.positions[camera],
        directions=unit,
        viewdirs=unit,
        radius=1 / (cameras.focal[camera].mean(-1) * length),
        near=near[camera] * stretch,
        far=far[camera] * stretch,
        image=camera,
        place=(pixel + 0.5) / cameras.size[camera],
    )
    return rays if ndc is None else to_ndc(rays, ndc)


def moved(rays: Rays, size: tuple[int, int], step: tuple[float, float]) -> Rays:
    """The rays of images of `size` (height, width), row by row, moved by parts of a pixel to the right and down.

    Directions are linear between those of pixels: exact to second order of a pixel's angle.
    """
    right, down = step

    def there(values: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        grid = values.view(-1, *size, values.shape[-1])
        return (grid + right * _slope(grid, 2) + down * _slope(grid, 1)).view_as(values)

    directions = F.normalize(there(rays.directions), dim=-1)
    return replace(rays, directions=directions, viewdirs=directions, place=there(rays.place))


def _slope(grid: Float[Tensor, "n h w c"], axis: int) -> Float[Tensor, "n h w c"]:
    return torch.gradient(grid, dim=axis)[0] if grid.shape[axis] > 1 else torch.zeros_like(grid)


def points_at(rays: Rays, z: Float[Tensor, "r n"]) -> Float[Tensor, "r n 3"]:
    """The points at `z` of each ray."""
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
    """All rays of one image, row by row from the top left."""
    width, height = cameras.size[index].tolist()
    device = cameras.c2w.device
    row, column = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    pixel = torch.stack([column.reshape(-1), row.reshape(-1)], -1)
    camera = torch.full((width * height,), index, dtype=torch.int64, device=device)
    return camera_rays(cameras, camera, pixel, near, far, ndc, bounds_are_z_depth=bounds_are_z_depth)
