"""Volume rendering along rays with the same number of samples each (NeRF, equation 3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ENDLESS = 1e10
"""A width in which any matter is opaque; infinity itself would have no gradient."""
EMPTY = 1e-6
"""Rays of less opacity have met nothing: their depth is `far`."""


def widths(
    z: Float[Tensor, "r n"], directions: Float[Tensor, "r 3"], end: Float[Tensor, " r"] | None = None
) -> Float[Tensor, "r n"]:
    """The length of the interval that each point stands for: up to the next one, the last up to `end`.

    Without `end` the last interval is endless. t is turned into length by the norm of `directions`.
    """
    last = torch.full_like(z[:, :1], ENDLESS) if end is None else (end[:, None] - z[:, -1:]).clamp_min(0)
    return torch.cat([z[:, 1:] - z[:, :-1], last], -1) * directions.norm(dim=-1, keepdim=True)


def visible(density: Float[Tensor, "r n"], width: Float[Tensor, "r n"]) -> Float[Tensor, "r n"]:
    """Weights `w_i = (1 - exp(-tau_i)) exp(-sum_{j<i} tau_j)`, tau = density * width (NeRF, equation 3)."""
    thickness = density * width
    before = torch.nn.functional.pad(thickness[:, :-1].cumsum(-1), (1, 0))[:, : thickness.shape[1]]
    return -torch.expm1(-thickness) * torch.exp(-before)


def blend(
    weights: Float[Tensor, "r n"], rgb: Float[Tensor, "r n 3"], background: Float[Tensor, "*#r 3"]
) -> Float[Tensor, "r 3"]:
    """The color seen: the samples' by weight, the background's for what is left."""
    return (weights[..., None] * rgb).sum(1) + (1 - weights.sum(-1, keepdim=True)) * background


def mean_depth(
    weights: Float[Tensor, "r n"], z: Float[Tensor, "r n"], far: Float[Tensor, " r"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
    """The expected t of the matter met, divided by the opacity (`far` where nothing is met), and the opacity."""
    opacity = weights.sum(-1)
    met = opacity > EMPTY
    mean = (weights * z).sum(-1) / torch.where(met, opacity, torch.ones_like(opacity))
    return torch.where(met, mean, far), opacity
