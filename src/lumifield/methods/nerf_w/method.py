"""Method `nerf-w` with the MLPs of the paper: coarse passes find the surfaces, the last one renders them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield.data.scene import Batch, Scene
from lumifield.errors import DataError
from lumifield.fields.mlp import Mlp
from lumifield.geometry.rays import Rays, points_on_rays
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.methods.nerf_w import NerfW, transient
from lumifield.methods.nerf_w.networks import TransientMlp, static_mlp
from lumifield.runtime.precision import autocast
from lumifield.volume.compositing import composite, composite_colors, interval_lengths, weights_from_density
from lumifield.volume.sampling import linspace_depths, merge_depths, midpoints, resample, sample_stratified

RATE = 1 / 40
"""MLPs need a lower learning rate than the hash grid, for which the default rate is set."""


class NerfWMethod(Method):
    """Appearance, transients and uncertainty on top of NeRF (NeRF-W, section 4)."""

    def __init__(self, settings: NerfW, scene: Scene) -> None:
        super().__init__()
        if settings.disparity and not bool((scene.near > 0).all()):
            found, fix = "rays that start at t = 0", "drop it (NDC rays are linear in disparity already)"
            raise DataError("nerf-w", "disparity", found, "near bounds above 0", fix)
        self.settings = settings
        self.traits = transient.nerf_w_traits(settings)
        self.codes = transient.Embeddings(settings, len(scene))
        self.coarse = nn.ModuleList([static_mlp(settings) for _ in range(settings.num_fine_passes)])
        self.last = TransientMlp(settings)
        # Softplus is never exactly zero: an unbounded last interval would hide the background for good.
        self.endless = scene.background == "none"

    @property
    def appearance_embeddings(self) -> Float[Tensor, "n e"] | None:
        """Appearance and transient embedding of each image, concatenated."""
        return self.codes.table if self.codes.table.shape[1] else None

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Coarse passes, a last pass over all samples, compositing, transients."""
        appearance, code = self.codes(rays.image, context)
        view = torch.cat([rays.viewdirs, appearance], -1)
        z, coarse, samples = self.coarse_passes(rays, view, context)
        with_transients = transient.renders_transient(self.settings, context)
        with autocast(z.device, self.settings.bf16):
            density, rgb, transient_samples = self.last(
                points_on_rays(rays, z), view[:, None], code[:, None] if with_transients else None
            )
        width = self.interval_lengths(rays, z)
        weights = weights_from_density(density, width)
        rendered = composite(weights, rgb, z, rays.far, context.background)
        rendered = replace(rendered, coarse=tuple(coarse), samples=samples + rendered.samples)
        if transient_samples is None:
            return rendered
        ends = torch.arange(len(z) + 1, device=z.device) * z.shape[1]
        mixture = transient.Mixture(density.reshape(-1), rgb.reshape(-1, 3), transient_samples, width.reshape(-1), ends)
        return transient.composite_transient(rendered, mixture, self.settings, context)

    def coarse_passes(
        self, rays: Rays, view: Float[Tensor, "r c"], context: RenderContext
    ) -> tuple[Float[Tensor, "r n"], list[Float[Tensor, "r 3"]], int]:
        """Depths of the last pass, colors of the coarse passes, and their number of samples."""
        settings, rng = self.settings, context.jitter_rng
        even = linspace_depths(rays.near, rays.far, settings.num_samples, disparity=settings.disparity)
        z = sample_stratified(even, rng, jitter=settings.jitter)
        coarse, samples = [], 0
        for network in self.coarse:
            assert isinstance(network, Mlp)
            with autocast(z.device, settings.bf16):
                density, rgb = network(points_on_rays(rays, z), network.directional(view)[:, None])
            weights = weights_from_density(density, self.interval_lengths(rays, z))
            coarse.append(composite_colors(weights, rgb, context.background))
            samples += z.numel()
            resampling_rng = rng if settings.jitter else None
            z = merge_depths(z, resample(midpoints(z), weights[:, 1:-1], settings.num_fine_samples, resampling_rng))
        return z, coarse, samples

    def interval_lengths(self, rays: Rays, z: Float[Tensor, "r n"]) -> Float[Tensor, "r n"]:
        """Lengths of the intervals after the samples at depths `z`."""
        return interval_lengths(z, rays.directions, None if self.endless else rays.far)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Errors weighted by uncertainty and the transient density loss (NeRF-W, equation 13)."""
        return transient.nerf_w_losses(rendered, batch, self.settings)

    @torch.no_grad()
    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density of the static scene [1 / unit of the rays' space]."""
        with autocast(points.device, self.settings.bf16):
            return self.last.static.density_alone(points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors of the static scene with the mean appearance."""
        static, view = self.last.static, torch.cat([viewdirs, self.codes.mean(len(points))[0]], -1)
        with autocast(points.device, self.settings.bf16):
            return static(points, static.directional(view))[1]

    def param_groups(self) -> list[dict[str, Any]]:
        """One group, with a lower rate than that of the settings."""
        return [{"params": list(self.parameters()), "lr_factor": RATE}]

    def rays_per_step(self) -> int:
        """Batch size of the settings."""
        return self.settings.batch_size
