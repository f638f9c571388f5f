"""What `mip-nerf` asks for density and color: the paper's network, or a feature grid with small networks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.data.scene import Scene, median_pixel_width
from lumifield.fields.encodings import Positional
from lumifield.fields.hash_grid import FeatureGrid, geometric
from lumifield.fields.mlp import Mlp
from lumifield.geometry.contraction import SceneBox
from lumifield.methods.mip_nerf import MipNerf
from lumifield.volume.mip_gaussians import IntegratedEncoding

FINEST_LIMIT = 2048
DENSITY_FEATURES = 16
THINNEST = 1e-12


def mlp(settings: MipNerf) -> Mlp:
    """The paper's network, with fresh parameters."""
    return Mlp(
        width=settings.width,
        depth=settings.depth,
        skip=settings.depth // 2 + (0 if settings.early_skip else 1),
        position=IntegratedEncoding(*settings.octaves),
        direction=directions(settings) if settings.viewdirs else None,
        activation=settings.density,
        bias=settings.density_bias,
    )


def directions(settings: MipNerf) -> Positional:
    """The encoding of viewing directions."""
    first, end = settings.direction_octaves
    return Positional(end - first, first)


def finest_of(settings: MipNerf, scene: Scene) -> int:
    """Cells a side of the grid's finest level."""
    diameter = SceneBox(scene.box, scene.unbounded).diameter
    return settings.grid_finest or min(round(2 * diameter / median_pixel_width(scene)), FINEST_LIMIT)


class GridField(nn.Module):
    """Features of a grid at the middles of Gaussians, each level as far as it is coarser than the Gaussian."""

    box: Tensor

    def __init__(self, settings: MipNerf, scene: Scene) -> None:
        super().__init__()
        self.settings, self.contracted = settings, scene.unbounded
        self.register_buffer("box", scene.box.clone())
        resolutions = geometric(settings.grid_coarsest, settings.grid_finest, settings.grid_levels)
        self.grid = FeatureGrid(resolutions, settings.grid_features, settings.grid_log2_entries, smeared=True)
        self.direction = directions(settings)
        hidden, side = settings.grid_hidden, self.direction.width if settings.viewdirs else 0
        self.density_net = nn.Sequential(
            nn.Linear(self.grid.width, hidden), nn.ReLU(), nn.Linear(hidden, DENSITY_FEATURES)
        )
        self.color_net = nn.Sequential(
            nn.Linear(DENSITY_FEATURES + side, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 3),
        )

    @property
    def space(self) -> SceneBox:
        """The space that the grid covers."""
        return SceneBox(self.box, self.contracted)

    def forward(
        self,
        joined: Float[Tensor, "*s 6"],
        view: Float[Tensor, "*#s side"],
        noise: Float[Tensor, "*s"] | None = None,
    ) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s 3"]]:
        """Density and color of Gaussians; `view` is `directional` of each one's ray."""
        hidden = self.density_net(self.features(joined))
        beside = view.expand(*hidden.shape[:-1], view.shape[-1]).to(hidden.dtype)
        rgb = torch.sigmoid(self.color_net(torch.cat([hidden, beside], -1)).to(joined.dtype))
        return self._activated(hidden[..., 0].to(joined.dtype), joined, noise), rgb

    def density_alone(
        self, joined: Float[Tensor, "*s 6"], noise: Float[Tensor, "*s"] | None = None
    ) -> Float[Tensor, "*s"]:
        """Density of Gaussians, without colors."""
        raw = self.density_net(self.features(joined))[..., 0].to(joined.dtype)
        return self._activated(raw, joined, noise)

    def directional(self, viewdirs: Float[Tensor, "*r 3"]) -> Float[Tensor, "*r side"]:
        """What the color takes of the viewing direction."""
        return self.direction(viewdirs) if self.settings.viewdirs else viewdirs[..., :0]

    def features(self, joined: Float[Tensor, "*s 6"]) -> Float[Tensor, "*s features"]:
        """Features of the grid, faded by the size of the Gaussians."""
        mean, variance = joined.reshape(-1, 6).split(3, -1)
        width = variance.mean(-1).clamp_min(THINNEST).sqrt() * self.space.contraction_scale(mean)
        return self.grid(self.space.to_unit_cube(mean), width).view(*joined.shape[:-1], self.grid.width)

    def _activated(self, raw: Tensor, joined: Tensor, noise: Tensor | None) -> Tensor:
        raw = raw + self.settings.density_bias if noise is None else raw + noise + self.settings.density_bias
        density = F.relu(raw) if self.settings.density == "relu" else F.softplus(raw)
        if self.contracted:
            return density
        # The grid ends at its box: what it holds for points beyond is what it holds at the border.
        unit = self.space.to_unit_cube(joined[..., :3])
        return density * ((unit >= 0) & (unit <= 1)).all(-1)
