"""Appearance embeddings and 2D transient maps of backbone `grid`.

A transient map is a coarse image of color and opacity in front of its image. Its few cells can represent a person but
not the scene behind, so that static content is left to the field.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumifield.methods.base import RenderContext, Rendered
from lumifield.methods.nerf_w import NerfW
from lumifield.methods.nerf_w.transient import TransientSamples, activate_raw, with_transient

CELL = 5
"""Channels of a cell: optical depth, color, uncertainty."""
THIN = -3.0
"""Initial raw optical depth: content that several images share should be explained by the static scene."""
SPREAD = 0.1
"""Images start with similar embeddings: small networks overfit to dissimilar ones and learn no shared appearance."""


class AppearanceTable(nn.Module):
    """Appearance embeddings and transient maps of `side` x `side` cells, one row per image."""

    def __init__(self, photographs: int, appearance: int, side: int) -> None:
        super().__init__()
        self.appearances = nn.Parameter(SPREAD * torch.randn(photographs, appearance))
        self.veils = nn.Parameter(torch.zeros(photographs, CELL * side**2))

    @property
    def table(self) -> Float[Tensor, "n e"]:
        """Appearance embeddings and transient maps, concatenated."""
        return torch.cat([self.appearances, self.veils], -1)

    def forward(
        self, image: Int[Tensor, " r"], context: RenderContext
    ) -> tuple[Float[Tensor, "r a"], Float[Tensor, "m v"], Int[Tensor, " r"]]:
        """Appearance of each ray, the transient maps, and the index of the map of each ray.

        They come from the context, else from the image in training, else from the mean of all images.
        """
        appearances, veils, own = self.appearances, self.veils, image
        if context.appearance_embedding is not None:
            given = context.appearance_embedding.reshape(-1, context.appearance_embedding.shape[-1])
            appearances, veils = given.split([self.appearances.shape[1], self.veils.shape[1]], -1)
        elif context.rng is None:
            appearances, veils = self.appearances.mean(0, keepdim=True), self.veils.mean(0, keepdim=True)
        if context.appearance_embedding is not None or context.rng is None:
            own = torch.arange(len(image), device=image.device) % len(veils)
        return appearances[own], veils, own


def sample_transient_map(
    veils: Float[Tensor, "m v"], own: Int[Tensor, " r"], place: Float[Tensor, "r 2"]
) -> TransientSamples:
    """Transient map number `own` at the image position of each ray, bilinear between cell centers.

    Positions are 0 to 1 from left to right and from top to bottom. The density is an optical depth.
    """
    side = round((veils.shape[1] / CELL) ** 0.5)
    cells = veils.view(-1, side, side, CELL)
    spot = (place * side - 0.5).clamp(0, side - 1)
    low = spot.long()
    high = (low + 1).clamp(max=side - 1)
    (x, y), (left, top), (right, bottom) = (spot - low).split(1, -1), low.unbind(-1), high.unbind(-1)
    upper = torch.lerp(cells[own, top, left], cells[own, top, right], x)
    lower = torch.lerp(cells[own, bottom, left], cells[own, bottom, right], x)
    raw = torch.lerp(upper, lower, y)
    return activate_raw(torch.cat([raw[:, :1] + THIN, raw[:, 1:]], -1))


def composite_transient_map(
    rendered: Rendered, veil: TransientSamples, settings: NerfW, context: RenderContext
) -> Rendered:
    """Static scene behind a map of opacity a = 1 - exp(-optical depth): (1 - a) C + a c, beta_min + a beta.

    The loss on the optical depth is scaled like the errors that it removes: by 1 / (2 beta_min^2) with uncertainty.
    """
    opacity = -torch.expm1(-veil.density)[:, None]
    transient = opacity * veil.rgb
    channels = {
        "static": rendered.rgb,
        "transient": transient,
        "combined": (1 - opacity) * rendered.rgb + transient,
        "uncertainty": settings.beta_min + opacity[:, 0] * veil.uncertainty,
    }
    weight = 1 / (2 * settings.beta_min**2) if settings.uncertainty else 1.0
    price = weight * settings.transient_loss_weight * veil.density.sum() / max(len(veil.density), 1)
    return with_transient(rendered, channels, price, context)
