"""Kernels on a CPU, compiled by numba at first use and cached on disk if a cache folder is writable.

Positions and weights are float32 and indices int32 or uint32 throughout, because numba promotes a mix to float64.
Reductions over threads are split by level or by ray, never by thread, so results do not depend on the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

# All fast-math flags except those that assume the absence of NaN and infinity.
FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
CHUNK = 256
PRIME_Y = np.uint32(2654435761)
PRIME_Z = np.uint32(805459861)


def _compiled(function: Callable[..., Any], parallel: bool = True) -> Callable[..., Any]:
    try:
        return numba.njit(function, parallel=parallel, fastmath=FAST, cache=True, error_model="numpy", nogil=True)
    except RuntimeError:  # no writable cache folder
        return numba.njit(function, parallel=parallel, fastmath=FAST, error_model="numpy", nogil=True)


@numba.njit(inline="always")
def _corner_row(x, y, z, side, size, dense):
    if dense:
        return x + side * (y + side * z)
    # numba multiplies in 64 bits: without truncation the upper halves would change the remainder.
    mixed = x ^ np.uint32(y * PRIME_Y) ^ np.uint32(z * PRIME_Z)
    # A division costs as much as the rest of this function; hashed levels have a power of two of rows.
    return mixed & (size - np.uint32(1)) if size & (size - np.uint32(1)) == 0 else mixed % size


@numba.njit(inline="always")
def _cell(coordinate, resolution):
    scaled = min(max(coordinate, np.float32(0)), np.float32(1)) * np.float32(resolution)
    cell = min(np.int32(scaled), np.int32(resolution - 1))
    return np.uint32(cell), scaled - np.float32(cell)


def _encode(points, table, resolutions, offsets, out):
    n, features = points.shape[0], table.shape[1]
    for chunk in numba.prange((n + CHUNK - 1) // CHUNK):
        first, last = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        for level in range(resolutions.shape[0]):
            resolution, start = resolutions[level], offsets[level]
            size = np.uint32(offsets[level + 1] - start)
            side = np.uint32(resolution + 1)
            dense = np.int64(side) ** 3 <= np.int64(size)
            for i in range(first, last):
                x, fx = _cell(points[i, 0], resolution)
                y, fy = _cell(points[i, 1], resolution)
                z, fz = _cell(points[i, 2], resolution)
                gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
                one = np.uint32(1)
                r0 = start + np.int64(_corner_row(x, y, z, side, size, dense))
                r1 = start + np.int64(_corner_row(x + one, y, z, side, size, dense))
                r2 = start + np.int64(_corner_row(x, y + one, z, side, size, dense))
                r3 = start + np.int64(_corner_row(x + one, y + one, z, side, size, dense))
                r4 = start + np.int64(_corner_row(x, y, z + one, side, size, dense))
                r5 = start + np.int64(_corner_row(x + one, y, z + one, side, size, dense))
                r6 = start + np.int64(_corner_row(x, y + one, z + one, side, size, dense))
                r7 = start + np.int64(_corner_row(x + one, y + one, z + one, side, size, dense))
                for f in range(features):
                    near = gy * (gx * table[r0, f] + fx * table[r1, f]) + fy * (gx * table[r2, f] + fx * table[r3, f])
                    back = gy * (gx * table[r4, f] + fx * table[r5, f]) + fy * (gx * table[r6, f] + fx * table[r7, f])
                    out[i, level * features + f] = gz * near + fz * back


def _encode_table_gradient(gradient, points, resolutions, offsets, out):
    # One level per task: levels own disjoint rows, so the order of sums is fixed and no two threads write to one row.
    n, features = points.shape[0], out.shape[1]
    for level in numba.prange(resolutions.shape[0]):
        resolution, start = resolutions[level], offsets[level]
        size = np.uint32(offsets[level + 1] - start)
        side = np.uint32(resolution + 1)
        dense = np.int64(side) ** 3 <= np.int64(size)
        for i in range(n):
            x, fx = _cell(points[i, 0], resolution)
            y, fy = _cell(points[i, 1], resolution)
            z, fz = _cell(points[i, 2], resolution)
            gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
            one = np.uint32(1)
            r0 = start + np.int64(_corner_row(x, y, z, side, size, dense))
            r1 = start + np.int64(_corner_row(x + one, y, z, side, size, dense))
            r2 = start + np.int64(_corner_row(x, y + one, z, side, size, dense))
            r3 = start + np.int64(_corner_row(x + one, y + one, z, side, size, dense))
            r4 = start + np.int64(_corner_row(x, y, z + one, side, size, dense))
            r5 = start + np.int64(_corner_row(x + one, y, z + one, side, size, dense))
            r6 = start + np.int64(_corner_row(x, y + one, z + one, side, size, dense))
            r7 = start + np.int64(_corner_row(x + one, y + one, z + one, side, size, dense))
            for f in range(features):
                g = gradient[i, level * features + f]
                gn, gb = g * gz, g * fz
                out[r0, f] += gn * gy * gx
                out[r1, f] += gn * gy * fx
                out[r2, f] += gn * fy * gx
                out[r3, f] += gn * fy * fx
                out[r4, f] += gb * gy * gx
                out[r5, f] += gb * gy * fx
                out[r6, f] += gb * fy * gx
                out[r7, f] += gb * fy * fx


def _encode_points_gradient(gradient, points, table, resolutions, offsets, out):
    n, features = points.shape[0], table.shape[1]
    for i in numba.prange(n):
        dx, dy, dz = np.float32(0), np.float32(0), np.float32(0)
        for level in range(resolutions.shape[0]):
            resolution, start = resolutions[level], offsets[level]
            size = np.uint32(offsets[level + 1] - start)
            side = np.uint32(resolution + 1)
            dense = np.int64(side) ** 3 <= np.int64(size)
            scale = np.float32(resolution)
            x, fx = _cell(points[i, 0], resolution)
            y, fy = _cell(points[i, 1], resolution)
            z, fz = _cell(points[i, 2], resolution)
            for corner in range(8):
                a, b, c = np.uint32(corner & 1), np.uint32((corner >> 1) & 1), np.uint32(corner >> 2)
                row = start + np.int64(_corner_row(x + a, y + b, z + c, side, size, dense))
                wx = fx if a else np.float32(1) - fx
                wy = fy if b else np.float32(1) - fy
                wz = fz if c else np.float32(1) - fz
                total = np.float32(0)
                for f in range(features):
                    total += gradient[i, level * features + f] * table[row, f]
                total *= scale
                dx += total * wy * wz * (np.float32(1) if a else np.float32(-1))
                dy += total * wx * wz * (np.float32(1) if b else np.float32(-1))
                dz += total * wx * wy * (np.float32(1) if c else np.float32(-1))
        # Outside the cube the point is clamped, so it does not move the features.
        out[i, 0] = dx if np.float32(0) <= points[i, 0] <= np.float32(1) else np.float32(0)
        out[i, 1] = dy if np.float32(0) <= points[i, 1] <= np.float32(1) else np.float32(0)
        out[i, 2] = dz if np.float32(0) <= points[i, 2] <= np.float32(1) else np.float32(0)


@numba.njit(inline="always")
def _occupied_at(p, d, t, occupied, low, scale, contracted):
    side = np.float32(occupied.shape[0])
    x = (p[0] + t * d[0] - low[0]) * scale[0]
    y = (p[1] + t * d[1] - low[1]) * scale[1]
    z = (p[2] + t * d[2] - low[2]) * scale[2]
    if contracted:
        x, y, z = (
            np.float32(2) * x - np.float32(1),
            np.float32(2) * y - np.float32(1),
            np.float32(2) * z - np.float32(1),
        )
        size = max(max(abs(x), abs(y)), max(abs(z), np.float32(1)))
        shrink = (np.float32(2) - np.float32(1) / size) / size * np.float32(0.25)
        x, y, z = x * shrink + np.float32(0.5), y * shrink + np.float32(0.5), z * shrink + np.float32(0.5)
    x, y, z = np.floor(x * side), np.floor(y * side), np.floor(z * side)
    if min(x, min(y, z)) < 0 or max(x, max(y, z)) >= side:
        return False
    return occupied[np.int32(z), np.int32(y), np.int32(x)]


@numba.njit(inline="always")
def _span(p, d, near, far, low, high):
    for axis in range(3):
        safe = d[axis] if abs(d[axis]) >= np.float32(1e-12) else np.float32(1e-12)
        a, b = (low[axis] - p[axis]) / safe, (high[axis] - p[axis]) / safe
        near, far = max(near, min(a, b)), min(far, max(a, b))
    return near, far


def _march(origins, directions, near, far, jitter, occupied, box, contracted, step, cone, ends, t0, t1, ray):
    # Called twice: with empty t0 it counts into ends[r + 1], then it fills from ends[r].
    fill = t0.shape[0] > 0
    low, high = box[0], box[1]
    scale = np.float32(1) / (high - low)
    for r in numba.prange(origins.shape[0]):
        first, last = near[r], far[r]
        if not contracted:
            first, last = _span(origins[r], directions[r], first, last, low, high)
        t = first + jitter[r] * max(cone * first, step)
        slot = ends[r] if fill else 0
        while t < last:
            width = max(cone * t, step)
            if _occupied_at(origins[r], directions[r], t + np.float32(0.5) * width, occupied, low, scale, contracted):
                if fill:
                    t0[slot], t1[slot], ray[slot] = t, t + width, r
                slot += 1
            t += width
        if not fill:
            ends[r + 1] = slot


def _packed_weights(optical_depth, offsets, out):
    for r in numba.prange(offsets.shape[0] - 1):
        before = np.float32(0)
        for i in range(offsets[r], offsets[r + 1]):
            out[i] = -np.expm1(-optical_depth[i]) * np.exp(-before)
            before += optical_depth[i]


def _packed_weights_gradient(gradient, optical_depth, offsets, out):
    # dw_i/dtau_i = T_i e^-tau_i ; dw_j/dtau_i = -w_j for j > i: accumulate gradient * weight from the last sample.
    # `out` holds the optical depth before each sample: as a difference to the total it would be lost behind an opaque
    # sample.
    for r in numba.prange(offsets.shape[0] - 1):
        before = np.float32(0)
        for i in range(offsets[r], offsets[r + 1]):
            out[i] = before
            before += optical_depth[i]
        later = np.float32(0)
        for i in range(offsets[r + 1] - 1, offsets[r] - 1, -1):
            left, through = np.exp(-out[i]), np.exp(-(out[i] + optical_depth[i]))
            out[i] = gradient[i] * through - later
            later += gradient[i] * -np.expm1(-optical_depth[i]) * left


def _segment_sum(values, offsets, out):
    for r in numba.prange(offsets.shape[0] - 1):
        for c in range(values.shape[1]):
            total = np.float32(0)
            for i in range(offsets[r], offsets[r + 1]):
                total += values[i, c]
            out[r, c] = total


def _spread(values, offsets, out):
    for r in numba.prange(offsets.shape[0] - 1):
        for i in range(offsets[r], offsets[r + 1]):
            for c in range(values.shape[1]):
                out[i, c] = values[r, c]


encode_kernel = _compiled(_encode)
encode_table_gradient_kernel = _compiled(_encode_table_gradient)
encode_points_gradient_kernel = _compiled(_encode_points_gradient)
march_kernel = _compiled(_march)
packed_weights_kernel = _compiled(_packed_weights)
packed_weights_gradient_kernel = _compiled(_packed_weights_gradient)
segment_sum_kernel = _compiled(_segment_sum)
spread_kernel = _compiled(_spread)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def grid_encode_forward(points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int]) -> Tensor:
    """Features of all levels: see `reference.grid_encode`."""
    out = torch.empty(points.shape[0], len(resolutions) * table.shape[1])
    levels = np.array(resolutions, np.int32), np.array(offsets, np.int64)
    encode_kernel(_array(points), _array(table), *levels, out.numpy())
    return out


def grid_encode_backward(
    gradient: Tensor, points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int], with_points: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients with respect to points (if requested) and table."""
    levels = np.array(resolutions, np.int32), np.array(offsets, np.int64)
    d_table = torch.zeros_like(table, memory_format=torch.contiguous_format)
    encode_table_gradient_kernel(_array(gradient), _array(points), *levels, d_table.numpy())
    if not with_points:
        return None, d_table
    d_points = torch.empty_like(points, memory_format=torch.contiguous_format)
    encode_points_gradient_kernel(_array(gradient), _array(points), _array(table), *levels, d_points.numpy())
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
    rays = tuple(_array(x) for x in (origins, directions, near, far, jitter, occupied, box))
    how = contracted, np.float32(step), np.float32(cone)
    ends = torch.zeros(len(origins) + 1, dtype=torch.int64)
    none = np.empty(0, np.float32)
    march_kernel(*rays, *how, ends.numpy(), none, none, np.empty(0, np.int32))
    ends = ends.cumsum(0)
    samples = int(ends[-1])
    t0, t1, ray = torch.empty(samples), torch.empty(samples), torch.empty(samples, dtype=torch.int32)
    if samples:
        march_kernel(*rays, *how, ends.numpy(), t0.numpy(), t1.numpy(), ray.numpy())
    return t0, t1, ray, ends


def packed_weights_forward(optical_depth: Tensor, offsets: Tensor) -> Tensor:
    """Weights of packed samples: see `reference.packed_weights`."""
    out = torch.empty_like(optical_depth, memory_format=torch.contiguous_format)
    packed_weights_kernel(_array(optical_depth), _array(offsets), out.numpy())
    return out


def packed_weights_backward(gradient: Tensor, optical_depth: Tensor, offsets: Tensor) -> Tensor:
    """Gradient with respect to the optical depth."""
    out = torch.empty_like(optical_depth, memory_format=torch.contiguous_format)
    packed_weights_gradient_kernel(_array(gradient), _array(optical_depth), _array(offsets), out.numpy())
    return out


def segment_sum_forward(values: Tensor, offsets: Tensor) -> Tensor:
    """Sums over segments: see `reference.segment_sum`."""
    out = torch.empty(len(offsets) - 1, values.shape[1])
    segment_sum_kernel(_array(values), _array(offsets), out.numpy())
    return out


def segment_sum_backward(gradient: Tensor, offsets: Tensor, samples: int) -> Tensor:
    """Gradient of each segment copied to its samples."""
    out = torch.empty(samples, gradient.shape[1])
    spread_kernel(_array(gradient), _array(offsets), out.numpy())
    return out


def cache_state() -> str:
    """Where compiled kernels are cached, and the threading layer, in words."""
    cache = "cached on disk" if encode_kernel.stats.cache_path else "compiled in each process"
    layer = os.environ.get("NUMBA_THREADING_LAYER", "default")
    return f"{cache}, threading layer {layer}, {numba.get_num_threads()} threads"
