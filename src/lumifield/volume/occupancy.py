"""Occupancy grid: the cells that may contain density, so that rays skip the rest (Müller et al. 2022, appendix C)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lumifield.data.scene import Scene
from lumifield.geometry.contraction import SceneBox
from lumifield.runtime.rng import Rng

Density = Callable[[Float[Tensor, "p 3"]], Float[Tensor, " p"]]


class OccupancyGrid(nn.Module):
    """Decaying maximum of the density in each cell of [0, 1]^3, and the cells that are occupied.

    A cell is occupied if density times `step` exceeds `threshold` (or the mean over cells, if that is lower). Density
    is sampled within `margin` cells around a cell, because a thin surface fills little of its own cell.
    """

    density: Tensor
    occupied: Tensor
    allowed: Tensor

    def __init__(
        self,
        resolution: int,
        step: float,
        allowed: Bool[Tensor, "g g g"],
        *,
        threshold: float = 0.01,
        decay: float = 0.8,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        self.resolution, self.step, self.threshold, self.decay, self.margin = resolution, step, threshold, decay, margin
        self.register_buffer("density", torch.zeros(resolution**3))
        self.register_buffer("allowed", allowed.clone())
        self.register_buffer("occupied", allowed.clone())

    @torch.no_grad()
    def update(self, density: Density, space: SceneBox, rng: Rng, *, everywhere: bool, cells: int) -> None:
        """Samples the density at a random point of some cells and thresholds the grid again.

        Samples every allowed cell if `everywhere`, else `cells` of them: half uniform, half occupied.
        """
        index = self._allowed_cells() if everywhere else self._sample_cells(cells, rng)
        within = rng.replicated().uniform(len(index), 3) * (1 + 2 * self.margin) - self.margin
        points = (self._cell_corner(index) + within) / self.resolution
        found = density(space.from_unit_cube(points.clamp(0, 1)))
        self.density[index] = torch.maximum(self.density[index] * self.decay, found)
        mean = self.density[self.allowed.view(-1)].mean()
        limit = torch.clamp(mean * self.step, max=self.threshold) / self.step
        self.occupied = (self.density > limit).view(self.allowed.shape) & self.allowed

    def is_occupied(self, unit: Float[Tensor, "p 3"]) -> Bool[Tensor, " p"]:
        """Whether points of [0, 1]^3 lie in occupied cells; points outside do not."""
        cell = (unit * self.resolution).floor().long()
        x, y, z = cell.clamp(0, self.resolution - 1).unbind(-1)
        return self.occupied[z, y, x] & ((unit >= 0) & (unit <= 1)).all(-1)

    def mask_density(self, density: Density, space: SceneBox, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points in occupied cells; 0 elsewhere, where the density is not evaluated."""
        occupied = self.is_occupied(space.to_unit_cube(points))
        found = torch.zeros(len(points), device=points.device)
        found[occupied] = density(points[occupied]).float()
        return found

    def _allowed_cells(self) -> Int[Tensor, " c"]:
        # Synchronizes with the device, at the interval of the updates only: the number of cells bounds random indices.
        return self.allowed.view(-1).nonzero()[:, 0]

    def _sample_cells(self, cells: int, rng: Rng) -> Int[Tensor, " c"]:
        rng = rng.replicated()
        # Synchronizes, as in `_allowed_cells`.
        allowed, occupied = self._allowed_cells(), self.occupied.view(-1).nonzero()[:, 0]
        chosen = [allowed[rng.integers(cells // 2, len(allowed))]]
        if len(occupied):
            chosen.append(occupied[rng.integers(cells // 2, len(occupied))])
        return torch.cat(chosen)

    def _cell_corner(self, index: Int[Tensor, " c"]) -> Float[Tensor, "c 3"]:
        x, y, z = index % self.resolution, index // self.resolution % self.resolution, index // self.resolution**2
        return torch.stack([x, y, z], -1).float()


def crop_to_silhouettes(scene: Scene, side: int = 64) -> Float[Tensor, "2 3"]:
    """Bounding box of the visual hull inside the region of interest, one cell larger on each side."""
    images = scene.images
    if images is None or images.pixels.shape[-1] < 4 or scene.unbounded:
        return scene.box
    left = visible_cells(scene, SceneBox(scene.box, False), side, use_silhouettes=True).nonzero()
    if len(left) == 0:
        return scene.box
    low = (left.amin(0).flip(0) - 1).clamp(min=0) / side
    high = (left.amax(0).flip(0) + 2).clamp(max=side) / side
    return scene.box[0] + torch.stack([low, high]) * (scene.box[1] - scene.box[0])


def subdivide_cells(cells: Bool[Tensor, "g g g"]) -> Bool[Tensor, "h h h"]:
    """Each cell divided into eight."""
    for axis in range(3):
        cells = cells.repeat_interleave(2, axis)
    return cells


@torch.no_grad()
def visible_cells(
    scene: Scene, space: SceneBox, side: int, *, use_silhouettes: bool, min_views: int = 1
) -> Bool[Tensor, "g g g"]:
    """Cells that at least `min_views` images observe and that no silhouette excludes (space carving).

    An image observes what projects into it beyond its `near`. A silhouette excludes a cell whose whole projection is
    transparent.
    """
    if scene.ndc is not None:
        return torch.ones(side, side, side, dtype=torch.bool)
    points = _cell_centers(space, side)
    radius = 0.5 * 3**0.5 * space.diameter / side
    left = torch.arange(len(points))
    num_views = torch.zeros(len(points), dtype=torch.int32)
    for index in range(len(scene)):
        observed, empty = _observe_cells(scene, index, points[left], radius)
        num_views[left] += observed
        if use_silhouettes:
            left = left[~empty]
    cells = torch.zeros(len(points), dtype=torch.bool)
    cells[left] = num_views[left] >= min_views
    return cells.view(side, side, side)


def cells_before_near(scene: Scene, space: SceneBox, side: int) -> Bool[Tensor, "g g g"]:
    """Cells that some image sees closer than its `near`, which must be empty."""
    points = _cell_centers(space, side)
    through = torch.zeros(len(points), dtype=torch.bool)
    for index in range(len(scene) if scene.ndc is None else 0):
        within, distance = _project_into_image(scene, index, points)
        through |= within & (distance < scene.near[index])
    return through.view(side, side, side)


def _cell_centers(space: SceneBox, side: int) -> Float[Tensor, "p 3"]:
    axis = (torch.arange(side) + 0.5) / side
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return space.from_unit_cube(torch.stack([x, y, z], -1).reshape(-1, 3))


def _project_into_image(
    scene: Scene, index: int, points: Float[Tensor, "p 3"]
) -> tuple[Bool[Tensor, " p"], Float[Tensor, " p"]]:
    """Which points project into an image, and their distance in the terms of near and far."""
    camera = scene.cameras[[index]]
    xy, depth = (part[0] for part in camera.project(points))
    within = (depth > 0) & (xy >= 0).all(-1) & (xy < camera.size[0]).all(-1)
    return within, depth if scene.bounds_are_z_depth else (points - camera.positions).norm(dim=-1)


def _observe_cells(
    scene: Scene, index: int, points: Float[Tensor, "p 3"], radius: float
) -> tuple[Bool[Tensor, " p"], Bool[Tensor, " p"]]:
    """Which balls of `radius` a camera observes beyond near, and which it sees as fully transparent."""
    camera = scene.cameras[[index]]
    xy, depth = (part[0] for part in camera.project(points))
    size = camera.size[0]
    within, distance = _project_into_image(scene, index, points)
    observed = within & (distance >= scene.near[index])
    images = scene.images
    if images is None or images.pixels.shape[-1] < 4 or not bool(within.any()):
        return observed, torch.zeros_like(within)
    alpha = images.image(index, scene.size(index))[..., 3]
    # The largest alpha within the extent of the widest ball: if it is 0, every ball there is fully transparent.
    widest = radius * float(camera.focal.mean()) / float(depth[within].min())
    reach = int(min(widest, max(scene.size(index)))) + 1
    spread = nn.functional.max_pool2d(alpha[None, None].float(), 2 * reach + 1, stride=1, padding=reach)[0, 0]
    column, row = xy.nan_to_num().long().clamp(min=0).minimum(size - 1).unbind(-1)
    return observed, within & (spread[row, column] == 0)
