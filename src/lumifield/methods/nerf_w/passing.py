"""Passing matter: what each image alone shows, and how it hides the lasting scene (NeRF-W, section 4.2)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield import kernels
from lumifield.data.scene import Batch
from lumifield.methods.base import Context, Rendered
from lumifield.methods.nerf_w import NerfW

THINNEST = 1e-12
CHANNELS = ("static", "transient", "combined", "uncertainty")


@dataclass(frozen=True)
class Passing:
    """What passing matter is like at samples: density, color, and how uncertain that color is."""

    density: Float[Tensor, " s"]
    rgb: Float[Tensor, "s 3"]
    uncertainty: Float[Tensor, " s"]


@dataclass(frozen=True)
class Mixture:
    """Samples of rays that hold both kinds of matter, `width` long; ray r owns the rows `offsets[r]:offsets[r + 1]`."""

    density: Float[Tensor, " s"]
    rgb: Float[Tensor, "s 3"]
    passing: Passing
    width: Float[Tensor, " s"]
    offsets: Int[Tensor, " r_plus_1"]


class PassingHead(nn.Module):
    """Density, color and uncertainty from features of a sample and the embedding of its image."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.Linear(width, 5)

    def forward(self, features: Float[Tensor, "*s f"], code: Float[Tensor, "*#s t"]) -> Float[Tensor, "*s 5"]:
        """Raw values of samples, for `activated`."""
        code = code.expand(*features.shape[:-1], code.shape[-1]).to(features.dtype)
        return self.heads(self.trunk(torch.cat([code, features], -1)))


def activated(raw: Float[Tensor, "s 5"]) -> Passing:
    """What raw values of density, color and uncertainty say."""
    return Passing(F.softplus(raw[:, 0]), torch.sigmoid(raw[:, 1:4]), F.softplus(raw[:, 4]))


class Embeddings(nn.Module):
    """One table for all networks: how an image looks, and beside it what passed before it."""

    def __init__(self, settings: NerfW, photographs: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(photographs, settings.appearance + settings.transient))
        self.appearance = settings.appearance

    def forward(self, image: Int[Tensor, " r"], context: Context) -> tuple[Float[Tensor, "r a"], Float[Tensor, "r t"]]:
        """Appearance and passing matter of each ray: as the context says, else its image's own while training."""
        if context.embedding is not None:
            return self.parts(context.embedding.expand(len(image), -1))
        return self.parts(self.table[image]) if context.rng is not None else self.mean(len(image))

    def mean(self, rows: int) -> tuple[Float[Tensor, "{rows} a"], Float[Tensor, "{rows} t"]]:
        """The mean of all images, in so many rows."""
        return self.parts(self.table.mean(0).expand(rows, -1))

    def parts(self, rows: Float[Tensor, "r e"]) -> tuple[Float[Tensor, "r a"], Float[Tensor, "r t"]]:
        """Embeddings cut in two."""
        return rows[:, : self.appearance], rows[:, self.appearance :]


def asked_for(settings: NerfW, context: Context) -> bool:
    """Whether a pass has to show passing matter: where images are learned, or a channel of it is asked for."""
    learning = context.rng is not None and context.embedding is None
    return settings.transient > 0 and (learning or bool(context.channels))


def joint_weights(
    static: Float[Tensor, " s"], passing: Float[Tensor, " s"], offsets: Int[Tensor, " r_plus_1"]
) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"], Float[Tensor, " s"]]:
    """What each kind of matter of these thicknesses shows of itself, and what both stop (NeRF-W, equations 8 and 9).

    `w_i = T_i (1 - exp(-tau_i))` of each kind, with T_i = exp(-sum of both before i).
    """
    stopped = kernels.packed_weights(static + passing, offsets)
    light = stopped / (-torch.expm1(-(static + passing))).clamp_min(THINNEST)
    return -torch.expm1(-static) * light, -torch.expm1(-passing) * light, stopped


def shown(rendered: Rendered, mixture: Mixture, settings: NerfW, context: Context) -> Rendered:
    """The rendering of the lasting scene with what passed by: as channels, and while training as the color of a ray.

    The color of both is `sum_i w_i c_i`, their uncertainty `beta_min + sum_i w_i beta_i` over passing matter.
    """
    passing, width = mixture.passing, mixture.width
    lasting, own, stopped = joint_weights(mixture.density * width, passing.density * width, mixture.offsets)
    parts = (
        lasting[:, None] * mixture.rgb,
        own[:, None] * passing.rgb,
        (own * passing.uncertainty)[:, None],
        stopped[:, None],
    )
    static, transient, uncertainty, opacity = kernels.segment_sum(torch.cat(parts, -1), mixture.offsets).split(
        (3, 3, 1, 1), -1
    )
    channels = {
        "static": rendered.rgb,
        "transient": transient,
        "combined": static + transient + (1 - opacity) * context.background,
        "uncertainty": settings.beta_min + uncertainty[:, 0],
    }
    price = settings.lambda_u * passing.density.sum() / max(passing.density.numel(), 1)
    return seen_with(rendered, channels, price, context)


def seen_with(rendered: Rendered, channels: dict[str, Tensor], price: Tensor, context: Context) -> Rendered:
    """The rendering with those channels that are asked for; while training what both kinds of matter show together."""
    if context.rng is None:
        return replace(rendered, channels={name: channels[name] for name in context.channels})
    penalties = {**rendered.penalties, "transient": price}
    return replace(rendered, rgb=channels["combined"], channels=channels, penalties=penalties)


def losses(rendered: Rendered, batch: Batch, settings: NerfW) -> dict[str, Tensor]:
    """`1/2 |C - c|^2 / beta^2 + ln(beta / beta_min)` of the last pass, `1/2 |C - c|^2` of the others (equation 13)."""
    error = (rendered.rgb - batch.rgb).square().mean(-1)
    uncertainty = rendered.channels.get("uncertainty") if settings.uncertainty else None
    if uncertainty is None:
        found = {"rgb": error.mean()}
    else:
        found = {
            "rgb": 0.5 * (error / uncertainty.square()).mean(),
            "uncertainty": torch.log(uncertainty / settings.beta_min).mean(),
        }
    if rendered.coarse:
        found["coarse"] = 0.5 * torch.stack([F.mse_loss(rgb, batch.rgb) for rgb in rendered.coarse]).sum()
    return {**found, **rendered.penalties}
