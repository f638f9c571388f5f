"""Method `nerf`: a coarse network finds the surfaces, a fine network renders them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lumifield.data.scene import Batch, Scene
from lumifield.errors import DataError
from lumifield.fields.encodings import Positional
from lumifield.fields.mlp import Mlp, load_published
from lumifield.geometry.rays import Rays, points_on_rays
from lumifield.methods.base import Method, RenderContext, Rendered, TrainingContext
from lumifield.methods.nerf import Nerf
from lumifield.runtime.precision import autocast
from lumifield.volume.compositing import composite, composite_colors, interval_lengths, weights_from_density
from lumifield.volume.sampling import linspace_depths, merge_depths, midpoints, resample, sample_stratified


class NerfMethod(Method):
    """Two networks, stratified and importance sampling, volume rendering (NeRF, sections 4 and 5)."""

    def __init__(self, settings: Nerf, scene: Scene) -> None:
        super().__init__()
        if settings.disparity and not bool((scene.near > 0).all()):
            found, fix = "rays that start at t = 0", "drop it (NDC rays are linear in disparity already)"
            raise DataError("nerf", "disparity", found, "near bounds above 0", fix)
        self.settings = settings
        self.coarse = build_nerf_mlp(settings)
        self.fine = build_nerf_mlp(settings) if settings.num_fine_samples else None
        # Softplus is never exactly zero: an unbounded last interval would hide the background for good.
        self.endless = settings.density_activation == "relu" or scene.background == "none"

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Coarse pass, resampling, fine pass over all samples, compositing."""
        settings, rng = self.settings, context.jitter_rng
        even = linspace_depths(rays.near, rays.far, settings.num_samples, disparity=settings.disparity)
        z = sample_stratified(even, rng, jitter=settings.jitter)
        coarse, samples = (), z.numel()
        if self.fine is not None:
            if not isinstance(context, TrainingContext):  # without losses the coarse color is not needed
                weights = self.weights_only(self.coarse, rays, z, context)
            else:
                weights, rgb = self.weights_and_colors(self.coarse, rays, z, context)
                coarse = (composite_colors(weights, rgb, context.background),)
            further = resample(
                midpoints(z), weights[:, 1:-1], settings.num_fine_samples, rng if settings.jitter else None
            )
            z = merge_depths(z, further)
            samples += z.numel()
        weights, rgb = self.weights_and_colors(self.fine or self.coarse, rays, z, context)
        rendered = composite(weights, rgb, z, rays.far, context.background)
        return replace(rendered, coarse=coarse, samples=samples)

    def weights_and_colors(
        self, mlp: Mlp, rays: Rays, z: Float[Tensor, "r n"], context: RenderContext
    ) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n 3"]]:
        """Weights and colors of the samples at depths `z`."""
        view = mlp.directional(rays.directions if self.settings.ndc_viewdirs else rays.viewdirs)
        with autocast(z.device, self.settings.bf16):
            density, rgb = mlp(points_on_rays(rays, z), view[:, None], self.noise(z, context))
        return weights_from_density(density, self.interval_lengths(rays, z)), rgb

    def weights_only(
        self, mlp: Mlp, rays: Rays, z: Float[Tensor, "r n"], context: RenderContext
    ) -> Float[Tensor, "r n"]:
        """Weights of the samples at depths `z`."""
        with autocast(z.device, self.settings.bf16):
            density = mlp.density_alone(points_on_rays(rays, z), self.noise(z, context))
        return weights_from_density(density, self.interval_lengths(rays, z))

    def interval_lengths(self, rays: Rays, z: Float[Tensor, "r n"]) -> Float[Tensor, "r n"]:
        """Lengths of the intervals after the samples at depths `z`."""
        return interval_lengths(z, rays.directions, None if self.endless else rays.far)

    def noise(self, z: Float[Tensor, "r n"], context: RenderContext) -> Float[Tensor, "r n"] | None:
        """Noise for raw densities in training, if enabled."""
        if not isinstance(context, TrainingContext) or self.settings.density_noise_std == 0:
            return None
        return self.settings.density_noise_std * context.rng.normal(*z.shape)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Squared errors of both passes (NeRF, equation 6)."""
        losses = {"rgb": F.mse_loss(rendered.rgb, batch.rgb)}
        if rendered.coarse:
            losses["coarse"] = F.mse_loss(rendered.coarse[0], batch.rgb)
        return losses

    @torch.no_grad()
    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density of the finest network [1 / unit of the rays' space]."""
        with autocast(points.device, self.settings.bf16):
            return (self.fine or self.coarse).density_alone(points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors of the finest network."""
        mlp = self.fine or self.coarse
        with autocast(points.device, self.settings.bf16):
            return mlp(points, mlp.directional(viewdirs))[1]

    def rays_per_step(self) -> int:
        """Batch size of the settings."""
        return self.settings.batch_size

    def load_published(self, path: Path) -> None:
        """Loads the networks of a published nerf_pl checkpoint, whose scene must be in the frame of this scene."""
        if self.settings.density_activation != "relu":
            fix = "use --density-activation relu and --early-skip"
            raise DataError(
                path, "density_activation", self.settings.density_activation, "relu as in the checkpoint", fix
            )
        load_published(self.coarse, path, "nerf_coarse")
        if self.fine is not None:
            load_published(self.fine, path, "nerf_fine")


def build_nerf_mlp(settings: Nerf) -> Mlp:
    """An MLP with random parameters."""
    return Mlp(
        width=settings.hidden_dim,
        depth=settings.num_layers,
        skip=settings.num_layers // 2 + (0 if settings.early_skip else 1),
        position=Positional(settings.num_position_frequencies),
        direction=Positional(settings.num_direction_frequencies),
        activation=settings.density_activation,
    )
