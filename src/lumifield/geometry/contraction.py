"""Mapping between scene points and the unit cube of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.geometry.rays import Rays
from lumifield.kernels import reference


@dataclass(frozen=True)
class SceneBox:
    """The box that a grid covers [scene units]; if `contracted`, all space outside is contracted into it (mip-NeRF 360,
    eq. 10)."""

    box: Float[Tensor, "2 3"]
    contracted: bool

    def to(self, device: torch.device | str) -> SceneBox:
        """The same box on `device`."""
        return SceneBox(self.box.to(device), self.contracted)

    def to_unit_cube(self, points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
        """Coordinates in [0, 1]^3 of scene points."""
        return reference.to_unit_cube(points, self.box, self.contracted)

    def from_unit_cube(self, points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
        """Scene points of coordinates in [0, 1]^3; inverse of `to_unit_cube`."""
        if self.contracted:
            points = _uncontract(points * 4 - 2) / 2 + 0.5
        return self.box[0] + points * (self.box[1] - self.box[0])

    def contraction_scale(self, points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p"]:
        """Local scale of `to_unit_cube`: the cube root of the determinant of its Jacobian."""
        span = self.box[1] - self.box[0]
        even = 1 / span.prod() ** (1 / 3)
        if not self.contracted:
            return even.expand(points.shape[:-1])
        size = (torch.addcmul(-(self.box[0] + self.box[1]) / span, points, 2 / span)).abs().amax(-1).clamp_min(1)
        return even / 2 * ((2 - 1 / size) / size**2) ** (2 / 3)

    @property
    def diameter(self) -> float:
        """Longest side of the box, doubled if contracted: the extent of one unit of the cube near the center [scene
        units]."""
        side = float((self.box[1] - self.box[0]).max())
        return 2 * side if self.contracted else side


def _uncontract(points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
    size = points.abs().amax(-1, keepdim=True).clamp_min(1)
    return points / size / (2 - size).clamp_min(1e-6)


def points_along(rays: Rays, ray: Tensor, t: Float[Tensor, " s"]) -> Float[Tensor, "s 3"]:
    """Scene points at `t` on the rays with the given indices."""
    return rays.origins[ray] + t[:, None] * rays.directions[ray]
