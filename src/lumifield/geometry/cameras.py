"""Perspective cameras and the rays of their pixels.

Axes are those of OpenCV: x right, y down, z forward. Pixel centers are at half-integers. `c2w` maps camera to scene
coordinates; lengths are in scene units, focal lengths and principal points in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

UNDISTORT_STEPS = 4


@dataclass(frozen=True)
class Cameras:
    """Perspective cameras, one row per image, with OpenCV distortion `k1 k2 p1 p2` (zeros for a pinhole)."""

    c2w: Float[Tensor, "n 3 4"]
    focal: Float[Tensor, "n 2"]
    center: Float[Tensor, "n 2"]
    size: Int[Tensor, "n 2"]
    distortion: Float[Tensor, "n 4"]

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, rows: slice | list[int] | Tensor) -> Cameras:
        return Cameras(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on `device`."""
        return Cameras(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def positions(self) -> Float[Tensor, "n 3"]:
        """Camera centers in scene coordinates."""
        return self.c2w[:, :, 3]

    @property
    def forward(self) -> Float[Tensor, "n 3"]:
        """Unit viewing directions in scene coordinates."""
        return self.c2w[:, :, 2]

    def resized(self, scale: float) -> Cameras:
        """Cameras of the images scaled by `scale`: focal length, center and size in the new pixels."""
        size = (self.size.double() * scale).round().to(self.size.dtype)
        ratio = (size.double() / self.size.double()).float()
        return replace(self, focal=self.focal * ratio, center=self.center * ratio, size=size)

    def offset_pixels(self, step: tuple[float, float]) -> Cameras:
        """Cameras whose pixel centers are offset by a fraction of a pixel to the right and down."""
        return replace(self, center=self.center - self.center.new_tensor(step))

    @cached_property
    def is_distorted(self) -> bool:
        """Whether any camera has distortion; cached, because every training step asks and reading it synchronizes."""
        return bool(self.distortion.any())

    def directions(
        self, camera: Int[Tensor, "*r"], x: Float[Tensor, "*r"], y: Float[Tensor, "*r"]
    ) -> Float[Tensor, "*r 3"]:
        """Scene directions through image points `(x, y)` [pixels], of length 1 along the optical axis."""
        xy = (torch.stack([x, y], -1) - self.center[camera]) / self.focal[camera]
        if self.is_distorted:
            xy = undistort(xy, self.distortion[camera])
        local = torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
        return (self.c2w[camera][..., :3] * local[..., None, :]).sum(-1)

    def project(self, points: Float[Tensor, "p 3"]) -> tuple[Float[Tensor, "n p 2"], Float[Tensor, "n p"]]:
        """Pixel coordinates of scene points in every camera, and their depth along the optical axis."""
        local = torch.einsum("nij,npi->npj", self.c2w[:, :, :3], points[None] - self.positions[:, None])
        depth = local[..., 2]
        xy = local[..., :2] / torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)[..., None]
        xy = distort(xy, self.distortion[:, None])
        return xy * self.focal[:, None] + self.center[:, None], depth


def pinhole_cameras(c2w: Float[Tensor, "n 3 4"], focal: float | tuple[float, float], size: tuple[int, int]) -> Cameras:
    """Cameras with one focal length [pixels] and size `(width, height)`; the principal point is the image center."""
    n = c2w.shape[0]
    fx, fy = focal if isinstance(focal, tuple) else (focal, focal)
    return Cameras(
        c2w=c2w.float(),
        focal=torch.tensor([[fx, fy]]).float().repeat(n, 1),
        center=torch.tensor([[size[0] / 2, size[1] / 2]]).float().repeat(n, 1),
        size=torch.tensor([size], dtype=torch.int64).repeat(n, 1),
        distortion=torch.zeros(n, 4),
    )


def distort(xy: Float[Tensor, "*r 2"], k: Float[Tensor, "*#r 4"]) -> Float[Tensor, "*r 2"]:
    """OpenCV's radial-tangential distortion of normalized image points."""
    x, y = xy.unbind(-1)
    k1, k2, p1, p2 = k.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * k2)
    dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return torch.stack([x * radial + dx, y * radial + dy], -1)


def undistort(xy: Float[Tensor, "*r 2"], k: Float[Tensor, "*r 4"]) -> Float[Tensor, "*r 2"]:
    """Inverse of `distort` by Newton's method, initialized with the distorted points."""
    k1, k2, p1, p2 = k.unbind(-1)
    u, v = xy.unbind(-1)
    x, y = u, v
    for _ in range(UNDISTORT_STEPS):
        off_x, off_y = (distort(torch.stack([x, y], -1), k) - xy).unbind(-1)
        r2 = x * x + y * y
        radial, derivative = 1 + r2 * (k1 + r2 * k2), 2 * (k1 + 2 * r2 * k2)
        # The Jacobian of `distort` is symmetric.
        xx = radial + derivative * x * x + 2 * p1 * y + 6 * p2 * x
        yy = radial + derivative * y * y + 6 * p1 * y + 2 * p2 * x
        mixed = derivative * x * y + 2 * p1 * x + 2 * p2 * y
        det = xx * yy - mixed * mixed
        x, y = x - (yy * off_x - mixed * off_y) / det, y - (xx * off_y - mixed * off_x) / det
    return torch.stack([x, y], -1)
