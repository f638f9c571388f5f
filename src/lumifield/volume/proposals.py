"""Proposals: intervals of a ray gather where a cheap density expects matter (Barron et al. 2022, section 3).

`edges` rise from 0 to 1 along a ray, one more than intervals; `placed` turns them into t. A histogram's `weights` say
how much of the ray each interval stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.runtime.rng import Rng
from lumifield.volume.sampling import inverted

EVEN_SHARE = 0.01
"""How much of a ray's new intervals is spread evenly over the old ones, whatever their weight."""
LEAST_WEIGHT = 1e-5


@dataclass(frozen=True)
class Histogram:
    """How much of a ray each of its intervals stops."""

    edges: Float[Tensor, "r n_plus_1"]
    weights: Float[Tensor, "r n"]


def even(rays: int, count: int, rng: Rng | None, device: torch.device) -> Float[Tensor, "{rays} {count}+1"]:
    """`count` equal intervals; with `rng` their inner edges are moved together, by up to half an interval."""
    edges = torch.linspace(0, 1, count + 1, device=device).repeat(rays, 1)
    if rng is not None:
        edges[:, 1:-1] += (rng.uniform(rays, 1) - 0.5) / count
    return edges


@torch.no_grad()
def regathered(histogram: Histogram, count: int, rng: Rng | None) -> Float[Tensor, "r {count}+1"]:
    """Edges of `count` intervals that hold equal weight each, by inverting the histogram's sum (section 3, "online").

    Without a gradient. With `rng` the inner edges are moved together by up to half an interval's weight.
    """
    share = histogram.weights + EVEN_SHARE / histogram.weights.shape[1]
    total = torch.nn.functional.pad((share / share.sum(-1, keepdim=True)).cumsum(-1), (1, 0))
    return inverted(histogram.edges, total, even(len(share), count, rng, share.device))


def placed(
    edges: Float[Tensor, "r n"], near: Float[Tensor, " r"], far: Float[Tensor, " r"], *, unbounded: bool
) -> Float[Tensor, "r n"]:
    """t of edges: even in t from near to far, or where `unbounded` even in t up to 1 and in 1 / t beyond."""
    near, far = near[:, None], far[:, None]
    if not unbounded:
        return near + (far - near) * edges
    start, end = folded(near), folded(far)
    return unfolded(start + (end - start) * edges)


def folded(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """All of an open ray in [0, 1]: even in t up to 1, in 1 / t beyond."""
    return torch.where(t < 1, t / 2, 1 - 0.5 / t.clamp_min(1))


def unfolded(s: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The inverse of `folded`."""
    return torch.where(s < 0.5, 2 * s, 0.5 / (1 - s).clamp_min(1e-9))


def proposal_loss(proposal: Histogram, final: Histogram) -> Float[Tensor, ""]:
    """What of `final` the proposal does not cover: `sum max(0, w - bound)^2 / w` (equations 12 and 13).

    The bound of an interval is the weight of all intervals of the proposal that touch it. Gradients reach the proposal
    alone.
    """
    weights, edges = final.weights.detach(), final.edges
    total = torch.nn.functional.pad(proposal.weights.cumsum(-1), (1, 0))
    first = torch.searchsorted(proposal.edges, edges[:, :-1].contiguous(), right=True) - 1
    last = torch.searchsorted(proposal.edges, edges[:, 1:].contiguous())
    most = proposal.weights.shape[1]
    bound = total.gather(1, last.clamp(0, most)) - total.gather(1, first.clamp(0, most))
    missing = (weights - bound).clamp_min(0)
    return (missing**2 / (weights + LEAST_WEIGHT)).sum() / max(len(edges), 1)


def distortion(histogram: Histogram) -> Float[Tensor, ""]:
    """Mean distance between any two places that stop a ray, in [0, 1] along it: fog and floaters pay (equation 15)."""
    weights, edges = histogram.weights, histogram.edges
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    before, moment = weights.cumsum(-1) - weights, (weights * middle).cumsum(-1) - weights * middle
    between = 2 * (weights * (middle * before - moment)).sum(-1)
    within = (weights**2 * (edges[:, 1:] - edges[:, :-1])).sum(-1) / 3
    return (between + within).sum() / max(len(edges), 1)
