"""How images look to backbone `grid`: numbers of their appearance, and a veil right before each camera.

A veil is a coarse image of what passed before its image. So few cells have room for a person, and none for the
scene behind: they cannot learn what all images show.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumifield.methods.base import Context, Rendered
from lumifield.methods.nerf_w import NerfW
from lumifield.methods.nerf_w.passing import Passing, activated, seen_with

CELL = 5
"""Numbers of a cell: optical_depth, color, uncertainty."""
THIN = -3.0
"""Raw optical_depth at which veils set out: what several images show is the lasting scene's to explain."""
SPREAD = 0.1
"""Images begin alike: small networks soon tell wide embeddings apart, and see no light that two have in common."""


class Looks(nn.Module):
    """A table of appearances and one of veils, with a row for each image; a veil has `side` times `side` cells."""

    def __init__(self, photographs: int, appearance: int, side: int) -> None:
        super().__init__()
        self.appearances = nn.Parameter(SPREAD * torch.randn(photographs, appearance))
        self.veils = nn.Parameter(torch.zeros(photographs, CELL * side**2))

    @property
    def table(self) -> Float[Tensor, "n e"]:
        """Appearances, and beside them veils."""
        return torch.cat([self.appearances, self.veils], -1)

    def forward(
        self, image: Int[Tensor, " r"], context: Context
    ) -> tuple[Float[Tensor, "r a"], Float[Tensor, "m v"], Int[Tensor, " r"]]:
        """The appearance of each ray, some veils, and which of them is before each ray.

        They are as the context says, else the image's own while training, else the mean of all.
        """
        appearances, veils, own = self.appearances, self.veils, image
        if context.embedding is not None:
            given = context.embedding.reshape(-1, context.embedding.shape[-1])
            appearances, veils = given.split([self.appearances.shape[1], self.veils.shape[1]], -1)
        elif context.rng is None:
            appearances, veils = self.appearances.mean(0, keepdim=True), self.veils.mean(0, keepdim=True)
        if context.embedding is not None or context.rng is None:
            own = torch.arange(len(image), device=image.device) % len(veils)
        return appearances[own], veils, own


def before(veils: Float[Tensor, "m v"], own: Int[Tensor, " r"], place: Float[Tensor, "r 2"]) -> Passing:
    """What the veil number `own` is like at a place of each ray, bilinearly between the middles of its cells.

    A place is 0 to 1 from left to right and from top to bottom. Density is a optical_depth.
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
    return activated(torch.cat([raw[:, :1] + THIN, raw[:, 1:]], -1))


def veiled(rendered: Rendered, veil: Passing, settings: NerfW, context: Context) -> Rendered:
    """The lasting scene behind a veil of opacity a = 1 - exp(-optical_depth): (1 - a) C + a c, beta_min + a beta.

    A veil pays by its optical_depth, in the units of the errors that it takes away: where these count 1 / (2 beta_min^2)
    times, so does its price.
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
    price = weight * settings.lambda_u * veil.density.sum() / max(len(veil.density), 1)
    return seen_with(rendered, channels, price, context)
