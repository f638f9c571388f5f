"""Networks of NeRF-W: the NeRF MLP conditioned on appearance, and a transient head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield.fields.encodings import Positional
from lumifield.fields.mlp import Mlp, piece_rows
from lumifield.methods.nerf_w import NerfW
from lumifield.methods.nerf_w.transient import TransientHead, TransientSamples, activate_raw


@dataclass(frozen=True)
class DirectionWithAppearance:
    """Encoding of a direction, with further inputs concatenated unchanged."""

    direction: Positional
    num_extra: int

    @property
    def width(self) -> int:
        """Number of features."""
        return self.direction.width + self.num_extra

    def __call__(self, x: Float[Tensor, "*p c"]) -> Float[Tensor, "*p features"]:
        """Features of direction and further inputs."""
        return torch.cat([self.direction(x[..., :3]), x[..., 3:]], -1)


def static_mlp(settings: NerfW) -> Mlp:
    """MLP of the static scene with random parameters."""
    return Mlp(
        width=settings.hidden_dim,
        depth=settings.num_layers,
        skip=settings.num_layers // 2,
        position=Positional(settings.num_position_frequencies),
        direction=DirectionWithAppearance(Positional(settings.num_direction_frequencies), settings.appearance_dim),
        activation="softplus",
        bias=0.0,
    )


class TransientMlp(nn.Module):
    """MLP of the static scene whose features also feed the transient head (NeRF-W, figure 3)."""

    def __init__(self, settings: NerfW) -> None:
        super().__init__()
        self.static = static_mlp(settings)
        inputs = settings.hidden_dim + settings.transient_dim
        head = TransientHead(inputs, settings.hidden_dim // 2, settings.num_transient_layers)
        self.transient = head if settings.transient_dim else None

    def forward(
        self, points: Float[Tensor, "r n 3"], view: Float[Tensor, "r 1 c"], code: Float[Tensor, "r 1 t"] | None
    ) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n 3"], TransientSamples | None]:
        """Density and color of the static scene, and the transient samples for the embeddings `code`."""
        view_features = self.static.directional(view)
        if code is None or self.transient is None:
            return *self.static(points, view_features), None
        rows, weight = piece_rows(points), self.static.joined_weight()
        parts = []
        for piece, view_piece, code_piece in zip(
            points.split(rows), view_features.split(rows), code.split(rows), strict=True
        ):
            hidden = self.static.hidden(piece)
            raw = self.static.density(hidden)
            transient = self.transient(self.static.feature(hidden), code_piece)
            parts.append(torch.cat([raw, self.static.raw_color(hidden, view_piece, weight), transient], -1))
        values = torch.cat(parts).to(points.dtype)
        density, rgb = self.static.activated(values[..., 0]), torch.sigmoid(values[..., 1:4])
        return density, rgb, activate_raw(values[..., 4:].reshape(-1, 5))
