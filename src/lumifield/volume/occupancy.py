"""Occupancy: which cells of space may hold matter, so that rays skip the rest (Müller et al. 2022, appendix C)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lumifield.data.scene import Scene
from lumifield.geometry.contraction import Space
from lumifield.runtime.rng import Rng

Density = Callable[[Float[Tensor, "p 3"]], Float[Tensor, " p"]]


class Occupancy(nn.Module):
    """A decaying maximum of the density in each cell of [0, 1]^3, and the cells where it matters.

    A cell is occupied where density times `step` exceeds `threshold` (or the mean over cells, while that is lower). It
    is measured within `margin` cells of it, too: a sliver of matter fills little of its own cell, and is soon missed.
    """

    density: Tensor
    occupied: Tensor
    allowed: Tensor

    def __init__(
        self,
        side: int,
        step: float,
        allowed: Bool[Tensor, "g g g"],
        *,
        threshold: float = 0.01,
        decay: float = 0.8,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        self.side, self.step, self.threshold, self.decay, self.margin = side, step, threshold, decay, margin
        self.register_buffer("density", torch.zeros(side**3))
        self.register_buffer("allowed", allowed.clone())
        self.register_buffer("occupied", allowed.clone())

    @torch.no_grad()
    def refresh(self, density: Density, space: Space, rng: Rng, *, everywhere: bool, cells: int) -> None:
        """Measures the density in some cells at a random point each and decides again which are occupied.

        Looks at every allowed cell, or at `cells` of them, half uniform and half among the occupied.
        """
        index = self._all() if everywhere else self._some(cells, rng)
        within = rng.replicated().uniform(len(index), 3) * (1 + 2 * self.margin) - self.margin
        points = (self._corner(index) + within) / self.side
        found = density(space.scene(points.clamp(0, 1)))
        self.density[index] = torch.maximum(self.density[index] * self.decay, found)
        mean = self.density[self.allowed.view(-1)].mean()
        limit = torch.clamp(mean * self.step, max=self.threshold) / self.step
        self.occupied = (self.density > limit).view(self.allowed.shape) & self.allowed

    def holds(self, unit: Float[Tensor, "p 3"]) -> Bool[Tensor, " p"]:
        """Whether points of [0, 1]^3 lie in occupied cells; points outside do not."""
        cell = (unit * self.side).floor().long()
        x, y, z = cell.clamp(0, self.side - 1).unbind(-1)
        return self.occupied[z, y, x] & ((unit >= 0) & (unit <= 1)).all(-1)

    def inside(self, density: Density, space: Space, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """The density at scene points in occupied cells; elsewhere 0, without asking for it."""
        held = self.holds(space.unit(points))
        found = torch.zeros(len(points), device=points.device)
        found[held] = density(points[held]).float()
        return found

    def _all(self) -> Int[Tensor, " c"]:
        return self.allowed.view(-1).nonzero()[:, 0]

    def _some(self, cells: int, rng: Rng) -> Int[Tensor, " c"]:
        rng = rng.replicated()
        allowed, occupied = self._all(), self.occupied.view(-1).nonzero()[:, 0]
        picked = [allowed[rng.integers(cells // 2, len(allowed))]]
        if len(occupied):
            picked.append(occupied[rng.integers(cells // 2, len(occupied))])
        return torch.cat(picked)

    def _corner(self, index: Int[Tensor, " c"]) -> Float[Tensor, "c 3"]:
        x, y, z = index % self.side, index // self.side % self.side, index // self.side**2
        return torch.stack([x, y, z], -1).float()


def carved_box(scene: Scene, side: int = 64) -> Float[Tensor, "2 3"]:
    """The smallest box round what silhouettes leave of the region of interest, one cell wider."""
    images = scene.images
    if images is None or images.pixels.shape[-1] < 4 or scene.unbounded:
        return scene.box
    left = seen(scene, Space(scene.box, False), side, carve=True).nonzero()
    if len(left) == 0:
        return scene.box
    low = (left.amin(0).flip(0) - 1).clamp(min=0) / side
    high = (left.amax(0).flip(0) + 2).clamp(max=side) / side
    return scene.box[0] + torch.stack([low, high]) * (scene.box[1] - scene.box[0])


def halved(cells: Bool[Tensor, "g g g"]) -> Bool[Tensor, "h h h"]:
    """The same cells cut into eight each."""
    for axis in range(3):
        cells = cells.repeat_interleave(2, axis)
    return cells


@torch.no_grad()
def seen(scene: Scene, space: Space, side: int, *, carve: bool, least: int = 1) -> Bool[Tensor, "g g g"]:
    """The cells that at least so many images look at, and that no silhouette excludes (space carving).

    An image looks at what is in its image from its `near` on: of what is nearer, no ray tells. A silhouette
    excludes a cell whose whole projection falls on transparent pixels.
    """
    if scene.ndc is not None:
        return torch.ones(side, side, side, dtype=torch.bool)
    points = _middles(space, side)
    radius = 0.5 * 3**0.5 * space.diameter / side
    left = torch.arange(len(points))
    looks = torch.zeros(len(points), dtype=torch.int32)
    for index in range(len(scene)):
        looked, empty = _look(scene, index, points[left], radius)
        looks[left] += looked
        if carve:
            left = left[~empty]
    cells = torch.zeros(len(points), dtype=torch.bool)
    cells[left] = looks[left] >= least
    return cells.view(side, side, side)


def looked_through(scene: Scene, space: Space, side: int) -> Bool[Tensor, "g g g"]:
    """The cells that some image sees nearer than its `near`, where nothing can be."""
    points = _middles(space, side)
    through = torch.zeros(len(points), dtype=torch.bool)
    for index in range(len(scene) if scene.ndc is None else 0):
        within, away = _framed(scene, index, points)
        through |= within & (away < scene.near[index])
    return through.view(side, side, side)


def _middles(space: Space, side: int) -> Float[Tensor, "p 3"]:
    axis = (torch.arange(side) + 0.5) / side
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return space.scene(torch.stack([x, y, z], -1).reshape(-1, 3))


def _framed(scene: Scene, index: int, points: Float[Tensor, "p 3"]) -> tuple[Bool[Tensor, " p"], Float[Tensor, " p"]]:
    """Which points are in an image, and how far away they are as its near and far count."""
    camera = scene.cameras[[index]]
    xy, depth = (part[0] for part in camera.project(points))
    within = (depth > 0) & (xy >= 0).all(-1) & (xy < camera.size[0]).all(-1)
    return within, depth if scene.bounds_are_z_depth else (points - camera.positions).norm(dim=-1)


def _look(
    scene: Scene, index: int, points: Float[Tensor, "p 3"], radius: float
) -> tuple[Bool[Tensor, " p"], Bool[Tensor, " p"]]:
    """The balls of `radius` whose middles a camera looks at, from near on, and those that it sees to be transparent."""
    camera = scene.cameras[[index]]
    xy, depth = (part[0] for part in camera.project(points))
    size = camera.size[0]
    within, away = _framed(scene, index, points)
    looked = within & (away >= scene.near[index])
    images = scene.images
    if images is None or images.pixels.shape[-1] < 4 or not bool(within.any()):
        return looked, torch.zeros_like(within)
    alpha = images.image(index, scene.size(index))[..., 3]
    # The largest alpha within the reach of the widest ball: transparent there means transparent all over any ball.
    widest = radius * float(camera.focal.mean()) / float(depth[within].min())
    reach = int(min(widest, max(scene.size(index)))) + 1
    spread = nn.functional.max_pool2d(alpha[None, None].float(), 2 * reach + 1, stride=1, padding=reach)[0, 0]
    column, row = xy.nan_to_num().long().clamp(min=0).minimum(size - 1).unbind(-1)
    return looked, within & (spread[row, column] == 0)
