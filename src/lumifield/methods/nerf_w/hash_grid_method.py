"""Method `nerf-w` on the hash grid of `instant`, with a transient map per image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data.scene import Batch, Scene
from lumifield.fields.encodings import spherical_harmonics
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.methods.instant import Instant
from lumifield.methods.instant.method import InstantMethod
from lumifield.methods.nerf_w import NerfW, transient, transient_map
from lumifield.runtime.rng import Rng

APPEARANCE_RATE = 0.1
"""Learning-rate factor of appearance embeddings: a step samples few pixels of each image."""


class NerfWHashGridMethod(Method):
    """Appearance, transients and uncertainty on top of `instant`: minutes where the MLPs need hours."""

    def __init__(self, settings: NerfW, scene: Scene) -> None:
        super().__init__()
        self.static = InstantMethod(static_settings(settings), scene, num_extra_features=settings.appearance_dim)
        chosen = self.static.settings
        self.settings = replace(settings, grid_max_resolution=chosen.max_resolution, grid_sampling=chosen.sampling)
        self.traits = transient.nerf_w_traits(settings)
        self.embeddings = transient_map.AppearanceTable(len(scene), settings.appearance_dim, settings.transient_dim)

    @property
    def appearance_embeddings(self) -> Float[Tensor, "n e"] | None:
        """Appearance embedding and transient map of each image, concatenated."""
        table = self.embeddings.table
        return table if table.shape[1] else None

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Renders the static scene and composites the transient map."""
        static = self.static
        appearance, maps, map_index = self.embeddings(rays.image, context)
        sampled = static.sample_rays(rays, context)
        density, rgb = static.query_samples(sampled.packed, rays, appearance)
        rendered = static.composite_samples(sampled, rays, density, rgb, context)
        if not transient.renders_transient(self.settings, context):
            return rendered
        return transient_map.composite_transient_map(
            rendered, transient_map.sample_transient_map(maps, map_index, rays.place), self.settings, context
        )

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Errors weighted by uncertainty, the transient density loss and the losses of the sampler."""
        return transient.nerf_w_losses(rendered, batch, self.settings)

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density of the static scene; zero where no ray is sampled [1 / scene unit]."""
        return self.static.density(points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors of the static scene with the mean appearance."""
        appearance = self.embeddings.appearances.mean(0).expand(len(points), -1)
        side = torch.cat([spherical_harmonics(viewdirs, 4), appearance], -1)
        return self.static.field(points, points.new_full((len(points),), self.static.pixel), side)[1]

    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of the static scene, one for transient maps, and a slow one for appearance."""
        embeddings = [
            {"params": [self.embeddings.transient_maps]},
            {"params": [self.embeddings.appearances], "lr_factor": APPEARANCE_RATE},
        ]
        return [*self.static.param_groups(), *embeddings]

    def rays_per_step(self) -> int:
        """Number of rays that yields the target number of samples."""
        return self.static.rays_per_step()

    def before_step(self, step: int, rng: Rng) -> None:
        """Updates the sampler."""
        self.static.before_step(step, rng)

    def after_step(self, step: int, rays: int, samples: int) -> None:
        """Adapts the number of rays to their samples."""
        self.static.after_step(step, rays, samples)


def static_settings(settings: NerfW) -> Instant:
    """Settings of the static scene.

    With uncertainty, errors weigh up to 1 / (2 beta_min^2) times as much; so do the losses balanced against them.
    """
    plain = Instant()
    weighed = settings.transient_dim > 0 and settings.uncertainty
    return Instant(
        num_levels=settings.grid_num_levels,
        log2_hashmap_size=settings.grid_log2_hashmap_size,
        max_resolution=settings.grid_max_resolution,
        hidden_dim=settings.grid_hidden_dim,
        sampling=settings.grid_sampling,
        occupancy_resolution=settings.grid_occupancy_resolution,
        samples_per_step=settings.grid_samples_per_step,
        distortion_loss_weight=plain.distortion_loss_weight / (2 * settings.beta_min**2)
        if weighed
        else plain.distortion_loss_weight,
        bf16=settings.bf16,
    )
