"""How much each source image counts at each point that it sees."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

HIDDEN = 32
SMALLEST_ANGLE = 1e-3
"""Angles count as at least this: near 0 the cosine hardly changes, and the slope of the angle has no end."""
FAINT = 0.01
MAX_FIELD = 8.0
"""How strongly near sources count before anything is learned: e times as much where the cosine is 1 / STEEP larger."""


class LearnedWeights(nn.Module):
    """A small network of a source's features, the target's ray and the cosine between both rays (NLR++, equation 4).

    To what it finds a learned multiple of the cosine is added: at first sources count by their angle alone, nearly.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        widths = [features + 4, HIDDEN, HIDDEN, HIDDEN, HIDDEN]
        layers: list[nn.Module] = []
        for entry, width in pairwise(widths):
            layers += [nn.Linear(entry, width), nn.ReLU()]
        last = nn.Linear(HIDDEN, 1)
        self.network = nn.Sequential(*layers, last)
        for module in self.network:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        nn.init.uniform_(last.weight, -FAINT, FAINT)
        self.steepness = nn.Parameter(torch.tensor(MAX_FIELD))

    def forward(
        self, features: Float[Tensor, "p c"], directions: Float[Tensor, "p 3"], cosine: Float[Tensor, " p"]
    ) -> Float[Tensor, " p"]:
        """Weights of one source between 0 and 1."""
        found = self.network(torch.cat([features, directions, cosine[:, None]], -1))[:, 0]
        return torch.sigmoid(found + self.steepness * (cosine - 1))


def by_angle(
    kind: Literal["lumigraph", "epipolar", "mean"], cosine: Float[Tensor, "n p"], seen: Bool[Tensor, "n p"]
) -> Float[Tensor, "n p"]:
    """Weights without anything learned; `cosine` is that between the target's ray and each source's.

    mean: one each; lumigraph: the cosine, where it is positive; epipolar: `(1 / a) (1 - a / a_max)` of the angles a,
    a_max the largest among the sources that see the point (a single one counts in full).
    """
    if kind == "mean":
        return seen.to(cosine.dtype)
    if kind == "lumigraph":
        return cosine.clamp_min(0) * seen
    limit = math.cos(SMALLEST_ANGLE)
    angle = torch.acos(cosine.clamp(-limit, limit))
    largest = torch.where(seen, angle, 0.0).amax(0) if len(angle) else angle.sum(0)
    weights = torch.where(seen, (1 / angle) * (1 - angle / largest.clamp_min(SMALLEST_ANGLE)), 0.0)
    alone = weights.sum(0) <= 0
    return torch.where(alone, seen.to(cosine.dtype), weights)


def shares(weights: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Weights of sum one at each point; all zero where no source counts."""
    total = weights.sum(0)
    return weights / torch.where(total > 0, total, 1.0)
