"""What rays meet, and the means of several rays of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lumifield.methods.nlr.appearance import Blend


@dataclass(frozen=True)
class Look:
    """The rays that meet the surface (their rows among all), how far away [scene units], and what is seen there."""

    rows: Int[Tensor, " p"]
    t: Float[Tensor, " p"]
    blend: Blend


def parts_of_a_pixel(side: int) -> list[tuple[float, float]]:
    """The middles of `side` by `side` parts of a pixel, from its own [pixels to the right and down]."""
    places = [(number + 0.5) / side - 0.5 for number in range(side)]
    return [(right, down) for down in places for right in places]


def mean_of(looks: Sequence[Look], count: int) -> Look:
    """The means of several looks at `count` pixels, of those that at least half of the looks meet."""
    if len(looks) == 1:
        return looks[0]
    rows = torch.cat([look.rows for look in looks])
    hits = rows.bincount(minlength=count)
    solid = (2 * hits >= len(looks)).nonzero()[:, 0]

    def mean(values: Float[Tensor, "p c"]) -> Float[Tensor, "q c"]:
        return (values.new_zeros(count, values.shape[1]).index_add(0, rows, values) / hits.clamp_min(1)[:, None])[solid]

    features, rgb = (mean(torch.cat([getattr(look.blend, name) for look in looks])) for name in ("features", "rgb"))
    share = mean(torch.cat([look.blend.share.T for look in looks])).T
    t = mean(torch.cat([look.t for look in looks])[:, None])[:, 0]
    return Look(solid, t, Blend(features, rgb, share))
