"""Volume rendering along rays with the same number of samples each (NeRF, equation 3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

OPAQUE_LENGTH = 1e10
"""Length of an interval in which any positive density is opaque; infinity itself would have no gradient."""
MIN_OPACITY = 1e-6
"""Rays of lower opacity hit nothing: their depth is `far`."""


@dataclass(frozen=True)
class Rendered:
    """Output of a method per ray.

    `depth` is t of the surface: the expected t of the weights divided by `opacity`, or for packed samples of `instant`
    their median; t of `far` if nothing is hit. `coarse` holds the colors of coarser passes; `samples` counts field
    evaluations; `penalties` are weighted loss terms that only the pass itself can compute. `channels` are further
    outputs, colors or scalars.
    """

    rgb: Float[Tensor, "r 3"]
    depth: Float[Tensor, " r"]
    opacity: Float[Tensor, " r"]
    coarse: tuple[Float[Tensor, "r 3"], ...] = ()
    samples: int = 0
    penalties: dict[str, Tensor] = field(default_factory=dict)
    channels: dict[str, Float[Tensor, " r *c"]] = field(default_factory=dict)


def interval_lengths(
    z: Float[Tensor, "r n"], directions: Float[Tensor, "r 3"], end: Float[Tensor, " r"] | None = None
) -> Float[Tensor, "r n"]:
    """Length of the interval of each sample, up to the next sample and for the last one up to `end`.

    Without `end` the last interval is unbounded. Differences in t become lengths by the norm of `directions`.
    """
    last = torch.full_like(z[:, :1], OPAQUE_LENGTH) if end is None else (end[:, None] - z[:, -1:]).clamp_min(0)
    return torch.cat([z[:, 1:] - z[:, :-1], last], -1) * directions.norm(dim=-1, keepdim=True)


def weights_from_density(density: Float[Tensor, "r n"], width: Float[Tensor, "r n"]) -> Float[Tensor, "r n"]:
    """Weights `w_i = (1 - exp(-tau_i)) exp(-sum_{j<i} tau_j)` with tau = density * width (NeRF, equation 3)."""
    optical_depth = density * width
    before = torch.nn.functional.pad(optical_depth[:, :-1].cumsum(-1), (1, 0))[:, : optical_depth.shape[1]]
    return -torch.expm1(-optical_depth) * torch.exp(-before)


def composite(
    weights: Float[Tensor, "r n"],
    rgb: Float[Tensor, "r n 3"],
    z: Float[Tensor, "r n"],
    far: Float[Tensor, " r"],
    background: Float[Tensor, "*#r 3"],
) -> Rendered:
    """Color, expected depth and opacity of each ray from samples at depths `z`."""
    depth, opacity = expected_depth(weights, z, far)
    return Rendered(composite_colors(weights, rgb, background), depth, opacity, samples=z.numel())


def composite_colors(
    weights: Float[Tensor, "r n"], rgb: Float[Tensor, "r n 3"], background: Float[Tensor, "*#r 3"]
) -> Float[Tensor, "r 3"]:
    """Color of each ray: weighted sum of sample colors over the background."""
    return (weights[..., None] * rgb).sum(1) + (1 - weights.sum(-1, keepdim=True)) * background


def expected_depth(
    weights: Float[Tensor, "r n"], z: Float[Tensor, "r n"], far: Float[Tensor, " r"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
    """Expected t divided by the opacity (`far` where the opacity is zero), and the opacity."""
    opacity = weights.sum(-1)
    hit = opacity > MIN_OPACITY
    mean = (weights * z).sum(-1) / torch.where(hit, opacity, torch.ones_like(opacity))
    return torch.where(hit, mean, far), opacity
