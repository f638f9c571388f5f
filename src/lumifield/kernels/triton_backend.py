"""Kernels on CUDA, written in Triton: compiled at first use, without a compiler or toolkit to install.

Tensors are float32. Sums into the table are atomic, so their order, and the last bits of the gradient, vary between
runs. Rays and rows are indexed in int64; coordinates are hashed in uint32, as in the reference.
"""

# Triton's language is typed for its own compiler; its loops and sums look wrong to a type checker.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

PRIME_Y = tl.constexpr(2654435761)
PRIME_Z = tl.constexpr(805459861)

POINTS = 128  # points per program of the encoding: one per thread with four warps
RAYS = 32  # rays per program of the march: one warp, which runs as long as its longest ray
UNROLLED = 4  # steps of the march whose loads are in flight at once
SAMPLES = 32  # samples of one ray that a warp processes at once


@triton.jit
def _level(levels, level, count):
    """Resolution, first row, number of rows of a level, and whether its corners all fit into them."""
    resolution = tl.load(levels + level)
    start = tl.load(levels + count + level)
    size = tl.load(levels + 2 * count + level)
    side = resolution + 1
    return resolution.to(tl.int32), start, size.to(tl.uint32), side * side * side <= size


@triton.jit
def _triple(rows, i, mask):
    """The three numbers of each row."""
    x = tl.load(rows + i * 3, mask=mask, other=0.0)
    y = tl.load(rows + i * 3 + 1, mask=mask, other=0.0)
    z = tl.load(rows + i * 3 + 2, mask=mask, other=0.0)
    return x, y, z


@triton.jit
def _cell(coordinate, resolution):
    """Cell of a coordinate, clamped to [0, 1], and the position within the cell."""
    scaled = tl.minimum(tl.maximum(coordinate, 0.0), 1.0) * resolution.to(tl.float32)
    cell = tl.minimum(scaled.to(tl.int32), resolution - 1)
    return cell.to(tl.uint32), scaled - cell.to(tl.float32)


@triton.jit
def _cells(points, i, mask, resolution):
    """Cells along the three axes, and the positions within them."""
    px, py, pz = _triple(points, i, mask)
    x, fx = _cell(px, resolution)
    y, fy = _cell(py, resolution)
    z, fz = _cell(pz, resolution)
    return x, y, z, fx, fy, fz


@triton.jit
def _corner_row(x, y, z, corner: tl.constexpr, resolution, size, dense):
    """Table row of one of the eight corners of a cell within its level; see `reference.corner_rows`."""
    x, y, z = x + (corner & 1), y + ((corner >> 1) & 1), z + (corner >> 2)
    side = (resolution + 1).to(tl.uint32)
    hashed = (x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) % size
    return tl.where(dense, x + side * (y + side * z), hashed).to(tl.int64)


@triton.jit
def _shares(fx, fy, fz, corner: tl.constexpr):
    """Weights of a corner along the three axes."""
    wx = fx if corner & 1 else 1.0 - fx
    wy = fy if (corner >> 1) & 1 else 1.0 - fy
    wz = fz if corner >> 2 else 1.0 - fz
    return wx, wy, wz


@triton.jit
def _tile(n, COLUMNS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """Points of a program, their mask, the features of a row, and the mask of points by features."""
    points = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    features = tl.arange(0, PADDED)
    mask = points < n
    return points, mask, features, mask[:, None] & (features < COLUMNS)[None, :]


@triton.jit
def _encode(points, table, levels, out, n, COLUMNS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    level, count = tl.program_id(1), tl.num_programs(1)
    i, mask, f, tile = _tile(n, COLUMNS, PADDED, BLOCK)
    resolution, start, size, dense = _level(levels, level, count)
    x, y, z, fx, fy, fz = _cells(points, i, mask, resolution)
    total = tl.zeros([BLOCK, PADDED], tl.float32)
    for corner in tl.static_range(8):
        row = start + _corner_row(x, y, z, corner, resolution, size, dense)
        wx, wy, wz = _shares(fx, fy, fz, corner)
        entry = tl.load(table + row[:, None] * COLUMNS + f[None, :], mask=tile, other=0.0)
        total += (wx * wy * wz)[:, None] * entry
    tl.store(out + (i * count + level)[:, None] * COLUMNS + f[None, :], total, mask=tile)


@triton.jit
def _encode_table_gradient(
    gradient, points, levels, out, n, COLUMNS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr
):
    level, count = tl.program_id(1), tl.num_programs(1)
    i, mask, f, tile = _tile(n, COLUMNS, PADDED, BLOCK)
    resolution, start, size, dense = _level(levels, level, count)
    x, y, z, fx, fy, fz = _cells(points, i, mask, resolution)
    g = tl.load(gradient + (i * count + level)[:, None] * COLUMNS + f[None, :], mask=tile, other=0.0)
    for corner in tl.static_range(8):
        row = start + _corner_row(x, y, z, corner, resolution, size, dense)
        wx, wy, wz = _shares(fx, fy, fz, corner)
        tl.atomic_add(out + row[:, None] * COLUMNS + f[None, :], (wx * wy * wz)[:, None] * g, mask=tile, sem="relaxed")


@triton.jit
def _encode_points_gradient(
    gradient, points, table, levels, out, n, count, COLUMNS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr
):
    i, mask, f, tile = _tile(n, COLUMNS, PADDED, BLOCK)
    dx, dy, dz = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for level in range(count):
        resolution, start, size, dense = _level(levels, level, count)
        x, y, z, fx, fy, fz = _cells(points, i, mask, resolution)
        g = tl.load(gradient + (i * count + level)[:, None] * COLUMNS + f[None, :], mask=tile, other=0.0)
        for corner in tl.static_range(8):
            row = start + _corner_row(x, y, z, corner, resolution, size, dense)
            entry = tl.load(table + row[:, None] * COLUMNS + f[None, :], mask=tile, other=0.0)
            along = tl.sum(g * entry, 1) * resolution.to(tl.float32)
            wx, wy, wz = _shares(fx, fy, fz, corner)
            dx += along * wy * wz * (2 * (corner & 1) - 1)
            dy += along * wx * wz * (2 * ((corner >> 1) & 1) - 1)
            dz += along * wx * wy * (2 * (corner >> 2) - 1)
    px, py, pz = _triple(points, i, mask)
    tl.store(out + i * 3, _inside(px, dx), mask=mask)
    tl.store(out + i * 3 + 1, _inside(py, dy), mask=mask)
    tl.store(out + i * 3 + 2, _inside(pz, dz), mask=mask)


@triton.jit
def _inside(coordinate, gradient):
    """The gradient, or zero outside [0, 1], where a clamped point does not change the features."""
    return tl.where((coordinate >= 0) & (coordinate <= 1), gradient, 0.0)


@triton.jit
def _clip(origin, direction, low, high, first, last):
    """Part of [first, last] between two planes orthogonal to one axis; see `reference.box_span`."""
    safe = tl.where(tl.abs(direction) < 1e-12, 1e-12, direction)
    a, b = (low - origin) / safe, (high - origin) / safe
    return tl.maximum(first, tl.minimum(a, b)), tl.minimum(last, tl.maximum(a, b))


@triton.jit
def _in_box(position, low, high, CONTRACTED: tl.constexpr):
    """Coordinate relative to the box: [0, 1], or [-1, 1] if it is contracted later."""
    return (2 * position - low - high) / (high - low) if CONTRACTED else (position - low) / (high - low)


@triton.jit
def _is_occupied(x, y, z, occupied, side, mask, CONTRACTED: tl.constexpr):
    """Whether points in the coordinates of `_in_box` lie in occupied cells."""
    if CONTRACTED:
        size = tl.maximum(tl.maximum(tl.maximum(tl.abs(x), tl.abs(y)), tl.abs(z)), 1.0)
        shrink = (2.0 - 1.0 / size) / size / 4.0
        x, y, z = x * shrink + 0.5, y * shrink + 0.5, z * shrink + 0.5
    i, j, k = tl.floor(x * side), tl.floor(y * side), tl.floor(z * side)
    inside = (i >= 0) & (j >= 0) & (k >= 0) & (i < side) & (j < side) & (k < side) & mask
    i = tl.where(inside, i, 0.0).to(tl.int64)
    j = tl.where(inside, j, 0.0).to(tl.int64)
    k = tl.where(inside, k, 0.0).to(tl.int64)
    return tl.load(occupied + (k * side + j) * side + i, mask=inside, other=0) != 0


@triton.jit
def _march(
    origins, directions, near, far, jitter, occupied, box, side, step, cone, n, ends, t0, t1, ray,
    CONTRACTED: tl.constexpr, FILL: tl.constexpr, RAYS: tl.constexpr, UNROLLED: tl.constexpr,
):  # fmt: skip
    """Without FILL, counts intervals into `ends[r + 1]`; with it, writes them from `ends[r]` on."""
    r = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    mask = r < n
    ox, oy, oz = _triple(origins, r, mask)
    dx, dy, dz = _triple(directions, r, mask)
    x0, y0, z0 = _triple(box, 0, True)
    x1, y1, z1 = _triple(box, 1, True)
    first = tl.load(near + r, mask=mask, other=0.0)
    last = tl.load(far + r, mask=mask, other=0.0)
    if not CONTRACTED:
        first, last = _clip(ox, dx, x0, x1, first, last)
        first, last = _clip(oy, dy, y0, y1, first, last)
        first, last = _clip(oz, dz, z0, z1, first, last)
    t = first + tl.load(jitter + r, mask=mask, other=0.0) * tl.maximum(cone * first, step)
    slot = tl.load(ends + r, mask=mask & FILL, other=0)
    while tl.max((mask & (t < last)).to(tl.int32), 0) > 0:
        for _ in tl.static_range(UNROLLED):
            width = tl.maximum(cone * t, step)
            middle = t + 0.5 * width
            x = _in_box(ox + middle * dx, x0, x1, CONTRACTED)
            y = _in_box(oy + middle * dy, y0, y1, CONTRACTED)
            z = _in_box(oz + middle * dz, z0, z1, CONTRACTED)
            keep = _is_occupied(x, y, z, occupied, side, mask & (t < last), CONTRACTED)
            if FILL:
                tl.store(t0 + slot, t, mask=keep)
                tl.store(t1 + slot, t + width, mask=keep)
                tl.store(ray + slot, r.to(tl.int32), mask=keep)
            slot += keep.to(tl.int64)
            t += width
    if not FILL:
        tl.store(ends + r + 1, slot, mask=mask)


@triton.jit
def _opacity(optical_depth):
    """1 - exp(-tau), by its series where the difference would lose digits."""
    small = tl.minimum(optical_depth, 0.125)
    series = small * (1 - small / 2 * (1 - small / 3 * (1 - small / 4 * (1 - small / 5))))
    return tl.where(optical_depth < 0.125, series, 1 - tl.exp(-optical_depth))


@triton.jit
def _packed_weights(optical_depth, offsets, out, WEIGHTS: tl.constexpr, BLOCK: tl.constexpr):
    """One ray per program. Without WEIGHTS, writes the optical depth before each sample instead."""
    ray = tl.program_id(0).to(tl.int64)
    first, last = tl.load(offsets + ray), tl.load(offsets + ray + 1)
    carry = 0.0
    for start in range(first, last, BLOCK):
        i = start + tl.arange(0, BLOCK)
        # Loading one sample later makes the sum exclusive; subtracting tau from an inclusive sum would lose digits.
        earlier = tl.load(optical_depth + i - 1, mask=(i > first) & (i < last), other=0.0)
        before = carry + tl.cumsum(earlier, 0)
        carry += tl.sum(earlier, 0)
        if WEIGHTS:
            tau = tl.load(optical_depth + i, mask=i < last, other=0.0)
            tl.store(out + i, _opacity(tau) * tl.exp(-before), mask=i < last)
        else:
            tl.store(out + i, before, mask=i < last)


@triton.jit
def _packed_weights_gradient(gradient, optical_depth, before, offsets, out, BLOCK: tl.constexpr):
    # dw_i / dtau_i = exp(-before_i - tau_i) and dw_j / dtau_i = -w_j for j > i: the ray is traversed from its end.
    ray = tl.program_id(0).to(tl.int64)
    first, last = tl.load(offsets + ray), tl.load(offsets + ray + 1)
    carry = 0.0
    for done in range(0, last - first, BLOCK):
        i = last - 1 - done - tl.arange(0, BLOCK)
        here, has_next = i >= first, (i >= first) & (i + 1 < last)
        next_gradient = tl.load(gradient + i + 1, mask=has_next, other=0.0)
        next_tau = tl.load(optical_depth + i + 1, mask=has_next, other=0.0)
        next_before = tl.load(before + i + 1, mask=has_next, other=0.0)
        behind = next_gradient * _opacity(next_tau) * tl.exp(-next_before)
        later = carry + tl.cumsum(behind, 0)
        carry += tl.sum(behind, 0)
        g = tl.load(gradient + i, mask=here, other=0.0)
        through = tl.load(before + i, mask=here, other=0.0) + tl.load(optical_depth + i, mask=here, other=0.0)
        tl.store(out + i, g * tl.exp(-through) - later, mask=here)


@triton.jit
def _segment_sum(values, offsets, out, COLUMNS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    ray = tl.program_id(0).to(tl.int64)
    first, last = tl.load(offsets + ray), tl.load(offsets + ray + 1)
    c = tl.arange(0, PADDED)
    total = tl.zeros([BLOCK, PADDED], tl.float32)
    for start in range(first, last, BLOCK):
        i = start + tl.arange(0, BLOCK)
        mask = (i < last)[:, None] & (c < COLUMNS)[None, :]
        total += tl.load(values + i[:, None] * COLUMNS + c[None, :], mask=mask, other=0.0)
    tl.store(out + ray * COLUMNS + c, tl.sum(total, 0), mask=c < COLUMNS)


@triton.jit
def _spread(values, offsets, out, COLUMNS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    ray = tl.program_id(0).to(tl.int64)
    first, last = tl.load(offsets + ray), tl.load(offsets + ray + 1)
    c = tl.arange(0, PADDED)
    value = tl.load(values + ray * COLUMNS + c, mask=c < COLUMNS, other=0.0)
    for start in range(first, last, BLOCK):
        i = start + tl.arange(0, BLOCK)
        mask = (i < last)[:, None] & (c < COLUMNS)[None, :]
        tl.store(out + i[:, None] * COLUMNS + c[None, :], tl.broadcast_to(value[None, :], [BLOCK, PADDED]), mask=mask)


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    if 0 in grid:
        return
    with torch.cuda.device_of(arguments[0]):
        # Without fused multiply-adds t and positions round as in the reference, so rays visit the same cells.
        kernel[grid](*arguments, **constants, enable_fp_fusion=False)


@lru_cache(maxsize=64)
def _levels(resolutions: tuple[int, ...], offsets: tuple[int, ...], device: torch.device) -> Tensor:
    rows = torch.tensor(offsets)
    return torch.stack([torch.tensor(resolutions), rows[:-1], rows.diff()]).to(device)


def _tiles(columns: int, block: int) -> dict[str, int]:
    return {"COLUMNS": columns, "PADDED": triton.next_power_of_2(columns), "BLOCK": block, "num_warps": block // 32}


def grid_encode_forward(points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int]) -> Tensor:
    """Features of all levels: see `reference.grid_encode`."""
    n, features, count = points.shape[0], table.shape[1], len(resolutions)
    points, table = points.contiguous(), table.contiguous()
    levels = _levels(tuple(resolutions), tuple(offsets), points.device)
    out, grid = points.new_empty(n, count * features), (triton.cdiv(n, POINTS), count)
    _launch(_encode, grid, points, table, levels, out, n, **_tiles(features, POINTS))
    return out


def grid_encode_backward(
    gradient: Tensor, points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int], with_points: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients with respect to points (if requested) and table."""
    n, features, count = points.shape[0], table.shape[1], len(resolutions)
    gradient, points, table = gradient.contiguous(), points.contiguous(), table.contiguous()
    levels = _levels(tuple(resolutions), tuple(offsets), points.device)
    d_table = torch.zeros_like(table)
    blocks = triton.cdiv(n, POINTS)
    _launch(_encode_table_gradient, (blocks, count), gradient, points, levels, d_table, n, **_tiles(features, POINTS))
    if not with_points:
        return None, d_table
    d_points = torch.empty_like(points)
    arguments = gradient, points, table, levels, d_points, n, count
    _launch(_encode_points_gradient, (blocks,), *arguments, **_tiles(features, POINTS))
    return d_points, d_table


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
    """Occupied intervals of each ray: see `reference.march`."""
    n = origins.shape[0]
    rays = tuple(x.contiguous() for x in (origins, directions, near, far, jitter))
    space = occupied.contiguous().view(torch.uint8), box.contiguous(), occupied.shape[0], float(step), float(cone)
    how: dict[str, Any] = {"CONTRACTED": contracted, "RAYS": RAYS, "UNROLLED": UNROLLED, "num_warps": 1}
    grid = (triton.cdiv(n, RAYS),)
    ends = torch.zeros(n + 1, dtype=torch.int64, device=origins.device)
    _launch(_march, grid, *rays, *space, n, ends, near, near, ends, FILL=False, **how)
    ends = ends.cumsum(0)
    samples = int(ends[-1])  # synchronizes with the device: the number of samples sizes the outputs
    t0, t1, ray = near.new_empty(samples), near.new_empty(samples), near.new_empty(samples, dtype=torch.int32)
    if samples:
        _launch(_march, grid, *rays, *space, n, ends, t0, t1, ray, FILL=True, **how)
    return t0, t1, ray, ends


def packed_weights_forward(optical_depth: Tensor, offsets: Tensor) -> Tensor:
    """Weights of packed samples: see `reference.packed_weights`."""
    optical_depth, offsets = optical_depth.contiguous(), offsets.contiguous()
    out = torch.empty_like(optical_depth)
    grid = (len(offsets) - 1,)
    _launch(_packed_weights, grid, optical_depth, offsets, out, WEIGHTS=True, BLOCK=SAMPLES, num_warps=1)
    return out


def packed_weights_backward(gradient: Tensor, optical_depth: Tensor, offsets: Tensor) -> Tensor:
    """Gradient with respect to the optical depth."""
    gradient, optical_depth, offsets = gradient.contiguous(), optical_depth.contiguous(), offsets.contiguous()
    before, out = torch.empty_like(optical_depth), torch.empty_like(optical_depth)
    grid = (len(offsets) - 1,)
    _launch(_packed_weights, grid, optical_depth, offsets, before, WEIGHTS=False, BLOCK=SAMPLES, num_warps=1)
    arguments = gradient, optical_depth, before, offsets, out
    _launch(_packed_weights_gradient, grid, *arguments, BLOCK=SAMPLES, num_warps=1)
    return out


def segment_sum_forward(values: Tensor, offsets: Tensor) -> Tensor:
    """Sums over segments: see `reference.segment_sum`."""
    rays, columns = len(offsets) - 1, values.shape[1]
    out = values.new_empty(rays, columns)
    _launch(_segment_sum, (rays,), values.contiguous(), offsets.contiguous(), out, **_tiles(columns, SAMPLES))
    return out


def segment_sum_backward(gradient: Tensor, offsets: Tensor, samples: int) -> Tensor:
    """Gradient of each segment copied to its samples."""
    rays, columns = gradient.shape
    out = gradient.new_empty(samples, columns)
    _launch(_spread, (rays,), gradient.contiguous(), offsets.contiguous(), out, **_tiles(columns, SAMPLES))
    return out
