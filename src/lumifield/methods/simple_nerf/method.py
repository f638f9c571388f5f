"""Method `simple-nerf`: one MLP, uniform samples, volume rendering."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.data.scene import Batch, Scene
from lumifield.fields.encodings import Waves
from lumifield.fields.mlp import Mlp
from lumifield.geometry.rays import Rays, points_on_rays
from lumifield.methods.base import Method, RenderContext, Rendered, Traits
from lumifield.methods.simple_nerf import SimpleNerf
from lumifield.runtime.precision import autocast
from lumifield.runtime.rng import Rng
from lumifield.volume.compositing import composite, interval_lengths, weights_from_density
from lumifield.volume.sampling import linspace_depths, midpoints

LAST_WIDTH = 1e-3
"""Length of the last interval of official sampling in front of a background [scene units]."""
NORMAL_WITHIN_TWO = 0.87962566103423978
"""Standard deviation of the standard normal distribution truncated at -2 and 2."""


class SimpleNerfMethod(Method):
    """One MLP of positions, evaluated at uniform samples of each ray (Tancik et al. 2021, section 4.3)."""

    traits = Traits(supports_vmap=True)

    def __init__(self, settings: SimpleNerf, scene: Scene) -> None:
        super().__init__()
        self.settings = settings
        self.network = Mlp(
            width=settings.hidden_dim,
            depth=settings.num_layers,
            skip=None,
            position=Waves(settings.num_position_frequencies, settings.num_octaves),
            direction=None,
            activation=settings.density_activation,
            bias=0.0,
        )
        # In images without alpha the last sample represents everything far away.
        self.endless = scene.background == "none"
        for layer in self.network.modules():
            if isinstance(layer, nn.Linear):
                initialize_layer(layer, normal=settings.weight_init == "normal")

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Samples rays, evaluates the MLP, composites."""
        z, width = self.sampled(rays, context.jitter_rng)
        view = self.network.directional(rays.viewdirs)
        with autocast(z.device, self.settings.bf16):
            density, rgb = self.network(points_on_rays(rays, z), view[:, None])
        weights = weights_from_density(density, width)
        return composite(weights, rgb, z, rays.far, context.background)

    def sampled(self, rays: Rays, rng: Rng | None) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n"]]:
        """Depths of the samples of each ray in increasing order, and the lengths of their intervals."""
        count, near, far = self.settings.num_samples, rays.near, rays.far
        if self.settings.sampling == "official":
            z = linspace_depths(near, far, count)
            if rng is not None:
                z = z + rng.uniform(*z.shape) * ((far - near) / count)[:, None]
            end = z[:, -1] + LAST_WIDTH
        else:
            t = linspace_depths(near, far, count + 1)
            z = midpoints(t) if rng is None else t[:, :-1] + rng.uniform(len(t), count) * (t[:, 1:] - t[:, :-1])
            end = far
        return z, interval_lengths(z, rays.directions, None if self.endless else end)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Squared error of the colors."""
        return {"rgb": F.mse_loss(rendered.rgb, batch.rgb)}

    @torch.no_grad()
    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density of the network [1 / unit of the rays' space]."""
        with autocast(points.device, self.settings.bf16):
            return self.network.density_alone(points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors of the network, independent of direction."""
        with autocast(points.device, self.settings.bf16):
            return self.network(points, self.network.directional(viewdirs))[1]

    def rays_per_step(self) -> int:
        """Batch size of the settings."""
        return self.settings.batch_size


@torch.no_grad()
def initialize_layer(layer: nn.Linear, *, normal: bool) -> None:
    """Random parameters; normal ones are truncated at two deviations and rescaled."""
    bound = layer.in_features**-0.5
    if normal:
        deviation = bound / NORMAL_WITHIN_TWO
        nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        nn.init.zeros_(layer.bias)
    else:
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.uniform_(layer.bias, -bound, bound)
