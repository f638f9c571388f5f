"""Method `mip-nerf`: every pass evaluates one network at the Gaussians of its intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lumifield.data.scene import Batch, Scene, median_pixel_width
from lumifield.errors import DataError
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered, TrainingContext
from lumifield.methods.mip_nerf import MipNerf
from lumifield.methods.mip_nerf.gaussian_fields import GridField, build_mip_nerf_mlp, grid_resolution
from lumifield.runtime.precision import autocast
from lumifield.runtime.rng import Rng
from lumifield.volume.compositing import composite, composite_colors, weights_from_density
from lumifield.volume.mip_gaussians import interval_gaussians
from lumifield.volume.sampling import blur_weights, linspace_depths, midpoints, resample_edges, sample_stratified

GRID_LEARNING_RATE_FACTOR = 20.0
"""Learning-rate factor of grid parameters, each of which receives few samples."""


class MipNerfMethod(Method):
    """Conical frustums, one field for all passes, resampling by blurred weights (mip-NeRF, section 3)."""

    spread: Tensor

    def __init__(self, settings: MipNerf, scene: Scene) -> None:
        super().__init__()
        if settings.disparity and not bool((scene.near > 0).all()):
            found, fix = "rays that start at t = 0", "drop it (NDC rays are linear in disparity already)"
            raise DataError("mip-nerf", "disparity", found, "near bounds above 0", fix)
        if settings.ray_shape == "auto":
            settings = replace(settings, ray_shape="cone" if scene.ndc is None else "cylinder")
        if settings.backbone == "grid":
            settings = replace(settings, grid_max_resolution=grid_resolution(settings, scene))
        self.settings = settings
        self.field = GridField(settings, scene) if settings.backbone == "grid" else build_mip_nerf_mlp(settings)
        self.register_buffer("spread", torch.tensor(median_pixel_width(scene) ** 2 / 12))

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Uniform intervals, resampled passes, compositing of the last."""
        settings = self.settings
        rng = context.jitter_rng if settings.jitter else None
        t = sample_stratified(
            linspace_depths(rays.near, rays.far, settings.num_samples + 1, disparity=settings.disparity), rng
        )
        coarse = []
        for _ in range(settings.num_passes - 1):
            if not isinstance(context, TrainingContext):  # without losses the coarse color is not needed
                weights = self.weights_only(rays, t, context)
            else:
                weights, rgb = self.weights_and_colors(rays, t, context)
                coarse.append(composite_colors(weights, rgb, context.background))
            t = self.resample_edges_for(t, weights, rng)
        weights, rgb = self.weights_and_colors(rays, t, context)
        rendered = composite(weights, rgb, midpoints(t), rays.far, context.background)
        return replace(rendered, coarse=tuple(coarse), samples=settings.num_passes * rendered.samples)

    def weights_and_colors(
        self, rays: Rays, t: Float[Tensor, "r n_plus_1"], context: RenderContext
    ) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n 3"]]:
        """Weights and colors of the intervals between the edges `t`."""
        view = self.field.directional(rays.viewdirs)
        with autocast(t.device, self.settings.bf16):
            density, rgb = self.field(self.gaussians_of(rays, t), view[:, None], self.noise(t, context))
        return weights_from_density(density, edge_distances(rays, t)), self.pad_colors(rgb)

    def weights_only(self, rays: Rays, t: Float[Tensor, "r n_plus_1"], context: RenderContext) -> Float[Tensor, "r n"]:
        """Weights of the intervals between the edges `t`."""
        with autocast(t.device, self.settings.bf16):
            density = self.field.density_alone(self.gaussians_of(rays, t), self.noise(t, context))
        return weights_from_density(density, edge_distances(rays, t))

    def gaussians_of(self, rays: Rays, t: Float[Tensor, "r n_plus_1"]) -> Float[Tensor, "r n 6"]:
        """Gaussians of the intervals; points without the integrated encoding."""
        found = interval_gaussians(rays, t, cylinders=self.settings.ray_shape == "cylinder")
        if not self.settings.integrated_encoding:
            found = replace(found, variance=torch.zeros_like(found.variance))
        return found.stacked

    def resample_edges_for(
        self, t: Float[Tensor, "r n_plus_1"], weights: Float[Tensor, "r n"], rng: Rng | None
    ) -> Float[Tensor, "r n_plus_1"]:
        """Edges of as many intervals, resampled by the weights."""
        weights = blur_weights(
            weights.detach() if self.settings.stop_gradient else weights, self.settings.resample_padding
        )
        return resample_edges(t, weights, self.settings.num_samples, rng)

    def noise(self, t: Float[Tensor, "r n_plus_1"], context: RenderContext) -> Float[Tensor, "r n"] | None:
        """Noise for raw densities in training, if enabled."""
        if not isinstance(context, TrainingContext) or self.settings.density_noise_std == 0:
            return None
        return self.settings.density_noise_std * context.rng.normal(len(t), t.shape[1] - 1)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Squared errors of all passes (equation 19)."""
        losses = {"rgb": F.mse_loss(rendered.rgb, batch.rgb)}
        if rendered.coarse:
            errors = torch.stack([F.mse_loss(rgb, batch.rgb) for rgb in rendered.coarse])
            losses["coarse"] = self.settings.coarse_loss_weight * errors.sum()
        return losses

    @torch.no_grad()
    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at points, over the width of a pixel [1 / unit of the rays' space]."""
        with autocast(points.device, self.settings.bf16):
            return self.field.density_alone(self.pixel_gaussians(points))

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors at points, over the width of a pixel."""
        with autocast(points.device, self.settings.bf16):
            rgb = self.field(self.pixel_gaussians(points), self.field.directional(viewdirs))[1]
        return self.pad_colors(rgb).clamp(0, 1)

    def pixel_gaussians(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p 6"]:
        """Gaussians at the points with the width of a training pixel."""
        spread = self.spread if self.settings.integrated_encoding else torch.zeros_like(self.spread)
        return torch.cat([points, spread.expand_as(points)], -1)

    def pad_colors(self, rgb: Float[Tensor, "*s 3"]) -> Float[Tensor, "*s 3"]:
        """Colors in [-padding, 1 + padding] from those in [0, 1]."""
        padding = self.settings.rgb_padding
        return rgb * (1 + 2 * padding) - padding

    def param_groups(self) -> list[dict[str, Any]]:
        """One group, with a higher learning rate for the grid."""
        factor = GRID_LEARNING_RATE_FACTOR if self.settings.backbone == "grid" else 1.0
        return [{"params": list(self.parameters()), "lr_factor": factor}]

    def rays_per_step(self) -> int:
        """Batch size of the settings."""
        return self.settings.batch_size


def edge_distances(rays: Rays, t: Float[Tensor, "r n_plus_1"]) -> Float[Tensor, "r n"]:
    """Lengths of the intervals in space."""
    return (t[:, 1:] - t[:, :-1]) * rays.directions.norm(dim=-1, keepdim=True)
