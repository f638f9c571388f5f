"""The module behind `nerf-w` with the paper's networks: coarse passes find the matter, the last one rng it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield.data.scene import Batch, Scene
from lumifield.errors import DataError
from lumifield.fields.mlp import Mlp
from lumifield.geometry.rays import Rays, points_on_rays
from lumifield.methods.base import Context, Method, Rendered
from lumifield.methods.nerf_w import NerfW, passing
from lumifield.methods.nerf_w.fields import WildMlp, static_mlp
from lumifield.runtime.precision import autocast
from lumifield.volume.compositing import composite, expected_depth, interval_lengths, weights_from_density
from lumifield.volume.sampling import linspace_depths, merge_depths, midpoints, resample, sample_stratified

RATE = 1 / 40
"""Deep networks take smaller steps than the feature grid that the settings' rate is made for."""


class NerfWMethod(Method):
    """Appearance, passing matter and its uncertainty beside NeRF's networks (NeRF-W, section 4)."""

    def __init__(self, settings: NerfW, scene: Scene) -> None:
        super().__init__()
        if settings.disparity and not bool((scene.near > 0).all()):
            found, fix = "asked for where rays start at t = 0", "leave it out (NDC rays are even in disparity already)"
            raise DataError("nerf-w", "disparity", found, "near bounds above 0", fix)
        self.settings, self.appearance = settings, settings.appearance
        self.channels = passing.CHANNELS if settings.transient else ()
        self.codes = passing.Embeddings(settings, len(scene))
        self.coarse = nn.ModuleList([static_mlp(settings) for _ in range(settings.fine_levels)])
        self.last = WildMlp(settings)
        # Softplus is never quite zero: over a backdrop an endless last interval would hide it for good.
        self.endless = scene.background == "none"

    @property
    def embeddings(self) -> Float[Tensor, "n e"] | None:
        """Appearance of each image, and beside it what passed before it."""
        return self.codes.table if self.codes.table.shape[1] else None

    def forward(self, rays: Rays, context: Context) -> Rendered:
        """Coarse passes, a last pass over all points, compositing, what passed by."""
        appearance, code = self.codes(rays.image, context)
        view = torch.cat([rays.viewdirs, appearance], -1)
        z, coarse, samples = self.gathered(rays, view, context)
        mixed = passing.asked_for(self.settings, context)
        with autocast(z.device, self.settings.bf16):
            density, rgb, passed = self.last(points_on_rays(rays, z), view[:, None], code[:, None] if mixed else None)
        width = self.interval_lengths(rays, z)
        weights = weights_from_density(density, width)
        depth, opacity = expected_depth(weights, z, rays.far)
        rendered = Rendered(composite(weights, rgb, context.background), depth, opacity, tuple(coarse), samples + z.numel())
        if passed is None:
            return rendered
        ends = torch.arange(len(z) + 1, device=z.device) * z.shape[1]
        mixture = passing.Mixture(density.reshape(-1), rgb.reshape(-1, 3), passed, width.reshape(-1), ends)
        return passing.shown(rendered, mixture, self.settings, context)

    def gathered(
        self, rays: Rays, view: Float[Tensor, "r c"], context: Context
    ) -> tuple[Float[Tensor, "r n"], list[Float[Tensor, "r 3"]], int]:
        """Points of the last pass, the colors of the coarse ones, and how many points these looked at."""
        settings, rng = self.settings, context.rng
        even = linspace_depths(rays.near, rays.far, settings.samples, disparity=settings.disparity)
        z = sample_stratified(even, rng, perturb=settings.perturb)
        coarse, samples = [], 0
        for network in self.coarse:
            assert isinstance(network, Mlp)
            with autocast(z.device, settings.bf16):
                density, rgb = network(points_on_rays(rays, z), network.directional(view)[:, None])
            weights = weights_from_density(density, self.interval_lengths(rays, z))
            coarse.append(composite(weights, rgb, context.background))
            samples += z.numel()
            moved = rng if settings.perturb else None
            z = merge_depths(z, resample(midpoints(z), weights[:, 1:-1], settings.fine_samples, moved))
        return z, coarse, samples

    def interval_lengths(self, rays: Rays, z: Float[Tensor, "r n"]) -> Float[Tensor, "r n"]:
        """Lengths of the intervals after the points `z`."""
        return interval_lengths(z, rays.directions, None if self.endless else rays.far)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Errors weighed by their uncertainty, and the price of passing matter (NeRF-W, equation 13)."""
        return passing.losses(rendered, batch, self.settings)

    @torch.no_grad()
    def inside(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density of the lasting scene [1 / unit of the rays' space]."""
        with autocast(points.device, self.settings.bf16):
            return self.last.static.density_alone(points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors of the lasting scene in the mean of all lights."""
        static, view = self.last.static, torch.cat([viewdirs, self.codes.mean(len(points))[0]], -1)
        with autocast(points.device, self.settings.bf16):
            return static(points, static.directional(view))[1]

    def param_groups(self) -> list[dict[str, Any]]:
        """One group, slower than the settings' rate."""
        return [{"params": list(self.parameters()), "lr_factor": RATE}]

    def rays_per_step(self) -> int:
        """The batch of the settings."""
        return self.settings.batch
