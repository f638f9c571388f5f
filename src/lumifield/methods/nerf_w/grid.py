"""The module behind `nerf-w` with a feature grid: the lasting scene is `instant`'s, passing matter is beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.core.encodings import Positional, spherical_harmonics
from lumifield.core.packed import Packed
from lumifield.core.precision import autocast
from lumifield.core.randomness import Draws
from lumifield.core.rays import Rays
from lumifield.core.scene import Batch, Scene
from lumifield.methods.base import Context, Method, Rendered
from lumifield.methods.instant import Instant
from lumifield.methods.instant.method import CHUNK, InstantMethod, padded, tempered
from lumifield.methods.nerf_w import NerfW, passing

PASSING_DEPTH = 2
PLACE = Positional(6)
THIN, PASSING_RATE = -4.0, 0.1
"""Passing matter sets out thin and learns slowly: what several photographs show is the lasting scene's to explain."""
SPREAD = 0.1
"""Photographs begin alike: small networks soon tell wide embeddings apart, and see no light that two have in common."""
FEATURES = 16


class NerfWGrid(Method):
    """Appearance, passing matter and its uncertainty beside `instant`: in minutes what the networks take hours for."""

    def __init__(self, settings: NerfW, scene: Scene) -> None:
        super().__init__()
        self.static = InstantMethod(lasting(settings), scene, beside=settings.appearance)
        chosen = self.static.settings
        self.settings = replace(settings, grid_finest=chosen.finest, grid_sampling=chosen.sampling)
        self.appearance = settings.appearance
        self.channels = passing.CHANNELS if settings.transient else ()
        self.codes = passing.Embeddings(settings, len(scene), spread=SPREAD)
        inputs = FEATURES + PLACE.width + settings.transient
        scale = self.static.first
        head = passing.PassingHead(inputs, settings.grid_hidden, PASSING_DEPTH, scale=scale, first=THIN)
        self.passing = head if settings.transient else None

    @property
    def embeddings(self) -> Float[Tensor, "n e"] | None:
        """Appearance of each photograph, and beside it what passed before it."""
        return self.codes.table if self.codes.table.shape[1] else None

    def forward(self, rays: Rays, context: Context) -> Rendered:
        """Choose where to look, look up, composite, add what passed by."""
        static = self.static
        appearance, code = self.codes(rays.image, context)
        sampled = static.sampler(rays, static.space, static.density, context.draws)
        packed = sampled.packed
        density, rgb, hidden = static.look_up(packed, rays, appearance)
        rendered = static.composited(sampled, rays, density, rgb, context)
        if not passing.asked_for(self.settings, context):
            return rendered
        passed = self.passing_at(packed, rays, hidden, code)
        mixture = passing.Mixture(density, rgb, passed, packed.widths(rays), packed.offsets)
        return passing.shown(rendered, mixture, self.settings, context)

    def passing_at(
        self, packed: Packed, rays: Rays, hidden: Float[Tensor, "s 16"], code: Float[Tensor, "r t"]
    ) -> passing.Passing:
        """Passing matter of each sample, from its features, its place and the embedding of its photograph."""
        assert self.passing is not None
        place = PLACE(2 * self.static.space.unit(packed.points(rays)) - 1)
        features, codes = padded(torch.cat([hidden, place], -1)), padded(code[packed.ray])
        with autocast(features.device, self.settings.bf16):
            pieces = zip(features.split(CHUNK), codes.split(CHUNK), strict=True)
            raw = torch.cat([self.passing(*piece) for piece in pieces])
        found = self.passing.activated(raw[: len(packed)].float())
        if not self.static.contracted:
            return found
        return replace(found, density=tempered(found.density, packed.middle))

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Errors weighed by their uncertainty, the price of passing matter and of the choice of intervals."""
        return passing.losses(rendered, batch, self.settings)

    def inside(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p"]:
        """Density of the lasting scene; none where no ray is looked at [1 / scene unit]."""
        return self.static.inside(points)

    @torch.no_grad()
    def colours(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colours of the lasting scene in the mean of all lights, as pixels of the photographs see them."""
        side = torch.cat([spherical_harmonics(viewdirs, 4), self.codes.mean(len(points))[0]], -1)
        return self.static.field(points, points.new_full((len(points),), self.static.pixel), side)[1]

    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the lasting scene, one for embeddings, and a slow one for passing matter."""
        passing_matter = [] if self.passing is None else list(self.passing.parameters())
        groups = [*self.static.param_groups(), {"params": [self.codes.table]}]
        return [*groups, {"params": passing_matter, "lr_factor": PASSING_RATE}]

    def rays_per_step(self) -> int:
        """As many rays as bring the wanted number of samples."""
        return self.static.rays_per_step()

    def before_step(self, step: int, draws: Draws) -> None:
        """Prepares the choice of intervals."""
        self.static.before_step(step, draws)

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
