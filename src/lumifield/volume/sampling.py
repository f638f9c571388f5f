"""Sampling along rays.

`z` are sample depths in increasing order; `t` are interval edges, one more than intervals; `weights` are rendering
weights; `u` are numbers in [0, 1]. Random numbers come from an `Rng`; without one the functions return a regular grid.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.runtime.rng import Rng

PADDING = 1e-5
"""Added to each weight before resampling, so that an empty ray is resampled uniformly."""
EPS = torch.finfo(torch.float32).eps
MIN_BIN_MASS = 1e-5
"""Bins with less mass than this are not interpolated."""


def linspace_depths(
    near: Float[Tensor, " r"], far: Float[Tensor, " r"], count: int, *, disparity: bool = False
) -> Float[Tensor, "r {count}"]:
    """`count` depths from `near` to `far` inclusive, linear in t, or in 1 / t if `disparity` (near > 0)."""
    s = torch.linspace(0, 1, count, device=near.device)
    near, far = near[:, None], far[:, None]
    if disparity:
        return 1 / ((1 - s) / near + s / far)
    return near * (1 - s) + far * s


def midpoints(t: Float[Tensor, "r n_plus_1"]) -> Float[Tensor, "r n"]:
    """Midpoint of each interval."""
    return 0.5 * (t[:, 1:] + t[:, :-1])


def sample_stratified(z: Float[Tensor, "r n"], rng: Rng | None, *, jitter: float = 1.0) -> Float[Tensor, "r n"]:
    """Each depth moved uniformly within its stratum, which ends halfway to its neighbors (NeRF, equation 2).

    `jitter` scales the offset: 0, or no `rng`, returns the depths unchanged.
    """
    if rng is None or jitter == 0:
        return z
    between = midpoints(z)
    lower = torch.cat([z[:, :1], between], -1)
    upper = torch.cat([between, z[:, -1:]], -1)
    return lower + (upper - lower) * jitter * rng.uniform(*z.shape)


@torch.no_grad()
def resample(
    t: Float[Tensor, "r n_plus_1"], weights: Float[Tensor, "r n"], count: int, rng: Rng | None
) -> Float[Tensor, "r {count}"]:
    """`count` depths distributed like the weights of the intervals, by inverse transform sampling (NeRF, section 5.2).

    Without `rng` the CDF is inverted on a regular grid. No gradient flows through the depths.
    """
    share = weights + PADDING
    share = share / share.sum(-1, keepdim=True)
    total = torch.nn.functional.pad(share.cumsum(-1), (1, 0))
    if rng is None:
        u = torch.linspace(0, 1, count, device=t.device).expand(len(t), count)
    else:
        u = rng.uniform(len(t), count)
    above = torch.searchsorted(total, u.contiguous(), right=True)
    below, above = above - 1, above.clamp_max(weights.shape[1])
    start, height = total.gather(-1, below), total.gather(-1, above) - total.gather(-1, below)
    fraction = (u - start) / torch.where(height < MIN_BIN_MASS, torch.ones_like(height), height)
    first = t.gather(-1, below)
    return first + fraction * (t.gather(-1, above) - first)


def blur_weights(weights: Float[Tensor, "r n"], padding: float) -> Float[Tensor, "r n"]:
    """Weights blurred by a 2-tap max and a 2-tap mean filter, plus `padding` (mip-NeRF, equation 18)."""
    ends = torch.cat([weights[:, :1], weights, weights[:, -1:]], -1)
    larger = torch.maximum(ends[:, 1:], ends[:, :-1])
    return 0.5 * (larger[:, 1:] + larger[:, :-1]) + padding


def resample_edges(
    t: Float[Tensor, "r n_plus_1"], weights: Float[Tensor, "r n"], count: int, rng: Rng | None
) -> Float[Tensor, "r {count}+1"]:
    """Edges of `count` new intervals distributed like the weights of the old ones (mip-NeRF, section 3.1).

    With `rng` each edge is drawn within its own stratum, so that edges stay ordered. Gradients flow through them.
    """
    missing = (PADDING - weights.sum(-1, keepdim=True)).clamp_min(0)
    share = weights + missing / weights.shape[1]
    inner = (share / share.sum(-1, keepdim=True))[:, :-1].cumsum(-1).clamp_max(1)
    total = torch.nn.functional.pad(torch.nn.functional.pad(inner, (1, 0)), (0, 1), value=1.0)
    if rng is None:
        u = torch.linspace(0, 1 - EPS, count + 1, device=t.device).expand(len(t), count + 1).contiguous()
    else:
        strata = torch.arange(count + 1, device=t.device) / (count + 1)
        u = (strata + rng.uniform(len(t), count + 1) * (1 / (count + 1) - EPS)).clamp_max(1 - EPS)
    return invert_cdf(t, total, u)


def invert_cdf(
    t: Float[Tensor, "r n_plus_1"], total: Float[Tensor, "r n_plus_1"], u: Float[Tensor, "r m"]
) -> Float[Tensor, "r m"]:
    """t where the piecewise linear CDF `total`, 0 at the first edge and 1 at the last, reaches `u`."""
    below = (torch.searchsorted(total.detach(), u, right=True) - 1).clamp(0, t.shape[1] - 2)
    start, height = total.gather(-1, below), total.gather(-1, below + 1) - total.gather(-1, below)
    first, length = t.gather(-1, below), t.gather(-1, below + 1) - t.gather(-1, below)
    return first + length * ((u - start) / height.clamp_min(EPS)).clamp(0, 1)


def merge_depths(a: Float[Tensor, "r n"], b: Float[Tensor, "r m"]) -> Float[Tensor, "r n_plus_m"]:
    """The depths of both in increasing order."""
    return torch.cat([a, b], -1).sort(-1).values
