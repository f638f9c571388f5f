"""The module behind `nerf`: a coarse network finds the matter, a fine one rng it."""

from __future__ import annotations

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
from lumifield.methods.base import Context, Method, Rendered
from lumifield.methods.nerf import Nerf
from lumifield.runtime.precision import autocast
from lumifield.volume.compositing import composite, expected_depth, interval_lengths, weights_from_density
from lumifield.volume.sampling import linspace_depths, merge_depths, midpoints, resample, sample_stratified


class NerfMethod(Method):
    """Two networks, stratified and importance sampling, volume rendering (NeRF, sections 4 and 5)."""

    def __init__(self, settings: Nerf, scene: Scene) -> None:
        super().__init__()
        if settings.disparity and not bool((scene.near > 0).all()):
            found, fix = "asked for where rays start at t = 0", "leave it out (NDC rays are even in disparity already)"
            raise DataError("nerf", "disparity", found, "near bounds above 0", fix)
        self.settings = settings
        self.coarse = network(settings)
        self.fine = network(settings) if settings.fine_samples else None
        # Softplus is never quite zero: over a backdrop an endless last interval would hide it for good.
        self.endless = settings.density == "relu" or scene.background == "none"

    def forward(self, rays: Rays, context: Context) -> Rendered:
        """Coarse pass, resampling, fine pass over all points, compositing."""
        settings, rng = self.settings, context.rng
        even = linspace_depths(rays.near, rays.far, settings.samples, disparity=settings.disparity)
        z = sample_stratified(even, rng, perturb=settings.perturb)
        coarse, samples = (), z.numel()
        if self.fine is not None:
            if rng is None:  # no loss follows, so nobody needs the coarse color
                weights = self.weigh(self.coarse, rays, z, context)
            else:
                weights, rgb = self.see(self.coarse, rays, z, context)
                coarse = (composite(weights, rgb, context.background),)
            further = resample(midpoints(z), weights[:, 1:-1], settings.fine_samples, rng if settings.perturb else None)
            z = merge_depths(z, further)
            samples += z.numel()
        weights, rgb = self.see(self.fine or self.coarse, rays, z, context)
        depth, opacity = expected_depth(weights, z, rays.far)
        return Rendered(composite(weights, rgb, context.background), depth, opacity, coarse, samples)

    def see(
        self, mlp: Mlp, rays: Rays, z: Float[Tensor, "r n"], context: Context
    ) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n 3"]]:
        """Weights and colors of the points `z` of the rays."""
        view = mlp.directional(rays.directions if self.settings.ndc_viewdirs else rays.viewdirs)
        with autocast(z.device, self.settings.bf16):
            density, rgb = mlp(points_on_rays(rays, z), view[:, None], self.noise(z, context))
        return weights_from_density(density, self.interval_lengths(rays, z)), rgb

    def weigh(self, mlp: Mlp, rays: Rays, z: Float[Tensor, "r n"], context: Context) -> Float[Tensor, "r n"]:
        """Weights alone of the points `z` of the rays."""
        with autocast(z.device, self.settings.bf16):
            density = mlp.density_alone(points_on_rays(rays, z), self.noise(z, context))
        return weights_from_density(density, self.interval_lengths(rays, z))

    def interval_lengths(self, rays: Rays, z: Float[Tensor, "r n"]) -> Float[Tensor, "r n"]:
        """Lengths of the intervals after the points `z`."""
        return interval_lengths(z, rays.directions, None if self.endless else rays.far)

    def noise(self, z: Float[Tensor, "r n"], context: Context) -> Float[Tensor, "r n"] | None:
        """Noise for raw densities, where the settings ask for it and the pass is random."""
        if context.rng is None or self.settings.noise == 0:
            return None
        return self.settings.noise * context.rng.normal(*z.shape)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Squared errors of both passes (NeRF, equation 6)."""
        losses = {"rgb": F.mse_loss(rendered.rgb, batch.rgb)}
        if rendered.coarse:
            losses["coarse"] = F.mse_loss(rendered.coarse[0], batch.rgb)
        return losses

    @torch.no_grad()
    def inside(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
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
        """The batch of the settings."""
        return self.settings.batch

    def load_published(self, path: Path) -> None:
        """Takes over the networks of a published nerf_pl checkpoint, whose scene must be in this scene's frame."""
        if self.settings.density != "relu":
            fix = "build the method with density relu and early_skip"
            raise DataError(path, "the method's density", self.settings.density, "relu, as in the checkpoint", fix)
        load_published(self.coarse, path, "nerf_coarse")
        if self.fine is not None:
            load_published(self.fine, path, "nerf_fine")


def network(settings: Nerf) -> Mlp:
    """A network of the settings, with fresh parameters."""
    return Mlp(
        width=settings.width,
        depth=settings.depth,
        skip=settings.depth // 2 + (0 if settings.early_skip else 1),
        position=Positional(settings.position_octaves),
        direction=Positional(settings.direction_octaves),
        activation=settings.density,
    )
