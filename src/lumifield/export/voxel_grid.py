"""Sparse voxels: opacity at some corners of a regular grid, interpolated trilinearly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from lumifield import kernels
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays
from lumifield.volume.packed import PackedSamples, keep_visible

STEP_SIZE = 0.5
"""Distance of samples along a ray [voxels]."""
CONE_ANGLE = 1 / 64
"""Increase of the sample distance per distance from the camera, in contracted space."""
MAX_ALPHA = 254 / 255
"""Maximum opacity of a voxel: fits in 8 bits and has a finite logarithm."""
CORNER_OFFSETS = tuple(product((0, 1), repeat=3))


@dataclass(frozen=True)
class VoxelGrid:
    """Grid of `resolution`^3 cells over a box; cells and corners are indexed `[z, y, x]`."""

    scene_box: SceneBox
    resolution: int

    @property
    def step_size(self) -> float:
        """Sample distance near the cameras [scene units]."""
        return STEP_SIZE * self.scene_box.diameter / self.resolution

    @property
    def cone_angle(self) -> float:
        """Increase of the sample distance with t."""
        return CONE_ANGLE if self.scene_box.contracted else 0.0

    def cell_sizes(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Cell size at scene points [scene units]."""
        return 1 / (self.resolution * self.scene_box.contraction_scale(points))

    def corner_positions(self, index: Int[Tensor, " v"]) -> Float[Tensor, "v 3"]:
        """Scene points of corners given by flat indices."""
        width = self.resolution + 1
        corner = torch.stack([index % width, index // width % width, index // width**2], -1)
        return self.scene_box.from_unit_cube(corner / self.resolution)

    def cell_mask(self, points: Float[Tensor, "p 3"]) -> Bool[Tensor, "g g g"]:
        """Mask of the cells that contain at least one of the scene points."""
        n = self.resolution
        x, y, z = (self.scene_box.to_unit_cube(points) * n).long().clamp(0, n - 1).unbind(-1)
        cells = torch.zeros(n, n, n, dtype=torch.bool)
        cells[z, y, x] = True
        return cells


def cell_corners(cells: Bool[Tensor, "g g g"]) -> Bool[Tensor, "c c c"]:
    """Mask of the corners of the cells."""
    n = len(cells)
    corners = torch.zeros(n + 1, n + 1, n + 1, dtype=torch.bool)
    for z, y, x in CORNER_OFFSETS:
        corners[z : n + z, y : n + y, x : n + x] |= cells
    return corners


def cells_with_corners(corners: Bool[Tensor, "c c c"]) -> Bool[Tensor, "g g g"]:
    """Mask of the cells with at least one of the corners."""
    n = len(corners) - 1
    cells = torch.zeros(n, n, n, dtype=torch.bool)
    for z, y, x in CORNER_OFFSETS:
        cells |= corners[z : n + z, y : n + y, x : n + x]
    return cells


@dataclass(frozen=True)
class SparseVoxels:
    """Opacity over the length of a cell, `1 - exp(-density * length)`, at some corners.

    `row` maps each corner to its row of `alpha` and of other tables. Row 0 is empty space.
    """

    grid: VoxelGrid
    row: Int[Tensor, "c c c"]
    alpha: Float[Tensor, " v"]

    @staticmethod
    def from_corners(grid: VoxelGrid, corners: Int[Tensor, " n"], alpha: Float[Tensor, " n"]) -> SparseVoxels:
        """Voxels with opacity at the corners of the given increasing flat indices."""
        width = grid.resolution + 1
        row = torch.zeros(width**3, dtype=torch.int32)
        row[corners] = torch.arange(1, len(corners) + 1, dtype=torch.int32)
        return SparseVoxels(grid, row.view(width, width, width), F.pad(alpha.clamp(0, MAX_ALPHA), (1, 0)))

    @property
    def corners(self) -> Int[Tensor, " n"]:
        """Flat indices of the corners with opacity, in row order."""
        return self.row.flatten().nonzero()[:, 0]

    @cached_property
    def occupied_cells(self) -> Bool[Tensor, "g g g"]:
        """Mask of the cells with opacity at a corner."""
        return cells_with_corners(self.row > 0)

    def select(self, corners: Bool[Tensor, "c c c"]) -> SparseVoxels:
        """Voxels at the masked corners only."""
        kept = (corners & (self.row > 0)).flatten().nonzero()[:, 0]
        return SparseVoxels.from_corners(self.grid, kept, self.alpha[self.row.flatten()[kept]])

    def corner_weights(self, points: Float[Tensor, "p 3"]) -> tuple[Int[Tensor, "p 8"], Float[Tensor, "p 8"]]:
        """Rows of the eight corners around scene points, and their trilinear weights."""
        n = self.grid.resolution
        scaled = self.grid.scene_box.to_unit_cube(points).clamp(0, 1) * n
        cell = scaled.floor().clamp(max=n - 1)
        x, y, z = (torch.stack([1 - offset, offset], -1) for offset in (scaled - cell).unbind(-1))
        weights = (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).flatten(1)
        strides = torch.tensor([(n + 1) ** 2, n + 1, 1])
        first = (cell.long() * strides.flip(0)).sum(-1, keepdim=True)
        return self.row.flatten()[first + torch.tensor(CORNER_OFFSETS) @ strides], weights

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points [1 / scene unit]."""
        rows, weights = self.corner_weights(points)
        alpha = interpolate_rows(self.alpha[:, None], rows, weights)[:, 0]
        return -torch.log1p(-alpha) / self.grid.cell_sizes(points)

    def march(
        self, rays: Rays, jitter: Float[Tensor, " r"], *, min_weight: float
    ) -> tuple[PackedSamples, Float[Tensor, " s"]]:
        """Intervals of rays with a compositing weight above `min_weight`, and their weights."""
        marched = kernels.march(
            rays.origins,
            rays.directions,
            rays.near,
            rays.far,
            jitter,
            self.occupied_cells,
            self.grid.scene_box.box,
            self.grid.scene_box.contracted,
            self.grid.step_size,
            self.grid.cone_angle,
        )
        packed = keep_visible(
            PackedSamples(*marched), rays, lambda part: self.density(part.points(rays)), min_weight=min_weight
        )
        return packed, packed.weights(self.density(packed.points(rays)), rays)


def interpolate_rows(
    table: Shaped[Tensor, "v c"], rows: Int[Tensor, "p 8"], weights: Float[Tensor, "p 8"]
) -> Float[Tensor, "p c"]:
    """Weighted sums of table rows; row 0 counts as zero."""
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum", padding_idx=0)
