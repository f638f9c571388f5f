"""The module behind `mip-nerf`: every pass asks one network for the Gaussians of its intervals."""

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
from lumifield.methods.base import Context, Method, Rendered
from lumifield.methods.mip_nerf import MipNerf
from lumifield.methods.mip_nerf.fields import GridField, finest_of, mlp
from lumifield.runtime.precision import autocast
from lumifield.runtime.rng import Rng
from lumifield.volume.compositing import composite, expected_depth, weights_from_density
from lumifield.volume.mip_gaussians import interval_gaussians
from lumifield.volume.sampling import blur_weights, linspace_depths, midpoints, resample_edges, sample_stratified

GRID_RATE = 20.0
"""The grid's parameters are each seen by few samples and move faster than those of the deep network."""


class MipNerfMethod(Method):
    """Cones, one field for all passes, resampling by blurred weights (mip-NeRF, section 3)."""

    spread: Tensor

    def __init__(self, settings: MipNerf, scene: Scene) -> None:
        super().__init__()
        if settings.disparity and not bool((scene.near > 0).all()):
            found, fix = "asked for where rays start at t = 0", "leave it out (NDC rays are even in disparity already)"
            raise DataError("mip-nerf", "disparity", found, "near bounds above 0", fix)
        if settings.ray_shape == "auto":
            settings = replace(settings, ray_shape="cone" if scene.ndc is None else "cylinder")
        if settings.backbone == "grid":
            settings = replace(settings, grid_finest=finest_of(settings, scene))
        self.settings = settings
        self.field = GridField(settings, scene) if settings.backbone == "grid" else mlp(settings)
        self.register_buffer("spread", torch.tensor(median_pixel_width(scene) ** 2 / 12))

    def forward(self, rays: Rays, context: Context) -> Rendered:
        """Even intervals, passes that gather them where matter is, compositing of the last."""
        settings = self.settings
        rng = context.rng if settings.jitter else None
        t = sample_stratified(linspace_depths(rays.near, rays.far, settings.samples + 1, disparity=settings.disparity), rng)
        coarse = []
        for _ in range(settings.levels - 1):
            if context.rng is None:  # no loss follows, so nobody needs the coarse color
                weights = self.weigh(rays, t, context)
            else:
                weights, rgb = self.see(rays, t, context)
                coarse.append(composite(weights, rgb, context.background))
            t = self.gathered(t, weights, rng)
        weights, rgb = self.see(rays, t, context)
        depth, opacity = expected_depth(weights, midpoints(t), rays.far)
        samples = settings.levels * weights.numel()
        return Rendered(composite(weights, rgb, context.background), depth, opacity, tuple(coarse), samples)

    def see(
        self, rays: Rays, t: Float[Tensor, "r n_plus_1"], context: Context
    ) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n 3"]]:
        """Weights and colors of the intervals between the edges `t` of the rays."""
        view = self.field.directional(rays.viewdirs)
        with autocast(t.device, self.settings.bf16):
            density, rgb = self.field(self.seen(rays, t), view[:, None], self.noise(t, context))
        return weights_from_density(density, lengths(rays, t)), self.widened(rgb)

    def weigh(self, rays: Rays, t: Float[Tensor, "r n_plus_1"], context: Context) -> Float[Tensor, "r n"]:
        """Weights alone of the intervals between the edges `t` of the rays."""
        with autocast(t.device, self.settings.bf16):
            density = self.field.density_alone(self.seen(rays, t), self.noise(t, context))
        return weights_from_density(density, lengths(rays, t))

    def seen(self, rays: Rays, t: Float[Tensor, "r n_plus_1"]) -> Float[Tensor, "r n 6"]:
        """The Gaussians of the intervals; without the integrated encoding they are points."""
        found = interval_gaussians(rays, t, cylinders=self.settings.ray_shape == "cylinder")
        if not self.settings.integrated:
            found = replace(found, variance=torch.zeros_like(found.variance))
        return found.stacked

    def gathered(
        self, t: Float[Tensor, "r n_plus_1"], weights: Float[Tensor, "r n"], rng: Rng | None
    ) -> Float[Tensor, "r n_plus_1"]:
        """Edges of as many intervals where the weights are."""
        weights = blur_weights(weights.detach() if self.settings.stop_gradient else weights, self.settings.resample_padding)
        return resample_edges(t, weights, self.settings.samples, rng)

    def noise(self, t: Float[Tensor, "r n_plus_1"], context: Context) -> Float[Tensor, "r n"] | None:
        """Noise for raw densities, where the settings ask for it and the pass is random."""
        if context.rng is None or self.settings.noise == 0:
            return None
        return self.settings.noise * context.rng.normal(len(t), t.shape[1] - 1)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Squared errors of all passes (equation 19)."""
        losses = {"rgb": F.mse_loss(rendered.rgb, batch.rgb)}
        if rendered.coarse:
            errors = torch.stack([F.mse_loss(rgb, batch.rgb) for rgb in rendered.coarse])
            losses["coarse"] = self.settings.coarse_weight * errors.sum()
        return losses

    @torch.no_grad()
    def inside(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density about the points, as a pixel of the images sees it [1 / unit of the rays' space]."""
        with autocast(points.device, self.settings.bf16):
            return self.field.density_alone(self.about(points))

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors about the points."""
        with autocast(points.device, self.settings.bf16):
            rgb = self.field(self.about(points), self.field.directional(viewdirs))[1]
        return self.widened(rgb).clamp(0, 1)

    def about(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p 6"]:
        """Gaussians about the points, as wide as a pixel of the images."""
        spread = self.spread if self.settings.integrated else torch.zeros_like(self.spread)
        return torch.cat([points, spread.expand_as(points)], -1)

    def widened(self, rgb: Float[Tensor, "*s 3"]) -> Float[Tensor, "*s 3"]:
        """Colors in [-padding, 1 + padding] from those in [0, 1]."""
        padding = self.settings.rgb_padding
        return rgb * (1 + 2 * padding) - padding

    def param_groups(self) -> list[dict[str, Any]]:
        """One group, faster for the grid."""
        factor = GRID_RATE if self.settings.backbone == "grid" else 1.0
        return [{"params": list(self.parameters()), "lr_factor": factor}]

    def rays_per_step(self) -> int:
        """The batch of the settings."""
        return self.settings.batch


def lengths(rays: Rays, t: Float[Tensor, "r n_plus_1"]) -> Float[Tensor, "r n"]:
    """The lengths of the intervals in space."""
    return (t[:, 1:] - t[:, :-1]) * rays.directions.norm(dim=-1, keepdim=True)
