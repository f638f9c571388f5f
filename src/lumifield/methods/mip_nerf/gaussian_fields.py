"""Fields of `mip-nerf` over Gaussians: the MLP of the paper, or a hash grid with small networks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.data.scene import Scene, median_pixel_width
from lumifield.fields.encodings import Positional
from lumifield.fields.hash_grid import FeatureGrid, geometric_resolutions
from lumifield.fields.mlp import Mlp
from lumifield.geometry.contraction import SceneBox
from lumifield.methods.mip_nerf import MipNerf
from lumifield.volume.mip_gaussians import IntegratedEncoding

MAX_RESOLUTION = 2048
DENSITY_FEATURES = 16
MIN_OPTICAL_DEPTH = 1e-12


def build_mip_nerf_mlp(settings: MipNerf) -> Mlp:
    """The MLP of the paper with random parameters."""
    return Mlp(
        width=settings.hidden_dim,
        depth=settings.num_layers,
        skip=settings.num_layers // 2 + (0 if settings.early_skip else 1),
        position=build_position_encoding(settings),
        direction=build_direction_encoding(settings) if settings.viewdirs else None,
        activation=settings.density_activation,
        bias=settings.density_bias,
    )


def build_position_encoding(settings: MipNerf) -> IntegratedEncoding:
    """Encoding of Gaussians."""
    first = settings.min_position_octave
    return IntegratedEncoding(first, first + settings.num_position_frequencies)


def build_direction_encoding(settings: MipNerf) -> Positional:
    """Encoding of viewing directions."""
    return Positional(settings.num_direction_frequencies, settings.min_direction_octave)


def grid_resolution(settings: MipNerf, scene: Scene) -> int:
    """Resolution of the finest level of the grid."""
    diameter = SceneBox(scene.box, scene.unbounded).diameter
    return settings.grid_max_resolution or min(round(2 * diameter / median_pixel_width(scene)), MAX_RESOLUTION)


class GridField(nn.Module):
    """Hash grid features at the means of Gaussians; levels finer than the Gaussian are down-weighted."""

    box: Tensor

    def __init__(self, settings: MipNerf, scene: Scene) -> None:
        super().__init__()
        self.settings, self.contracted = settings, scene.unbounded
        self.register_buffer("box", scene.box.clone())
        resolutions = geometric_resolutions(
            settings.grid_base_resolution, settings.grid_max_resolution, settings.grid_num_levels
        )
        self.grid = FeatureGrid(
            resolutions, settings.grid_features_per_level, settings.grid_log2_hashmap_size, anti_alias=True
        )
        self.direction = build_direction_encoding(settings)
        hidden, view_width = settings.grid_hidden_dim, self.direction.width if settings.viewdirs else 0
        self.density_net = nn.Sequential(
            nn.Linear(self.grid.width, hidden), nn.ReLU(), nn.Linear(hidden, DENSITY_FEATURES)
        )
        self.color_net = nn.Sequential(
            nn.Linear(DENSITY_FEATURES + view_width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 3),
        )

    @property
    def space(self) -> SceneBox:
        """The box that the grid covers."""
        return SceneBox(self.box, self.contracted)

    def forward(
        self,
        stacked: Float[Tensor, "*s 6"],
        view: Float[Tensor, "*#s side"],
        noise: Float[Tensor, "*s"] | None = None,
    ) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s 3"]]:
        """Density and color of Gaussians; `view` is `directional` of each ray."""
        hidden = self.density_net(self.features(stacked))
        view_features = view.expand(*hidden.shape[:-1], view.shape[-1]).to(hidden.dtype)
        rgb = torch.sigmoid(self.color_net(torch.cat([hidden, view_features], -1)).to(stacked.dtype))
        return self._activated(hidden[..., 0].to(stacked.dtype), stacked, noise), rgb

    def density_alone(
        self, stacked: Float[Tensor, "*s 6"], noise: Float[Tensor, "*s"] | None = None
    ) -> Float[Tensor, "*s"]:
        """Density of Gaussians without colors."""
        raw = self.density_net(self.features(stacked))[..., 0].to(stacked.dtype)
        return self._activated(raw, stacked, noise)

    def directional(self, viewdirs: Float[Tensor, "*r 3"]) -> Float[Tensor, "*r side"]:
        """Encoded viewing direction."""
        return self.direction(viewdirs) if self.settings.viewdirs else viewdirs[..., :0]

    def features(self, stacked: Float[Tensor, "*s 6"]) -> Float[Tensor, "*s features"]:
        """Hash grid features, down-weighted by the size of the Gaussians."""
        mean, variance = stacked.reshape(-1, 6).split(3, -1)
        width = variance.mean(-1).clamp_min(MIN_OPTICAL_DEPTH).sqrt() * self.space.contraction_scale(mean)
        return self.grid(self.space.to_unit_cube(mean), width).view(*stacked.shape[:-1], self.grid.width)

    def _activated(self, raw: Tensor, stacked: Tensor, noise: Tensor | None) -> Tensor:
        raw = raw + self.settings.density_bias if noise is None else raw + noise + self.settings.density_bias
        density = F.relu(raw) if self.settings.density_activation == "relu" else F.softplus(raw)
        if self.contracted:
            return density
        # The grid is clamped to its box: points outside would have the density of the border.
        unit = self.space.to_unit_cube(stacked[..., :3])
        return density * ((unit >= 0) & (unit <= 1)).all(-1)
