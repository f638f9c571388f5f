"""Appearance embeddings and 2D transient maps of backbone `grid`.

A transient map is a coarse image of color and opacity in front of its image. Its few cells can represent a person but
not the scene behind, so that static content is left to the field.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumifield.methods.base import RenderContext, Rendered, TrainingContext
from lumifield.methods.nerf_w import NerfW
from lumifield.methods.nerf_w.transient import TransientSamples, activate_raw, with_transient

CELL = 5
"""Channels of a cell: optical depth, color, uncertainty."""
INITIAL_RAW_DEPTH = -3.0
"""Initial raw optical depth: content that several images share should be explained by the static scene."""
EMBEDDING_STD = 0.1
"""Initial standard deviation of embeddings; small networks overfit to dissimilar ones and share no appearance."""


class AppearanceTable(nn.Module):
    """Appearance embeddings and transient maps of `side` x `side` cells, one row per image."""

    def __init__(self, num_images: int, appearance: int, side: int) -> None:
        super().__init__()
        self.appearances = nn.Parameter(EMBEDDING_STD * torch.randn(num_images, appearance))
        self.transient_maps = nn.Parameter(torch.zeros(num_images, CELL * side**2))

    @property
    def table(self) -> Float[Tensor, "n e"]:
        """Appearance embeddings and transient maps, concatenated."""
        return torch.cat([self.appearances, self.transient_maps], -1)

    def forward(
        self, image: Int[Tensor, " r"], context: RenderContext
    ) -> tuple[Float[Tensor, "r a"], Float[Tensor, "m v"], Int[Tensor, " r"]]:
        """Appearance of each ray, the transient maps, and the index of the map of each ray.

        They come from the context, else from the image in training, else from the mean of all images.
        """
        appearances, maps, map_index = self.appearances, self.transient_maps, image
        if context.appearance_embedding is not None:
            given = context.appearance_embedding.reshape(-1, context.appearance_embedding.shape[-1])
            appearances, maps = given.split([self.appearances.shape[1], self.transient_maps.shape[1]], -1)
        elif not isinstance(context, TrainingContext):
            appearances, maps = self.appearances.mean(0, keepdim=True), self.transient_maps.mean(0, keepdim=True)
        if context.appearance_embedding is not None or not isinstance(context, TrainingContext):
            map_index = torch.arange(len(image), device=image.device) % len(maps)
        return appearances[map_index], maps, map_index


def sample_transient_map(
    maps: Float[Tensor, "m v"], map_index: Int[Tensor, " r"], position: Float[Tensor, "r 2"]
) -> TransientSamples:
    """Transient map of each ray at its image position, bilinear between cell centers.

    Positions are 0 to 1 from left to right and from top to bottom. The density is an optical depth.
    """
    side = round((maps.shape[1] / CELL) ** 0.5)
    cells = maps.view(-1, side, side, CELL)
    cell = (position * side - 0.5).clamp(0, side - 1)
    low = cell.long()
    high = (low + 1).clamp(max=side - 1)
    (x, y), (left, top), (right, bottom) = (cell - low).split(1, -1), low.unbind(-1), high.unbind(-1)
    upper = torch.lerp(cells[map_index, top, left], cells[map_index, top, right], x)
    lower = torch.lerp(cells[map_index, bottom, left], cells[map_index, bottom, right], x)
    raw = torch.lerp(upper, lower, y)
    return activate_raw(torch.cat([raw[:, :1] + INITIAL_RAW_DEPTH, raw[:, 1:]], -1))


def composite_transient_map(
    rendered: Rendered, transient: TransientSamples, settings: NerfW, context: RenderContext
) -> Rendered:
    """Static scene behind a map of opacity a = 1 - exp(-optical depth): (1 - a) C + a c, beta_min + a beta.

    The loss on the optical depth is scaled like the errors that it removes: by 1 / (2 beta_min^2) with uncertainty.
    """
    opacity = -torch.expm1(-transient.density)[:, None]
    transient_rgb = opacity * transient.rgb
    channels = {
        "static": rendered.rgb,
        "transient": transient_rgb,
        "combined": (1 - opacity) * rendered.rgb + transient_rgb,
        "uncertainty": settings.beta_min + opacity[:, 0] * transient.uncertainty,
    }
    weight = 1 / (2 * settings.beta_min**2) if settings.uncertainty else 1.0
    loss = weight * settings.transient_loss_weight * transient.density.sum() / max(len(transient.density), 1)
    return with_transient(rendered, channels, loss, context)
