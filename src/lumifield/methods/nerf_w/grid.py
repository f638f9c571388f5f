"""The module behind `nerf-w` with a feature grid: the lasting scene is `instant`'s, passing matter is beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data.scene import Batch, Scene
from lumifield.fields.encodings import spherical_harmonics
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Context, Method, Rendered
from lumifield.methods.instant import Instant
from lumifield.methods.instant.method import InstantMethod
from lumifield.methods.nerf_w import NerfW, passing, veil
from lumifield.runtime.rng import Rng

LOOK_RATE = 0.1
"""Appearances move slowly: a step shows few pixels of each image."""


class NerfWGrid(Method):
    """Appearance, passing matter and its uncertainty beside `instant`: in minutes what the networks take hours for."""

    def __init__(self, settings: NerfW, scene: Scene) -> None:
        super().__init__()
        self.static = InstantMethod(lasting(settings), scene, beside=settings.appearance)
        chosen = self.static.settings
        self.settings = replace(settings, grid_finest=chosen.finest, grid_sampling=chosen.sampling)
        self.appearance = settings.appearance
        self.channels = passing.CHANNELS if settings.transient else ()
        self.looks = veil.Looks(len(scene), settings.appearance, settings.transient)

    @property
    def embeddings(self) -> Float[Tensor, "n e"] | None:
        """Appearance of each image, and beside it the cells of its veil."""
        table = self.looks.table
        return table if table.shape[1] else None

    def forward(self, rays: Rays, context: Context) -> Rendered:
        """Choose where to look, look up, composite, draw the veil."""
        static = self.static
        appearance, veils, own = self.looks(rays.image, context)
        sampled = static.sampled(rays, context)
        density, rgb = static.look_up(sampled.packed, rays, appearance)
        rendered = static.composited(sampled, rays, density, rgb, context)
        if not passing.asked_for(self.settings, context):
            return rendered
        return veil.veiled(rendered, veil.before(veils, own, rays.place), self.settings, context)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Errors weighed by their uncertainty, the price of passing matter and of the choice of intervals."""
        return passing.losses(rendered, batch, self.settings)

    def inside(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density of the lasting scene; none where no ray is looked at [1 / scene unit]."""
        return self.static.inside(points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors of the lasting scene in the mean of all lights, as pixels of the images see them."""
        appearance = self.looks.appearances.mean(0).expand(len(points), -1)
        side = torch.cat([spherical_harmonics(viewdirs, 4), appearance], -1)
        return self.static.field(points, points.new_full((len(points),), self.static.pixel), side)[1]

    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the lasting scene, one for veils, and a slow one for appearances."""
        own = [{"params": [self.looks.veils]}, {"params": [self.looks.appearances], "lr_factor": LOOK_RATE}]
        return [*self.static.param_groups(), *own]

    def rays_per_step(self) -> int:
        """As many rays as bring the wanted number of samples."""
        return self.static.rays_per_step()

    def before_step(self, step: int, rng: Rng) -> None:
        """Prepares the choice of intervals."""
        self.static.before_step(step, rng)

    def after_step(self, step: int, rays: int, samples: int) -> None:
        """Adapts the number of rays to the samples that they brought."""
        self.static.after_step(step, rays, samples)


def lasting(settings: NerfW) -> Instant:
    """The settings of the lasting scene.

    Where uncertainty weighs errors, even the surest count 1 / (2 beta_min^2) times; so does what is set against them.
    """
    plain = Instant()
    weighed = settings.transient > 0 and settings.uncertainty
    return Instant(
        levels=settings.grid_levels,
        log2_entries=settings.grid_log2_entries,
        finest=settings.grid_finest,
        hidden=settings.grid_hidden,
        sampling=settings.grid_sampling,
        occupancy_side=settings.grid_occupancy_side,
        samples_per_step=settings.grid_samples_per_step,
        distortion=plain.distortion / (2 * settings.beta_min**2) if weighed else plain.distortion,
        bf16=settings.bf16,
    )
