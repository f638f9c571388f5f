"""Sphere tracing of signed distance fields: negative inside, Lipschitz constant at most one.

Rays have unit directions. Distances are evaluated only for rays that are not yet decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lumifield.methods.nlr.distance_grid import Distance, DistanceGrid
from lumifield.runtime.config import check_min

GRADIENT_STEP = 1e-3
MIN_GRADIENT = 1e-2
TINY = 1e-12
GUIDED_STEPS, GUIDED_SECTIONS = 64, 16
REACH = 3.0
"""Maximum extent of a crossing found by a guide that is searched directly [cells]."""


@dataclass(frozen=True)
class TracingSettings:
    """Accuracy of sphere tracing."""

    steps: int = 24
    """Steps forwards from near."""
    back_steps: int = 8
    """Steps backwards from far, on rays that are still undecided."""
    sections: int = 64
    """Samples between both fronts if they have not met."""
    secants: int = 8
    """Iterations of the false position method between an outside and an inside sample."""
    threshold: float = 5e-5
    """Distance below which a point is on the surface [scene units]."""

    def __post_init__(self) -> None:
        check_min(self, steps=1, secants=1, sections=2, back_steps=0, threshold=0)


@dataclass(frozen=True)
class RaySegments:
    """Segments `origins + t * directions`, near <= t <= far; empty if near >= far."""

    origins: Float[Tensor, "r 3"]
    directions: Float[Tensor, "r 3"]
    near: Float[Tensor, " r"]
    far: Float[Tensor, " r"]

    def __len__(self) -> int:
        return len(self.near)

    def __getitem__(self, rows: slice | Tensor) -> RaySegments:
        return RaySegments(self.origins[rows], self.directions[rows], self.near[rows], self.far[rows])

    def at(self, t: Float[Tensor, " r"]) -> Float[Tensor, "r 3"]:
        """Points at `t`."""
        return torch.addcmul(self.origins, self.directions, t[:, None])

    def within_ball(self, center: Float[Tensor, "3"], radius: float | Float[Tensor, ""]) -> RaySegments:
        """Parts of the segments inside a ball; empty for those that miss it."""
        middle = ((center - self.origins) * self.directions).sum(-1)
        closest_approach = (center - self.at(middle)).norm(dim=-1)
        half = (radius**2 - closest_approach**2).clamp_min(0).sqrt()
        met = closest_approach < radius
        near = torch.where(met, torch.maximum(self.near, middle - half), self.far)
        far = torch.where(met, torch.minimum(self.far, middle + half), self.near)
        return RaySegments(self.origins, self.directions, near, far)


@torch.no_grad()
def sphere_trace(
    distance: Distance, rays: RaySegments, settings: TracingSettings
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """First t at which each ray is on or inside the surface (`far` if none), and which rays hit.

    Sphere tracing from both ends; uniform samples between fronts that have not met; the false position method where a
    sample is inside.
    """
    t, hit = rays.far.clone(), torch.zeros_like(rays.near, dtype=torch.bool)
    open_rows = (rays.near < rays.far).nonzero()[:, 0]
    outside, front, met = sphere_trace_forward(distance, rays[open_rows], settings.steps, settings.threshold)
    rows = open_rows[met]
    t[rows] = _refine_crossing(distance, rays[rows], outside[met], front[met], settings)
    hit[rows] = True
    left = ~met & (front < rays.far[open_rows])
    rest = open_rows[left]
    first, second, found = _bracket_crossing(distance, rays[rest], front[left], settings)
    rows = rest[found]
    t[rows] = _refine_crossing(distance, rays[rows], first[found], second[found], settings)
    hit[rows] = True
    return t, hit


@torch.no_grad()
def sphere_trace_guided(
    distance: Distance, guide: DistanceGrid, rays: RaySegments, settings: TracingSettings
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """`sphere_trace` with fewer evaluations: a guide, whose error is below half of its cell size, finds where each ray
    may hit first.

    Rays that the guide leads past the surface are not evaluated; those with a short crossing are refined directly; the
    others are sampled.
    """
    t, hit = rays.far.clone(), torch.zeros_like(rays.near, dtype=torch.bool)
    margin = guide.cell / 2
    before, low, _ = sphere_trace_forward(guide, rays, GUIDED_STEPS, margin)
    ahead = RaySegments(rays.origins, rays.directions, low, rays.far)
    _, high, inside = sphere_trace_forward(guide + margin, ahead, GUIDED_STEPS, margin / 10)
    short = (inside & (high - low < REACH * guide.cell)).nonzero()[:, 0]
    t[short], hit[short] = _find_crossing(distance, rays[short], low[short], high[short], settings)
    rest = (~hit & (low < rays.far)).nonzero()[:, 0]
    first = torch.maximum(low[rest] - 2 * guide.cell, before[rest])
    last = torch.where(inside[rest], high[rest] + guide.cell, _last(guide, ahead[rest], margin))
    t[rest], hit[rest] = _search_crossing(distance, rays[rest], first, last, settings)
    return torch.where(hit, t, rays.far), hit


def _find_crossing(
    distance: Distance,
    rays: RaySegments,
    low: Float[Tensor, " r"],
    high: Float[Tensor, " r"],
    settings: TracingSettings,
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Entry t of rays that are outside at `low` and inside at `high`, and which have one."""
    above, below = distance(torch.cat([rays.at(low), rays.at(high)])).chunk(2)
    t, found = high.clone(), (above > 0) & (below <= 0)
    rows = found.nonzero()[:, 0]
    ends = (low[rows], above[rows]), (high[rows], below[rows])
    t[rows], found[rows] = _false_position(distance, rays[rows], *ends, settings)
    return t, found


def _search_crossing(
    distance: Distance,
    rays: RaySegments,
    first: Float[Tensor, " r"],
    last: Float[Tensor, " r"],
    settings: TracingSettings,
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Entry t between `first` and `last` by sampling, and which rays have one.

    Uniform samples, and as many around the minimum of rays without an inside sample.
    """
    t, hit = last.clone(), torch.zeros_like(last, dtype=torch.bool)
    left = torch.arange(len(t), device=t.device)
    for _ in range(2):
        low, high, found, least = _first_inside_sample(
            distance, rays[left], first, last, GUIDED_SECTIONS, settings.threshold
        )
        rows = left[found]
        t[rows] = _refine_crossing(distance, rays[rows], low[found], high[found], settings)
        hit[rows] = True
        around = (last - first)[~found] / (GUIDED_SECTIONS - 1)
        left, first, last = left[~found], least[~found] - around, least[~found] + around
    return t, hit


def _last(distance: Distance, rays: RaySegments, threshold: float) -> Float[Tensor, " r"]:
    """Last t at which rays are close to the surface, or a later one."""
    length = rays.far - rays.near
    backwards = RaySegments(rays.at(rays.far), -rays.directions, torch.zeros_like(length), length)
    return rays.far - sphere_trace_forward(distance, backwards, GUIDED_STEPS, threshold)[1]


def sphere_trace_forward(
    distance: Distance, rays: RaySegments, steps: int, threshold: float
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Sphere tracing from near: last outside t, the current t, and whether it is at the surface."""
    if isinstance(distance, DistanceGrid) and rays.near.device.type == "cpu":
        return distance.sphere_trace((rays.origins, rays.directions, rays.near, rays.far), steps, threshold)
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


def _bracket_crossing(
    distance: Distance, rays: RaySegments, front: Float[Tensor, " r"], settings: TracingSettings
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Two t that bracket the entry of each ray, and whether they exist."""
    ahead = RaySegments(rays.origins, rays.directions, front, rays.far)
    backwards = RaySegments(ahead.at(ahead.far), -ahead.directions, torch.zeros_like(front), ahead.far - ahead.near)
    _, back, met = sphere_trace_forward(distance, backwards, settings.back_steps, settings.threshold)
    end = ahead.far - back
    first, second, found, _ = _first_inside_sample(
        distance, rays, front, torch.maximum(end, front), settings.sections, settings.threshold
    )
    # Where the backward front has hit a surface, its t counts as inside despite rounding.
    rounded = met & ~found
    gap = (end - front) / (settings.sections - 1)
    first, second = torch.where(rounded, end - gap, first), torch.where(rounded, end, second)
    return first, second, (found | met) & (end > front)


def _first_inside_sample(
    distance: Distance,
    rays: RaySegments,
    first: Float[Tensor, " r"],
    last: Float[Tensor, " r"],
    sections: int,
    threshold: float,
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Bool[Tensor, " r"], Float[Tensor, " r"]]:
    """Among uniform samples of each ray, the last before it is on or inside the surface and the first inside, whether
    they exist, and the sample of minimum distance [all t]."""
    t = first[:, None] + torch.linspace(0, 1, sections, device=first.device) * (last - first)[:, None]
    points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    values = distance(points.reshape(-1, 3)).view_as(t)
    inside = values <= threshold
    index = inside.int().argmax(-1, keepdim=True)
    low, high, least = (
        t.gather(1, at)[:, 0] for at in ((index - 1).clamp_min(0), index, values.argmin(-1, keepdim=True))
    )
    return low, high, inside.any(-1), least


def _refine_crossing(
    distance: Distance,
    rays: RaySegments,
    low: Float[Tensor, " r"],
    high: Float[Tensor, " r"],
    settings: TracingSettings,
) -> Float[Tensor, " r"]:
    """Zero crossing between `low` (outside) and `high` (on or inside the surface).

    Rays that begin inside, or whose `high` is on the surface, stay there.
    """
    below = distance(rays.at(high))
    above = distance(rays.at(low))
    t, rows = high.clone(), ((below < -settings.threshold) & (above > 0)).nonzero()[:, 0]
    t[rows], _ = _false_position(distance, rays[rows], (low[rows], above[rows]), (high[rows], below[rows]), settings)
    return t


def _false_position(
    distance: Distance,
    rays: RaySegments,
    outside: tuple[Float[Tensor, " r"], Float[Tensor, " r"]],
    inside: tuple[Float[Tensor, " r"], Float[Tensor, " r"]],
    settings: TracingSettings,
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Zero crossing between an outside and an inside t with their distances, and for which rays it was found.

    False position with the Illinois rule: the value at an end that is kept twice is halved.
    """
    (low, above), (high, below) = (tuple(v.clone() for v in end) for end in (outside, inside))
    t, active = high.clone(), torch.arange(len(high), device=high.device)
    kept = torch.zeros_like(low, dtype=torch.int8)
    for _ in range(settings.secants):
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
        active = active[value.abs() > settings.threshold]
    return t, torch.ones_like(t, dtype=torch.bool).index_fill(0, active, False)


@torch.no_grad()
def is_unoccluded(
    distance: Distance,
    points: Float[Tensor, "p 3"],
    camera_centers: Float[Tensor, "p 3"],
    tolerance: float,
    settings: TracingSettings,
) -> Bool[Tensor, " p"]:
    """Whether no surface in the unit ball lies between surface points and camera centers, beyond `tolerance`."""
    way = camera_centers - points
    far = way.norm(dim=-1)
    rays = RaySegments(points, way / far.clamp_min(TINY)[:, None], torch.full_like(far, tolerance), far)
    _, _, met = sphere_trace_forward(
        distance, rays.within_ball(points.new_zeros(3), 1.0), settings.steps, settings.threshold
    )
    return ~met


@torch.no_grad()
def closest_approach(distance: Distance, rays: RaySegments, samples: int) -> Float[Tensor, " r"]:
    """t at which each ray is closest to the surface or deepest inside: the minimum of uniform samples, then of as many
    around it; `near` for empty segments."""
    t, reach = 0.5 * (rays.near + rays.far), 0.5 * (rays.far - rays.near).clamp_min(0)
    share = (torch.arange(samples, device=t.device) + 0.5) * (2 / samples) - 1
    for _ in range(2):
        tried = t[:, None] + reach[:, None] * share
        points = rays.origins[:, None] + tried[..., None] * rays.directions[:, None]
        least = distance(points.reshape(-1, 3)).view_as(tried).argmin(-1, keepdim=True)
        t, reach = tried.gather(1, least)[:, 0], reach / samples
    return torch.where(rays.near < rays.far, t, rays.near)


def hit_points(distance: Distance, rays: RaySegments, t: Float[Tensor, " r"]) -> Float[Tensor, "r 3"]:
    """Surface points at `t`, differentiable to first order in field and rays (IDR, equation 3).

    `x = o + d (t - f(o + t d) / s)` with the derivative s of f along the ray, which carries no gradient.
    """
    start = rays.at(t.detach())
    with torch.no_grad():
        step = GRADIENT_STEP * rays.directions
        derivative = (distance(start + step) - distance(start - step)) / (2 * GRADIENT_STEP)
        derivative = torch.where(
            derivative < 0, derivative.clamp(max=-MIN_GRADIENT), derivative.clamp(min=MIN_GRADIENT)
        )
    return start - rays.directions * (distance(start) / derivative)[:, None]
