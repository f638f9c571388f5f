"""Surface hits of rays, and averages over the rays of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lumifield.methods.nlr.image_based_appearance import BlendedSamples


@dataclass(frozen=True)
class Hit:
    """Rays that hit the surface (rows among all), their distances [scene units], and blended samples there."""

    rows: Int[Tensor, " p"]
    t: Float[Tensor, " p"]
    blend: BlendedSamples


def subpixel_offsets(side: int) -> list[tuple[float, float]]:
    """Centers of `side` x `side` subpixels relative to the pixel center [pixels right and down]."""
    offsets = [(number + 0.5) / side - 0.5 for number in range(side)]
    return [(right, down) for down in offsets for right in offsets]


def average_hits(hits: Sequence[Hit], count: int) -> Hit:
    """Means of several hits at `count` pixels, for pixels hit by at least half of them."""
    if len(hits) == 1:
        return hits[0]
    rows = torch.cat([hit.rows for hit in hits])
    counts = rows.bincount(minlength=count)
    is_hit = (2 * counts >= len(hits)).nonzero()[:, 0]

    def mean(values: Float[Tensor, "p c"]) -> Float[Tensor, "q c"]:
        return (values.new_zeros(count, values.shape[1]).index_add(0, rows, values) / counts.clamp_min(1)[:, None])[
            is_hit
        ]

    features, rgb = (mean(torch.cat([getattr(hit.blend, name) for hit in hits])) for name in ("features", "rgb"))
    share = mean(torch.cat([hit.blend.share.T for hit in hits])).T
    t = mean(torch.cat([hit.t for hit in hits])[:, None])[:, 0]
    return Hit(is_hit, t, BlendedSamples(features, rgb, share))
