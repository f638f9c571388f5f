"""Method `nerf` with an occupancy grid: one network, evaluated in occupied cells only."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lumifield import kernels
from lumifield.data.scene import Batch, Scene
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.methods.nerf import Nerf
from lumifield.methods.nerf.method import build_nerf_mlp
from lumifield.runtime.precision import autocast
from lumifield.runtime.rng import Rng
from lumifield.volume.compositing import MIN_OPACITY
from lumifield.volume.occupancy import OccupancyGrid, crop_to_silhouettes, visible_cells
from lumifield.volume.packed import keep_visible, march_rays

MIN_WEIGHT = 1e-4
UPDATE_EVERY, WARM_UP, UPDATED_CELLS_FRACTION = 16, 256, 16
EMPTY_DENSITY = 0.1
"""Cells with less density than this [1 / unit] are empty. Initial density is three times as high, so that no cell is
dropped before training."""
MARGIN = 0.5


class OccupancyNerf(Method):
    """Uniform samples in occupied cells replace the coarse network (Müller et al. 2022, appendix C)."""

    box: Tensor

    def __init__(self, settings: Nerf, scene: Scene) -> None:
        super().__init__()
        self.settings = settings
        carve = scene.images is not None
        box = crop_to_silhouettes(scene) if carve else scene.box
        self.register_buffer("box", box.clone())
        self.contracted = scene.unbounded
        self.step = float((scene.far - scene.near).median()) / settings.num_occupancy_samples
        self.network = build_nerf_mlp(settings)
        allowed = visible_cells(scene, self.space, settings.occupancy_resolution, use_silhouettes=carve)
        threshold = EMPTY_DENSITY * self.step
        self.occupancy = OccupancyGrid(
            settings.occupancy_resolution, self.step, allowed, threshold=threshold, margin=MARGIN
        )

    @property
    def space(self) -> SceneBox:
        """The box that the occupancy grid covers."""
        return SceneBox(self.box, self.contracted)

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Marches rays, drops occluded samples, evaluates the network, composites."""
        packed = march_rays(rays, self.occupancy, self.space, self.step, 0.0, context.jitter_rng)
        if (
            torch.is_grad_enabled()
        ):  # evaluating density first costs less than the gradients that it saves, but only in training
            packed = keep_visible(
                packed, rays, lambda part: self.query_density(part.points(rays)), min_weight=MIN_WEIGHT
            )
        view = self.network.directional(rays.directions if self.settings.ndc_viewdirs else rays.viewdirs)
        with autocast(rays.origins.device, self.settings.bf16):
            density, rgb = self.network(packed.points(rays), view.index_select(0, packed.ray))
        weights = packed.weights(density, rays)
        values = torch.cat([rgb, packed.midpoints[:, None], torch.ones_like(rgb[:, :1])], -1)
        sums = kernels.segment_sum(weights[:, None] * values, packed.offsets)
        opacity = sums[:, 4]
        return Rendered(
            rgb=sums[:, :3] + (1 - opacity[:, None]) * context.background,
            depth=torch.where(opacity > MIN_OPACITY, sums[:, 3] / opacity.clamp_min(MIN_OPACITY), rays.far),
            opacity=opacity,
            samples=len(packed),
        )

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Squared error of the colors."""
        return {"rgb": F.mse_loss(rendered.rgb, batch.rgb)}

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density in occupied cells, zero elsewhere, where no image constrains it [1 / unit of the rays' space]."""
        return self.occupancy.mask_density(self.query_density, self.space, points)

    @torch.no_grad()
    def query_density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density of the network, also outside the occupied cells, without gradient."""
        with autocast(points.device, self.settings.bf16):
            return self.network.density_alone(points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors of the network."""
        with autocast(points.device, self.settings.bf16):
            return self.network(points, self.network.directional(viewdirs))[1]

    def rays_per_step(self) -> int:
        """Batch size of the settings."""
        return self.settings.batch_size

    def before_step(self, step: int, rng: Rng) -> None:
        """Updates the occupancy grid: all cells at first, then a fraction of them."""
        if step % UPDATE_EVERY == 0:
            cells = self.settings.occupancy_resolution**3 // UPDATED_CELLS_FRACTION
            self.occupancy.update(self.query_density, self.space, rng, everywhere=step < WARM_UP, cells=cells)
