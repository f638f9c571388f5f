"""Samplers of `instant`: through occupied cells, or where learned proposals predict density."""

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

AntiAliasedDensity = Callable[[Float[Tensor, "p 3"], Float[Tensor, " p"]], Float[Tensor, " p"]]
"""Density at points, anti-aliased to the given pixel widths [scene units]."""

MIN_WEIGHT = 1e-3
IMAGE_STEP = 0.5
"""Step size for rendering relative to training: jitter averages the discretization error only in training."""
WARM_UP = 256
UPDATED_FRACTION = 32
PROPOSAL_RESOLUTIONS = [32, 64, 128]
PROPOSAL_LOG2_ENTRIES = 17
LOG_DENSITY_LIMIT = 12.0
TRIANGULATION_RESOLUTION, MIN_TRIANGULATION_VIEWS = 64, 2


@dataclass(frozen=True)
class RaySamples:
    """Packed intervals to evaluate, and for proposals their edges and histograms."""

    packed: PackedSamples
    edges: Float[Tensor, "r n_plus_1"] | None = None
    proposals: tuple[Histogram, ...] = ()

    def penalties(self, weights: Float[Tensor, " s"], distortion_loss_weight: float) -> dict[str, Tensor]:
        """Loss terms of the sampler given the weights of the intervals; the last weighs the distortion loss."""
        if self.edges is None:
            return {}
        final = Histogram(self.edges, weights.view(len(self.edges), self.edges.shape[1] - 1))
        interlevel = torch.stack([interlevel_loss(proposal, final) for proposal in self.proposals]).sum()
        return {"proposal": interlevel, "distortion": distortion_loss_weight * distortion_loss(final)}


class OccupancySampler(nn.Module):
    """Uniform steps through occupied cells, without samples that are occluded or empty under the current density."""

    def __init__(self, settings: Instant, scene: Scene, space: SceneBox, *, step: float, cone: float) -> None:
        super().__init__()
        self.step, self.cone, self.update_interval = step, cone, settings.occupancy_update_interval
        self.ndc = scene.ndc is not None
        self.finest, self.coarsest = (float(width) for width in pixel_widths(scene).aminmax())
        allowed = visible_cells(
            scene,
            space,
            settings.occupancy_resolution // 2,
            use_silhouettes=settings.space_carving and scene.images is not None,
        )
        self.occupancy = OccupancyGrid(settings.occupancy_resolution, step, subdivide_cells(allowed))

    def forward(self, rays: Rays, space: SceneBox, density: AntiAliasedDensity, rng: Rng | None) -> RaySamples:
        """Intervals of each ray that contribute to its pixel."""
        finer = IMAGE_STEP if rng is None else 1.0
        marched = march_rays(rays, self.occupancy, space, finer * self.step, finer * self.cone, rng)

        def evaluate_density(part: PackedSamples) -> Float[Tensor, " s"]:
            return density(part.points(rays), part.pixel_widths(rays, cylinders=self.ndc))

        return RaySamples(keep_visible(marched, rays, evaluate_density, min_weight=MIN_WEIGHT))

    def may_contain_density(self, unit: Float[Tensor, "p 3"]) -> float:
        """Whether density is allowed at points of the unit cube: marching has already excluded the rest."""
        return 1.0

    def mask_density(self, density: Density, space: SceneBox, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points in occupied cells; elsewhere no image constrains it."""
        return self.occupancy.mask_density(density, space, points)

    def prepare(self, step: int, space: SceneBox, density: AntiAliasedDensity, rng: Rng) -> None:
        """Updates the occupancy grid at intervals: all cells at first, then some of them."""
        if step % self.update_interval == 0:
            cells = self.occupancy.resolution**3 // UPDATED_FRACTION

            def query_density(points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
                share = rng.replicated().uniform(len(points), 1)[:, 0]
                return density(points, self.finest * (self.coarsest / self.finest) ** share)

            self.occupancy.update(query_density, space, rng, everywhere=step < WARM_UP, cells=cells)


class ProposalSampler(nn.Module):
    """A fixed number of intervals per ray, resampled in rounds by a small density grid.

    The grid has no network: its density is the exponential of the sum of its features.
    """

    triangulated_cells: Tensor

    def __init__(self, settings: Instant, scene: Scene, space: SceneBox, *, initial_density: float) -> None:
        super().__init__()
        self.counts = (*settings.num_proposal_samples, settings.num_samples)
        self.initial_density = initial_density
        self.grid = FeatureGrid(PROPOSAL_RESOLUTIONS, 1, PROPOSAL_LOG2_ENTRIES)
        self.register_buffer("triangulated_cells", triangulated_cells(scene, space))

    def forward(self, rays: Rays, space: SceneBox, density: AntiAliasedDensity, rng: Rng | None) -> RaySamples:
        """Intervals of each ray where the proposals have the most weight."""
        edges = uniform_edges(len(rays), self.counts[0], rng, rays.near.device)
        proposals = []
        for count in self.counts[1:]:
            t = s_to_t(edges, rays.near, rays.far, unbounded=space.contracted)
            proposals.append(Histogram(edges, self.weights(t, rays, space)))
            edges = resample_histogram(proposals[-1], count, rng)
        packed = pack_intervals(s_to_t(edges, rays.near, rays.far, unbounded=space.contracted))
        return RaySamples(packed, edges, tuple(proposals))

    def weights(self, t: Float[Tensor, "r n_plus_1"], rays: Rays, space: SceneBox) -> Float[Tensor, "r n"]:
        """Rendering weights of the intervals, from the density of the grid at their midpoints."""
        midpoint = 0.5 * (t[:, 1:] + t[:, :-1])
        points = torch.addcmul(rays.origins[:, None], rays.directions[:, None], midpoint[..., None])
        unit = space.to_unit_cube(points.view(-1, 3))
        density = (
            self.initial_density
            * torch.exp(self.grid(unit).sum(-1).clamp(max=LOG_DENSITY_LIMIT))
            * self.may_contain_density(unit)
        )
        return compositing.weights_from_density(
            density.view(midpoint.shape), (t[:, 1:] - t[:, :-1]) * rays.directions.norm(dim=-1, keepdim=True)
        )

    def may_contain_density(self, unit: Float[Tensor, "p 3"]) -> Bool[Tensor, " p"]:
        """Whether density is allowed at points of the unit cube."""
        x, y, z = (unit * TRIANGULATION_RESOLUTION).long().clamp(0, TRIANGULATION_RESOLUTION - 1).unbind(-1)
        return self.triangulated_cells[z, y, x]

    def mask_density(self, density: Density, space: SceneBox, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points: proposals can reach all of them."""
        return density(points)

    def prepare(self, step: int, space: SceneBox, density: AntiAliasedDensity, rng: Rng) -> None:
        """Does nothing: the grid is trained with the field."""


def triangulated_cells(scene: Scene, space: SceneBox) -> Bool[Tensor, "g g g"]:
    """Cells that two images observe and none sees before its near bound, and all cells outside the box.

    Density that a single image observes could be anywhere along its rays; close to its camera it would be a floater.
    Where walls have no texture, fog in front of the cameras explains the images as well; it would hide before near.
    """
    cells = visible_cells(
        scene,
        space,
        TRIANGULATION_RESOLUTION,
        use_silhouettes=False,
        min_views=min(MIN_TRIANGULATION_VIEWS, len(scene)),
    )
    cells &= ~cells_before_near(scene, space, TRIANGULATION_RESOLUTION)
    if space.contracted:
        beyond = torch.ones_like(cells)
        quarter = TRIANGULATION_RESOLUTION // 4
        beyond[quarter:-quarter, quarter:-quarter, quarter:-quarter] = False
        cells |= beyond
    return cells


def pack_intervals(t: Float[Tensor, "r n_plus_1"]) -> PackedSamples:
    """The intervals between the edges of each ray as packed samples."""
    rays, count = t.shape[0], t.shape[1] - 1
    ray = torch.arange(rays, dtype=torch.int32, device=t.device).repeat_interleave(count)
    offsets = torch.arange(rays + 1, device=t.device) * count
    return PackedSamples(t[:, :-1].reshape(-1), t[:, 1:].reshape(-1), ray, offsets)
