"""Where rays meet the surface of a signed distance field: negative inside, growing by at most one per unit of length.

Rays have unit directions. Only rays that are not yet decided are asked for their distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lumifield.methods.nlr.distance_grid import Distance, DistanceGrid
from lumifield.runtime.config import at_least

SLOPE_STEP = 1e-3
LEAST_SLOPE = 1e-2
TINY = 1e-12
GUIDED_STEPS, GUIDED_SECTIONS = 64, 16
REACH = 3.0
"""Longest way between outside and inside that a guide is followed on [cells]."""


@dataclass(frozen=True)
class Care:
    """How carefully rays are traced."""

    steps: int = 24
    """Steps of the front that moves from where a ray begins towards where it ends."""
    back_steps: int = 8
    """Steps of the front that comes to meet it, on rays that the first has not decided."""
    sections: int = 64
    """Samples between two fronts that have not met."""
    secants: int = 8
    """Steps of the false position method between a sample outside and one inside."""
    threshold: float = 5e-5
    """Distance at which a point counts as on the surface [scene units]."""

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "secants")
        at_least(2, self, "sections")
        at_least(0, self, "back_steps", "threshold")


@dataclass(frozen=True)
class Segments:
    """Pieces `origins + t * directions`, near <= t <= far, of rays; those with near >= far hold no point."""

    origins: Float[Tensor, "r 3"]
    directions: Float[Tensor, "r 3"]
    near: Float[Tensor, " r"]
    far: Float[Tensor, " r"]

    def __len__(self) -> int:
        return len(self.near)

    def __getitem__(self, rows: slice | Tensor) -> Segments:
        return Segments(self.origins[rows], self.directions[rows], self.near[rows], self.far[rows])

    def at(self, t: Float[Tensor, " r"]) -> Float[Tensor, "r 3"]:
        """The points at `t`."""
        return torch.addcmul(self.origins, self.directions, t[:, None])

    def within_ball(self, center: Float[Tensor, "3"], radius: float | Float[Tensor, ""]) -> Segments:
        """What of the segments lies in a ball; those that miss it end before they begin."""
        middle = ((center - self.origins) * self.directions).sum(-1)
        closest = (center - self.at(middle)).norm(dim=-1)
        half = (radius**2 - closest**2).clamp_min(0).sqrt()
        met = closest < radius
        near = torch.where(met, torch.maximum(self.near, middle - half), self.far)
        far = torch.where(met, torch.minimum(self.far, middle + half), self.near)
        return Segments(self.origins, self.directions, near, far)


@torch.no_grad()
def trace(distance: Distance, rays: Segments, care: Care) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """The first t at which each ray is on the surface or inside, and which rays have one (t is `far` for the others).

    Sphere tracing from both ends; between fronts that have not met, evenly spaced samples; where one lies inside, the
    false position method.
    """
    t, hit = rays.far.clone(), torch.zeros_like(rays.near, dtype=torch.bool)
    open_rows = (rays.near < rays.far).nonzero()[:, 0]
    outside, front, met = march(distance, rays[open_rows], care.steps, care.threshold)
    rows = open_rows[met]
    t[rows] = _between(distance, rays[rows], outside[met], front[met], care)
    hit[rows] = True
    left = ~met & (front < rays.far[open_rows])
    rest = open_rows[left]
    first, second, found = _sectioned(distance, rays[rest], front[left], care)
    rows = rest[found]
    t[rows] = _between(distance, rays[rows], first[found], second[found], care)
    hit[rows] = True
    return t, hit


@torch.no_grad()
def trace_guided(
    distance: Distance, guide: DistanceGrid, rays: Segments, care: Care
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """What `trace` returns, with fewer distances: a guide, which differs from them by less than half of one of its
    cells, leads each ray to where it may meet the surface first.

    What it leads past the surface is not looked at; what it soon leads from outside to inside, between these two places
    alone; of others there are samples.
    """
    t, hit = rays.far.clone(), torch.zeros_like(rays.near, dtype=torch.bool)
    margin = guide.cell / 2
    before, low, _ = march(guide, rays, GUIDED_STEPS, margin)
    ahead = Segments(rays.origins, rays.directions, low, rays.far)
    _, high, inside = march(guide + margin, ahead, GUIDED_STEPS, margin / 10)
    short = (inside & (high - low < REACH * guide.cell)).nonzero()[:, 0]
    t[short], hit[short] = _crossed(distance, rays[short], low[short], high[short], care)
    rest = (~hit & (low < rays.far)).nonzero()[:, 0]
    first = torch.maximum(low[rest] - 2 * guide.cell, before[rest])
    last = torch.where(inside[rest], high[rest] + guide.cell, _last(guide, ahead[rest], margin))
    t[rest], hit[rest] = _searched(distance, rays[rest], first, last, care)
    return torch.where(hit, t, rays.far), hit


def _crossed(
    distance: Distance, rays: Segments, low: Float[Tensor, " r"], high: Float[Tensor, " r"], care: Care
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Where rays enter that are outside at `low` and inside at `high`, and which do."""
    above, below = distance(torch.cat([rays.at(low), rays.at(high)])).chunk(2)
    t, found = high.clone(), (above > 0) & (below <= 0)
    rows = found.nonzero()[:, 0]
    ends = (low[rows], above[rows]), (high[rows], below[rows])
    t[rows], found[rows] = _false_position(distance, rays[rows], *ends, care)
    return t, found


def _searched(
    distance: Distance, rays: Segments, first: Float[Tensor, " r"], last: Float[Tensor, " r"], care: Care
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Where rays enter between `first` and `last`, as far as samples tell, and which do.

    They are evenly spaced, and as many are about the least of a ray that has none inside.
    """
    t, hit = last.clone(), torch.zeros_like(last, dtype=torch.bool)
    left = torch.arange(len(t), device=t.device)
    for _ in range(2):
        low, high, found, least = _entered(distance, rays[left], first, last, GUIDED_SECTIONS, care.threshold)
        rows = left[found]
        t[rows] = _between(distance, rays[rows], low[found], high[found], care)
        hit[rows] = True
        around = (last - first)[~found] / (GUIDED_SECTIONS - 1)
        left, first, last = left[~found], least[~found] - around, least[~found] + around
    return t, hit


def _last(distance: Distance, rays: Segments, threshold: float) -> Float[Tensor, " r"]:
    """The last t at which rays are so near to the surface, or a later one."""
    length = rays.far - rays.near
    backwards = Segments(rays.at(rays.far), -rays.directions, torch.zeros_like(length), length)
    return rays.far - march(distance, backwards, GUIDED_STEPS, threshold)[1]


def march(
    distance: Distance, rays: Segments, steps: int, threshold: float
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Sphere tracing from near: the last t outside, where the front stands, and whether that is at a surface."""
    if isinstance(distance, DistanceGrid) and rays.near.device.type == "cpu":
        return distance.marched((rays.origins, rays.directions, rays.near, rays.far), steps, threshold)
    outside, front = rays.near.clone(), rays.near.clone()
    met = torch.zeros_like(front, dtype=torch.bool)
    active = (front <= rays.far).nonzero()[:, 0]
    for _ in range(steps):
        if len(active) == 0:
            break
        here = front[active]
        gap = distance(rays[active].at(here))
        reached = gap <= threshold
        met[active[reached]] = True
        active, here, gap = active[~reached], here[~reached], gap[~reached]
        outside[active], front[active] = here, here + gap
        active = active[here + gap <= rays.far[active]]
    return outside, front, met


def _sectioned(
    distance: Distance, rays: Segments, front: Float[Tensor, " r"], care: Care
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Two t of each ray, between which it enters the surface, and whether there are such."""
    ahead = Segments(rays.origins, rays.directions, front, rays.far)
    backwards = Segments(ahead.at(ahead.far), -ahead.directions, torch.zeros_like(front), ahead.far - ahead.near)
    _, back, met = march(distance, backwards, care.back_steps, care.threshold)
    end = ahead.far - back
    first, second, found, _ = _entered(distance, rays, front, torch.maximum(end, front), care.sections, care.threshold)
    # Where the front from behind has met a surface, its place counts as inside whatever rounding says.
    rounded = met & ~found
    gap = (end - front) / (care.sections - 1)
    first, second = torch.where(rounded, end - gap, first), torch.where(rounded, end, second)
    return first, second, (found | met) & (end > front)


def _entered(
    distance: Distance,
    rays: Segments,
    first: Float[Tensor, " r"],
    last: Float[Tensor, " r"],
    sections: int,
    threshold: float,
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Bool[Tensor, " r"], Float[Tensor, " r"]]:
    """Of evenly spaced samples of each ray the last before it is on the surface or inside and the first that is there,
    whether there are such, and the sample of the least distance [all t].
    """
    t = first[:, None] + torch.linspace(0, 1, sections, device=first.device) * (last - first)[:, None]
    points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    values = distance(points.reshape(-1, 3)).view_as(t)
    inside = values <= threshold
    index = inside.int().argmax(-1, keepdim=True)
    low, high, least = (
        t.gather(1, at)[:, 0] for at in ((index - 1).clamp_min(0), index, values.argmin(-1, keepdim=True))
    )
    return low, high, inside.any(-1), least


def _between(
    distance: Distance, rays: Segments, low: Float[Tensor, " r"], high: Float[Tensor, " r"], care: Care
) -> Float[Tensor, " r"]:
    """Where the distance is zero between `low` (outside) and `high` (on the surface or inside).

    Rays that begin inside stay where they begin, and those whose `high` is on the surface there.
    """
    below = distance(rays.at(high))
    above = distance(rays.at(low))
    t, rows = high.clone(), ((below < -care.threshold) & (above > 0)).nonzero()[:, 0]
    t[rows], _ = _false_position(distance, rays[rows], (low[rows], above[rows]), (high[rows], below[rows]), care)
    return t


def _false_position(
    distance: Distance,
    rays: Segments,
    outside: tuple[Float[Tensor, " r"], Float[Tensor, " r"]],
    inside: tuple[Float[Tensor, " r"], Float[Tensor, " r"]],
    care: Care,
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Where the distance is zero between a t outside and one inside, both with the distances there, and for which rays
    that was found.

    False position with the Illinois rule: the value at an end that stays twice is halved.
    """
    (low, above), (high, below) = (tuple(v.clone() for v in end) for end in (outside, inside))
    t, active = high.clone(), torch.arange(len(high), device=high.device)
    kept = torch.zeros_like(low, dtype=torch.int8)
    for _ in range(care.secants):
        if len(active) == 0:
            break
        a, b, fa, fb = low[active], high[active], above[active], below[active]
        middle = b - fb * (b - a) / (fb - fa)
        value = distance(rays[active].at(middle))
        t[active] = middle
        within = value <= 0
        stayed = kept[active]
        low[active], above[active] = torch.where(within, a, middle), torch.where(within, fa, value)
        high[active], below[active] = torch.where(within, middle, b), torch.where(within, value, fb)
        above[active[within & (stayed == 1)]] *= 0.5
        below[active[~within & (stayed == -1)]] *= 0.5
        kept[active] = torch.where(within, 1, -1).to(torch.int8)
        active = active[value.abs() > care.threshold]
    return t, torch.ones_like(t, dtype=torch.bool).index_fill(0, active, False)


@torch.no_grad()
def unhidden(
    distance: Distance, points: Float[Tensor, "p 3"], eyes: Float[Tensor, "p 3"], slack: float, care: Care
) -> Bool[Tensor, " p"]:
    """Whether nothing in the unit ball lies between points on a surface and eyes, from `slack` before them on."""
    way = eyes - points
    far = way.norm(dim=-1)
    rays = Segments(points, way / far.clamp_min(TINY)[:, None], torch.full_like(far, slack), far)
    _, _, met = march(distance, rays.within_ball(points.new_zeros(3), 1.0), care.steps, care.threshold)
    return ~met


@torch.no_grad()
def closest(distance: Distance, rays: Segments, samples: int) -> Float[Tensor, " r"]:
    """The t at which each ray comes closest to the surface or lies deepest inside: the least of evenly spaced samples,
    then of as many about it; `near` for segments without a point.
    """
    t, reach = 0.5 * (rays.near + rays.far), 0.5 * (rays.far - rays.near).clamp_min(0)
    share = (torch.arange(samples, device=t.device) + 0.5) * (2 / samples) - 1
    for _ in range(2):
        tried = t[:, None] + reach[:, None] * share
        points = rays.origins[:, None] + tried[..., None] * rays.directions[:, None]
        least = distance(points.reshape(-1, 3)).view_as(tried).argmin(-1, keepdim=True)
        t, reach = tried.gather(1, least)[:, 0], reach / samples
    return torch.where(rays.near < rays.far, t, rays.near)


def hit_points(distance: Distance, rays: Segments, t: Float[Tensor, " r"]) -> Float[Tensor, "r 3"]:
    """The points at `t` on the surface, which move with the field and the rays to first order (IDR, equation 3).

    `x = o + d (t - f(o + t d) / s)` with the slope s of f along the ray, which carries no gradient.
    """
    start = rays.at(t.detach())
    with torch.no_grad():
        step = SLOPE_STEP * rays.directions
        slope = (distance(start + step) - distance(start - step)) / (2 * SLOPE_STEP)
        slope = torch.where(slope < 0, slope.clamp(max=-LEAST_SLOPE), slope.clamp(min=LEAST_SLOPE))
    return start - rays.directions * (distance(start) / slope)[:, None]
