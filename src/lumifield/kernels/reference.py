"""Definition of every kernel in plain PyTorch: slow, obvious, twice differentiable, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

PRIMES = (1, 2654435761, 805459861)
CORNERS = tuple((i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1))
OPAQUE = 1e3
"""exp(-tau) is zero in double precision above this optical depth."""


def grid_encode(points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int]) -> Tensor:
    """Trilinear features of all levels at points in [0, 1]^3 (Müller et al. 2022, section 3).

    Level l has resolution `resolutions[l]` and the table rows `offsets[l]:offsets[l + 1]`. It is dense, x fastest, if
    its (resolution + 1)^3 corners fit; else corners are hashed by xor of coordinate times prime, modulo its rows.
    points (n, 3), table (rows, f) -> (n, levels * f).
    """
    points = points.clamp(0, 1)
    levels = []
    for level, resolution in enumerate(resolutions):
        start, size = offsets[level], offsets[level + 1] - offsets[level]
        scaled = points * resolution
        cell = scaled.detach().floor().clamp(max=resolution - 1)
        fraction = scaled - cell
        cell = cell.long()
        total = torch.zeros_like(points[:, :1]).expand(-1, table.shape[1])
        for corner in CORNERS:
            bit = torch.tensor(corner, device=points.device)
            weight = torch.where(bit.bool(), fraction, 1 - fraction).prod(-1, keepdim=True)
            total = total + weight * table[start + corner_rows(cell + bit, resolution, size)]
        levels.append(total)
    return torch.cat(levels, -1)


def corner_rows(corner: Tensor, resolution: int, size: int) -> Tensor:
    """Table rows of the corners (n, 3) of a level: dense if all corners fit into `size` rows, else hashed."""
    side = resolution + 1
    if side**3 <= size:
        return corner[:, 0] + side * (corner[:, 1] + side * corner[:, 2])
    mixed = torch.zeros_like(corner[:, 0])
    for axis, prime in enumerate(PRIMES):
        mixed = mixed ^ ((corner[:, axis] * prime) & 0xFFFFFFFF)
    return mixed % size


def contract_points(points: Tensor) -> Tensor:
    """Scene contraction of mip-NeRF 360 (equation 10) with the maximum norm: all space into the cube [-2, 2]^3."""
    size = points.abs().amax(-1, keepdim=True).clamp_min(1)
    return points * ((2 - 1 / size) / size)


def to_unit_cube(points: Tensor, box: Tensor, contracted: bool) -> Tensor:
    """Scene points in grid coordinates, [0, 1]^3 over the box, or over all space if contracted."""
    if not contracted:
        return (points - box[0]) / (box[1] - box[0])
    span = box[1] - box[0]
    return contract_points(torch.addcmul(-(box[0] + box[1]) / span, points, 2 / span)) / 4 + 0.5


def box_span(origin: Tensor, direction: Tensor, near: Tensor, far: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Part of [near, far] where each ray is inside the box; empty if it misses."""
    safe = torch.where(direction.abs() < 1e-12, torch.full_like(direction, 1e-12), direction)
    a, b = (box[0] - origin) / safe, (box[1] - origin) / safe
    first = torch.maximum(torch.minimum(a, b).amax(-1), near)
    last = torch.minimum(torch.maximum(a, b).amin(-1), far)
    return first, last


def march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    occupied: Tensor,
    box: Tensor,
    contracted: bool,
    step: float,
    cone: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Intervals of each ray whose midpoints lie in occupied cells.

    Along a ray t starts at near + jitter * width and increases by width = max(step, cone * t) until far; without
    contraction, near and far are first clipped to the box. `occupied` is (g, g, g) over [0, 1]^3, indexed z, y, x.
    Returns t0, t1 (s,), the ray of each interval (s,) int32, and offsets (r + 1,) int64.
    """
    first, last = (near, far) if contracted else box_span(origins, directions, near, far, box)
    side = occupied.shape[0]
    t = first + jitter * (cone * first).clamp_min(step)
    t0s, t1s, keeps = [], [], []
    while bool((t < last).any()):
        width = (cone * t).clamp_min(step)
        middle = t + 0.5 * width
        cell = (to_unit_cube(origins + middle[:, None] * directions, box, contracted) * side).floor().long()
        inside = ((cell >= 0) & (cell < side)).all(-1)
        x, y, z = cell.clamp(0, side - 1).unbind(-1)
        keeps.append(inside & occupied[z, y, x] & (t < last))
        t0s.append(t)
        t1s.append(t + width)
        t = t + width
    if not keeps:
        none = origins.new_zeros(0)
        return none, none, none.int(), torch.zeros(len(origins) + 1, dtype=torch.int64, device=origins.device)
    keep = torch.stack(keeps, 1)
    ray = torch.arange(len(origins), device=origins.device, dtype=torch.int32)[:, None].expand_as(keep)[keep]
    ends = torch.nn.functional.pad(keep.sum(1).cumsum(0), (1, 0))
    return torch.stack(t0s, 1)[keep], torch.stack(t1s, 1)[keep], ray, ends


def ray_of(offsets: Tensor, samples: int) -> Tensor:
    """Segment of each packed sample."""
    counts = offsets[1:] - offsets[:-1]
    return torch.repeat_interleave(torch.arange(len(counts), device=offsets.device), counts, output_size=samples)


def packed_weights(optical_depth: Tensor, offsets: Tensor) -> Tensor:
    """w_i = (1 - exp(-tau_i)) exp(-sum_{j<i} tau_j) per ray (NeRF, equation 3); tau >= 0 is density times length."""
    segment = ray_of(offsets, optical_depth.shape[0])
    # Without the clamp, one unbounded sample would dominate the cumulative sums of all later rays.
    total = torch.nn.functional.pad(optical_depth.double().clamp(max=OPAQUE).cumsum(0), (1, 0))
    before = (total[:-1] - total[offsets[:-1]][segment]).to(optical_depth.dtype)
    return -torch.expm1(-optical_depth) * torch.exp(-before)


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Sums of the rows (s, c) of each segment: (r, c)."""
    sums = values.new_zeros(len(offsets) - 1, values.shape[1])
    return sums.index_add(0, ray_of(offsets, values.shape[0]), values)
