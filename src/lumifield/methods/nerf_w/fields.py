"""The paper's networks: NeRF's with an appearance beside the direction, and a head for passing matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield.fields.encodings import Positional
from lumifield.fields.mlp import Mlp, piece_rows
from lumifield.methods.nerf_w import NerfW
from lumifield.methods.nerf_w.passing import Passing, PassingHead, activated


@dataclass(frozen=True)
class Beside:
    """The encoding of a direction, and numbers beside it that stay as they are."""

    direction: Positional
    numbers: int

    @property
    def width(self) -> int:
        """The number of features."""
        return self.direction.width + self.numbers

    def __call__(self, x: Float[Tensor, "*p c"]) -> Float[Tensor, "*p features"]:
        """The features."""
        return torch.cat([self.direction(x[..., :3]), x[..., 3:]], -1)


def static_mlp(settings: NerfW) -> Mlp:
    """A network for the lasting scene, with fresh parameters."""
    return Mlp(
        width=settings.width,
        depth=settings.depth,
        skip=settings.depth // 2,
        position=Positional(settings.position_octaves),
        direction=Beside(Positional(settings.direction_octaves), settings.appearance),
        activation="softplus",
        bias=0.0,
    )


class WildMlp(nn.Module):
    """A network for the lasting scene whose features also lead to passing matter (NeRF-W, figure 3)."""

    def __init__(self, settings: NerfW) -> None:
        super().__init__()
        self.static = static_mlp(settings)
        inputs = settings.width + settings.transient
        head = PassingHead(inputs, settings.width // 2, settings.transient_depth)
        self.passing = head if settings.transient else None

    def forward(
        self, points: Float[Tensor, "r n 3"], view: Float[Tensor, "r 1 c"], code: Float[Tensor, "r 1 t"] | None
    ) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n 3"], Passing | None]:
        """Density and color of the lasting scene, and the passing matter of the embeddings `code`."""
        beside = self.static.directional(view)
        if code is None or self.passing is None:
            return *self.static(points, beside), None
        rows, weight = piece_rows(points), self.static.joined_weight()
        parts = []
        for piece, side, own in zip(points.split(rows), beside.split(rows), code.split(rows), strict=True):
            hidden = self.static.hidden(piece)
            raw = self.static.density(hidden)
            passed = self.passing(self.static.feature(hidden), own)
            parts.append(torch.cat([raw, self.static.raw_color(hidden, side, weight), passed], -1))
        values = torch.cat(parts).to(points.dtype)
        density, rgb = self.static.activated(values[..., 0]), torch.sigmoid(values[..., 1:4])
        return density, rgb, activated(values[..., 4:].reshape(-1, 5))
