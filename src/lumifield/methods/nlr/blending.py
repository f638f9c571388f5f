"""Blending weights of source views."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

HIDDEN = 32
MIN_ANGLE = 1e-3
"""Minimum angle: near 0 the derivative of the angle with respect to its cosine diverges."""
INITIAL_STD = 0.01
INITIAL_COSINE_SHARPNESS = 8.0
"""Initial preference for nearby views: the weight grows e-fold per 1 / sharpness of the cosine."""


class LearnedWeights(nn.Module):
    """Network of the features of a source view, the target ray and the cosine between both rays (NLR++, equation 4).

    A learned multiple of the cosine is added to its output, so that initially weights depend almost only on the angle.
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
        nn.init.uniform_(last.weight, -INITIAL_STD, INITIAL_STD)
        self.steepness = nn.Parameter(torch.tensor(INITIAL_COSINE_SHARPNESS))

    def forward(
        self, features: Float[Tensor, "p c"], directions: Float[Tensor, "p 3"], cosine: Float[Tensor, " p"]
    ) -> Float[Tensor, " p"]:
        """Weights of one source view in (0, 1)."""
        found = self.network(torch.cat([features, directions, cosine[:, None]], -1))[:, 0]
        return torch.sigmoid(found + self.steepness * (cosine - 1))


def angle_weights(
    kind: Literal["lumigraph", "epipolar", "mean"], cosine: Float[Tensor, "n p"], seen: Bool[Tensor, "n p"]
) -> Float[Tensor, "n p"]:
    """Weights without parameters; `cosine` is that between the target ray and the ray of each source view.

    mean: 1; lumigraph: the positive part of the cosine; epipolar: `(1 / a) (1 - a / a_max)` of the angles a, a_max the
    largest among the views that see the point (a single view has weight 1).
    """
    if kind == "mean":
        return seen.to(cosine.dtype)
    if kind == "lumigraph":
        return cosine.clamp_min(0) * seen
    limit = math.cos(MIN_ANGLE)
    angle = torch.acos(cosine.clamp(-limit, limit))
    largest = torch.where(seen, angle, 0.0).amax(0) if len(angle) else angle.sum(0)
    weights = torch.where(seen, (1 / angle) * (1 - angle / largest.clamp_min(MIN_ANGLE)), 0.0)
    alone = weights.sum(0) <= 0
    return torch.where(alone, seen.to(cosine.dtype), weights)


def normalize_weights(weights: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Weights that sum to one at each point; all zero if no view contributes."""
    total = weights.sum(0)
    return weights / torch.where(total > 0, total, 1.0)
