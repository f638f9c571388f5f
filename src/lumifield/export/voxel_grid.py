"""Sparse voxels: opacity at some corners of a regular grid, interpolated trilinearly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from lumifield import kernels
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays
from lumifield.volume.packed import PackedSamples, keep_visible

STEP = 0.5
"""Sample distance along a ray [voxels]."""
CONE = 1 / 64
"""Increase of the sample distance per distance from the camera, in contracted space."""
MAX_ALPHA = 254 / 255
"""Maximum opacity of a voxel: fits in 8 bits and has a finite logarithm."""
CORNERS = tuple(product((0, 1), repeat=3))


@dataclass(frozen=True)
class VoxelLattice:
    """Grid of `side`^3 cells over a box; cells and corners are indexed `[z, y, x]`."""

    space: SceneBox
    side: int

    @property
    def step(self) -> float:
        """Sample distance near the cameras [scene units]."""
        return STEP * self.space.diameter / self.side

    @property
    def cone(self) -> float:
        """Increase of the sample distance with t."""
        return CONE if self.space.contracted else 0.0

    def lengths(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Cell size at scene points [scene units]."""
        return 1 / (self.side * self.space.contraction_scale(points))

    def corners(self, index: Int[Tensor, " v"]) -> Float[Tensor, "v 3"]:
        """Scene points of corners given by flat indices."""
        wide = self.side + 1
        return self.space.from_unit_cube(
            torch.stack([index % wide, index // wide % wide, index // wide**2], -1) / self.side
        )

    def cells(self, points: Float[Tensor, "p 3"]) -> Bool[Tensor, "g g g"]:
        """Cells that contain at least one of the scene points."""
        x, y, z = (self.space.to_unit_cube(points) * self.side).long().clamp(0, self.side - 1).unbind(-1)
        held = torch.zeros(self.side, self.side, self.side, dtype=torch.bool)
        held[z, y, x] = True
        return held


def cell_corners(cells: Bool[Tensor, "g g g"]) -> Bool[Tensor, "c c c"]:
    """Corners of the cells."""
    side = len(cells)
    corners = torch.zeros(side + 1, side + 1, side + 1, dtype=torch.bool)
    for z, y, x in CORNERS:
        corners[z : side + z, y : side + y, x : side + x] |= cells
    return corners


def cells_with_corners(corners: Bool[Tensor, "c c c"]) -> Bool[Tensor, "g g g"]:
    """Cells with at least one of the corners."""
    side = len(corners) - 1
    cells = torch.zeros(side, side, side, dtype=torch.bool)
    for z, y, x in CORNERS:
        cells |= corners[z : side + z, y : side + y, x : side + x]
    return cells


@dataclass(frozen=True)
class Voxels:
    """Opacity over the length of a cell, `1 - exp(-density * length)`, at some corners.

    `row` maps each corner to its row of `alpha` and of other tables. Row 0 is empty space.
    """

    lattice: VoxelLattice
    row: Int[Tensor, "c c c"]
    alpha: Float[Tensor, " v"]

    @staticmethod
    def of(lattice: VoxelLattice, corners: Int[Tensor, " n"], alpha: Float[Tensor, " n"]) -> Voxels:
        """Voxels with opacity at the corners of the given increasing flat indices."""
        wide = lattice.side + 1
        row = torch.zeros(wide**3, dtype=torch.int32)
        row[corners] = torch.arange(1, len(corners) + 1, dtype=torch.int32)
        return Voxels(lattice, row.view(wide, wide, wide), F.pad(alpha.clamp(0, MAX_ALPHA), (1, 0)))

    @property
    def corners(self) -> Int[Tensor, " n"]:
        """Flat indices of the corners with opacity, in row order."""
        return self.row.flatten().nonzero()[:, 0]

    def select(self, corners: Bool[Tensor, "c c c"]) -> Voxels:
        """Only these corners."""
        left = (corners & (self.row > 0)).flatten().nonzero()[:, 0]
        return Voxels.of(self.lattice, left, self.alpha[self.row.flatten()[left]])

    def corner_weights(self, points: Float[Tensor, "p 3"]) -> tuple[Int[Tensor, "p 8"], Float[Tensor, "p 8"]]:
        """Rows of the eight corners around scene points, and their trilinear weights."""
        side = self.lattice.side
        scaled = self.lattice.space.to_unit_cube(points).clamp(0, 1) * side
        cell = scaled.floor().clamp(max=side - 1)
        x, y, z = (torch.stack([1 - part, part], -1) for part in (scaled - cell).unbind(-1))
        weights = (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).flatten(1)
        strides = torch.tensor([(side + 1) ** 2, side + 1, 1])
        first = (cell.long() * strides.flip(0)).sum(-1, keepdim=True)
        return self.row.flatten()[first + torch.tensor(CORNERS) @ strides], weights

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points [1 / scene unit]."""
        rows, weights = self.corner_weights(points)
        return -torch.log1p(-interpolate_rows(self.alpha[:, None], rows, weights)[:, 0]) / self.lattice.lengths(points)

    def march(
        self, rays: Rays, occupied: Bool[Tensor, "g g g"], jitter: Float[Tensor, " r"], min_weight: float
    ) -> tuple[PackedSamples, Float[Tensor, " s"]]:
        """Intervals of rays whose weight exceeds `min_weight`, and their weights."""
        box, contracted = self.lattice.space.box, self.lattice.space.contracted
        marched = kernels.march(
            rays.origins,
            rays.directions,
            rays.near,
            rays.far,
            jitter,
            occupied,
            box,
            contracted,
            self.lattice.step,
            self.lattice.cone,
        )
        packed = keep_visible(
            PackedSamples(*marched), rays, lambda part: self.density(part.points(rays)), min_weight=min_weight
        )
        optical_depth = self.density(packed.points(rays)) * packed.lengths(rays)
        return packed, kernels.packed_weights(optical_depth, packed.offsets)


def interpolate_rows(
    table: Shaped[Tensor, "v c"], rows: Int[Tensor, "p 8"], weights: Float[Tensor, "p 8"]
) -> Float[Tensor, "p c"]:
    """Weighted sums of table rows; row 0 counts as zero."""
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum", padding_idx=0)
