"""Proposal sampling: intervals concentrate where a small proposal network predicts weight (Barron et al. 2022, section
3).

`edges` increase from 0 to 1 along a ray, one more than intervals; `s_to_t` maps them to t. The `weights` of a histogram
are the rendering weights of its intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.runtime.rng import Rng
from lumifield.volume.sampling import invert_cdf

UNIFORM_FRACTION = 0.01
"""Fraction of the new intervals that is distributed uniformly over the old ones, whatever their weight."""
MIN_WEIGHT = 1e-5


@dataclass(frozen=True)
class Histogram:
    """Rendering weights of the intervals of each ray."""

    edges: Float[Tensor, "r n_plus_1"]
    weights: Float[Tensor, "r n"]


def uniform_edges(rays: int, count: int, rng: Rng | None, device: torch.device) -> Float[Tensor, "{rays} {count}+1"]:
    """Edges of `count` equal intervals; `rng` shifts the inner edges of a ray together by up to half an interval."""
    edges = torch.linspace(0, 1, count + 1, device=device).repeat(rays, 1)
    if rng is not None:
        edges[:, 1:-1] += (rng.uniform(rays, 1) - 0.5) / count
    return edges


@torch.no_grad()
def resample_histogram(histogram: Histogram, count: int, rng: Rng | None) -> Float[Tensor, "r {count}+1"]:
    """Edges of `count` intervals of equal weight, by inverting the CDF of the histogram (section 3, "online").

    No gradient. With `rng` the inner edges shift together by up to half the weight of an interval.
    """
    share = histogram.weights + UNIFORM_FRACTION / histogram.weights.shape[1]
    total = torch.nn.functional.pad((share / share.sum(-1, keepdim=True)).cumsum(-1), (1, 0))
    return invert_cdf(histogram.edges, total, uniform_edges(len(share), count, rng, share.device))


def s_to_t(
    edges: Float[Tensor, "r n"], near: Float[Tensor, " r"], far: Float[Tensor, " r"], *, unbounded: bool
) -> Float[Tensor, "r n"]:
    """t of normalized edges s: linear from near to far, or for `unbounded` scenes linear in t up to 1 and in 1 / t
    beyond."""
    near, far = near[:, None], far[:, None]
    if not unbounded:
        return near + (far - near) * edges
    start, end = contract_distance(near), contract_distance(far)
    return uncontract_distance(start + (end - start) * edges)


def contract_distance(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Maps t in [0, inf) to [0, 1): linear up to t = 1, in 1 / t beyond."""
    return torch.where(t < 1, t / 2, 1 - 0.5 / t.clamp_min(1))


def uncontract_distance(s: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Inverse of `contract_distance`."""
    return torch.where(s < 0.5, 2 * s, 0.5 / (1 - s).clamp_min(1e-9))


def interlevel_loss(proposal: Histogram, final: Histogram) -> Float[Tensor, ""]:
    """Proposal loss: weight of `final` that the proposal does not bound, `sum max(0, w - bound)^2 / w` (equations 12,
    13).

    The bound of an interval is the weight of all overlapping proposal intervals. Gradients reach only the proposal.
    """
    weights, edges = final.weights.detach(), final.edges
    total = torch.nn.functional.pad(proposal.weights.cumsum(-1), (1, 0))
    first = torch.searchsorted(proposal.edges, edges[:, :-1].contiguous(), right=True) - 1
    last = torch.searchsorted(proposal.edges, edges[:, 1:].contiguous())
    end = proposal.weights.shape[1]
    bound = total.gather(1, last.clamp(0, end)) - total.gather(1, first.clamp(0, end))
    missing = (weights - bound).clamp_min(0)
    return (missing**2 / (weights + MIN_WEIGHT)).sum() / max(len(edges), 1)


def distortion_loss(histogram: Histogram) -> Float[Tensor, ""]:
    """Mean distance in s between pairs of weights along a ray, which penalizes fog and floaters (equation 15)."""
    weights, edges = histogram.weights, histogram.edges
    midpoint = 0.5 * (edges[:, 1:] + edges[:, :-1])
    before, moment = weights.cumsum(-1) - weights, (weights * midpoint).cumsum(-1) - weights * midpoint
    between = 2 * (weights * (midpoint * before - moment)).sum(-1)
    within = (weights**2 * (edges[:, 1:] - edges[:, :-1])).sum(-1) / 3
    return (between + within).sum() / max(len(edges), 1)
