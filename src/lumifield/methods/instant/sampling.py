"""Where `instant` looks along its rays: through occupied cells, or where a learned proposal expects matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lumifield.data.scene import Scene, pixel_widths
from lumifield.fields.hash_grid import FeatureGrid
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays
from lumifield.methods.instant import Instant
from lumifield.runtime.rng import Rng
from lumifield.volume import compositing
from lumifield.volume.occupancy import Density, OccupancyGrid, cells_before_near, subdivide_cells, visible_cells
from lumifield.volume.packed import PackedSamples, keep_visible, march_rays
from lumifield.volume.proposals import (
    Histogram,
    distortion_loss,
    interlevel_loss,
    resample_histogram,
    s_to_t,
    uniform_edges,
)

Smeared = Callable[[Float[Tensor, "p 3"], Float[Tensor, " p"]], Float[Tensor, " p"]]
"""Density at points as pixels of the given widths [scene units] see it."""

MIN_WEIGHT = 1e-3
IMAGE_STEP = 0.5
"""Step of an image, in steps of training: there jitter averages the error of a coarse sum away, here nothing does."""
WARM_UP = 256
REFRESHED_SHARE = 32
PROPOSAL_RESOLUTIONS = [32, 64, 128]
PROPOSAL_LOG2_ENTRIES = 17
LOG_DENSITY_LIMIT = 12.0
LOCATED_SIDE, LOCATED_VIEWS = 64, 2


@dataclass(frozen=True)
class Sampled:
    """The intervals to look up, and what they were chosen by: the edges of a ray's intervals and its proposals."""

    packed: PackedSamples
    edges: Float[Tensor, "r n_plus_1"] | None = None
    proposals: tuple[Histogram, ...] = ()

    def penalties(self, weights: Float[Tensor, " s"], price: float) -> dict[str, Tensor]:
        """Loss terms of the choice, given what the intervals turned out to weigh; distortion costs `price`."""
        if self.edges is None:
            return {}
        final = Histogram(self.edges, weights.view(len(self.edges), self.edges.shape[1] - 1))
        missed = torch.stack([interlevel_loss(proposal, final) for proposal in self.proposals]).sum()
        return {"proposal": missed, "distortion": price * distortion_loss(final)}


class Marcher(nn.Module):
    """Even steps through occupied cells; what is hidden or empty by the density as it is now is dropped."""

    def __init__(self, settings: Instant, scene: Scene, space: SceneBox, *, step: float, cone: float) -> None:
        super().__init__()
        self.step, self.cone, self.every = step, cone, settings.occupancy_every
        self.ndc = scene.ndc is not None
        self.finest, self.coarsest = (float(width) for width in pixel_widths(scene).aminmax())
        allowed = visible_cells(scene, space, settings.occupancy_side // 2, use_silhouettes=settings.carve and scene.images is not None)
        self.occupancy = OccupancyGrid(settings.occupancy_side, step, subdivide_cells(allowed))

    def forward(self, rays: Rays, space: SceneBox, density: Smeared, rng: Rng | None) -> Sampled:
        """The intervals of each ray that contribute to its pixel."""
        finer = IMAGE_STEP if rng is None else 1.0
        marched = march_rays(rays, self.occupancy, space, finer * self.step, finer * self.cone, rng)

        def look(part: PackedSamples) -> Float[Tensor, " s"]:
            return density(part.points(rays), part.pixel_widths(rays, cylinders=self.ndc))

        return Sampled(keep_visible(marched, rays, look, min_weight=MIN_WEIGHT))

    def possible(self, unit: Float[Tensor, "p 3"]) -> float:
        """Whether matter may be at points of the unit cube: marching has asked already."""
        return 1.0

    def inside(self, density: Density, space: SceneBox, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """The density at scene points where marching looks: elsewhere no image has shaped it."""
        return self.occupancy.inside(density, space, points)

    def prepare(self, step: int, space: SceneBox, density: Smeared, rng: Rng) -> None:
        """Refreshes the occupancy grid at times: everywhere at first, then some of its cells."""
        if step % self.every == 0:
            cells = self.occupancy.resolution**3 // REFRESHED_SHARE

            def of_any_pixel(points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
                share = rng.replicated().uniform(len(points), 1)[:, 0]
                return density(points, self.finest * (self.coarsest / self.finest) ** share)

            self.occupancy.update(of_any_pixel, space, rng, everywhere=step < WARM_UP, cells=cells)


class Proposer(nn.Module):
    """A fixed number of intervals on each ray, gathered in rounds where a grid of densities expects matter.

    The grid has no network: its density is the exponential of the sum of its features.
    """

    located: Tensor

    def __init__(self, settings: Instant, scene: Scene, space: SceneBox, *, first: float) -> None:
        super().__init__()
        self.counts = (*settings.proposals, settings.samples)
        self.first = first
        self.grid = FeatureGrid(PROPOSAL_RESOLUTIONS, 1, PROPOSAL_LOG2_ENTRIES)
        self.register_buffer("located", located(scene, space))

    def forward(self, rays: Rays, space: SceneBox, density: Smeared, rng: Rng | None) -> Sampled:
        """The intervals of each ray where the proposals saw most."""
        edges = uniform_edges(len(rays), self.counts[0], rng, rays.near.device)
        proposals = []
        for count in self.counts[1:]:
            t = s_to_t(edges, rays.near, rays.far, unbounded=space.contracted)
            proposals.append(Histogram(edges, self.weights(t, rays, space)))
            edges = resample_histogram(proposals[-1], count, rng)
        packed = packed_evenly(s_to_t(edges, rays.near, rays.far, unbounded=space.contracted))
        return Sampled(packed, edges, tuple(proposals))

    def weights(self, t: Float[Tensor, "r n_plus_1"], rays: Rays, space: SceneBox) -> Float[Tensor, "r n"]:
        """How much of each ray its intervals stop, by what the grid expects in their middles."""
        middle = 0.5 * (t[:, 1:] + t[:, :-1])
        points = torch.addcmul(rays.origins[:, None], rays.directions[:, None], middle[..., None])
        unit = space.to_unit_cube(points.view(-1, 3))
        density = self.first * torch.exp(self.grid(unit).sum(-1).clamp(max=LOG_DENSITY_LIMIT)) * self.possible(unit)
        return compositing.weights_from_density(
            density.view(middle.shape), (t[:, 1:] - t[:, :-1]) * rays.directions.norm(dim=-1, keepdim=True)
        )

    def possible(self, unit: Float[Tensor, "p 3"]) -> Bool[Tensor, " p"]:
        """Whether matter may be at points of the unit cube."""
        x, y, z = (unit * LOCATED_SIDE).long().clamp(0, LOCATED_SIDE - 1).unbind(-1)
        return self.located[z, y, x]

    def inside(self, density: Density, space: SceneBox, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """The density at scene points: proposals may lead to all of them."""
        return density(points)

    def prepare(self, step: int, space: SceneBox, density: Smeared, rng: Rng) -> None:
        """Nothing: the grid learns with the field."""


def located(scene: Scene, space: SceneBox) -> Bool[Tensor, "g g g"]:
    """The cells of the box that two images look at and none looks through before its near, and all beyond it.

    Matter that a single image shows could be anywhere on its rays. Right before its camera it would be a floater.
    Where walls have no texture, fog before the cameras shows them as well: it would hide in what is nearer than near.
    """
    cells = visible_cells(scene, space, LOCATED_SIDE, use_silhouettes=False, min_views=min(LOCATED_VIEWS, len(scene)))
    cells &= ~cells_before_near(scene, space, LOCATED_SIDE)
    if space.contracted:
        beyond = torch.ones_like(cells)
        quarter = LOCATED_SIDE // 4
        beyond[quarter:-quarter, quarter:-quarter, quarter:-quarter] = False
        cells |= beyond
    return cells


def packed_evenly(t: Float[Tensor, "r n_plus_1"]) -> PackedSamples:
    """The intervals between the edges of each ray, one ray after the other."""
    rays, count = t.shape[0], t.shape[1] - 1
    ray = torch.arange(rays, dtype=torch.int32, device=t.device).repeat_interleave(count)
    offsets = torch.arange(rays + 1, device=t.device) * count
    return PackedSamples(t[:, :-1].reshape(-1), t[:, 1:].reshape(-1), ray, offsets)
