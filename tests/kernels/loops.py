"""What the kernels compute, written again as plain loops over Python's double-precision numbers, and how to compare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

RESOLUTIONS = [4, 8, 16, 37]
# Dense with rows to spare, dense to the last row, hashed into a power of two, hashed into another number.
OFFSETS = [0, 128, 857, 2905, 3905]
SIZES = (0, 1, 63, 100, 1000)
SLACK = 1e-4


@dataclass(frozen=True)
class Backend:
    """A back end and the device that it is tried on."""

    name: str
    device: str


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Each named tensor equals its namesake within `tolerance` times the largest expected magnitude."""
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        got = actual[name].detach().cpu()
        scale = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
        torch.testing.assert_close(
            got.double(),
            wanted.detach().double(),
            rtol=0,
            atol=tolerance * scale,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def packed(samples: int) -> Tensor:
    """Offsets of five rays: an empty one, one sample, 63 samples, the rest, and an empty one (as far as they last)."""
    return torch.tensor([0, 0, min(samples, 1), min(samples, 64), samples, samples])


def corner_row(corner: tuple[int, int, int], resolution: int, size: int) -> int:
    """Row of one corner in its level."""
    x, y, z = corner
    side = resolution + 1
    if side * side * side <= size:
        return x + y * side + z * side * side
    mixed = x
    for coordinate, prime in ((y, 2654435761), (z, 805459861)):
        mixed ^= coordinate * prime % 2**32
    return mixed % size


def grid_encode(points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int]) -> Tensor:
    """Interpolation along x, then y, then z, a point, a level and a feature at a time."""
    rows, features = table.tolist(), table.shape[1]
    out = []
    for point in points.tolist():
        encoded: list[float] = []
        for level, resolution in enumerate(resolutions):
            scaled = [min(max(p, 0.0), 1.0) * resolution for p in point]
            cell = [min(math.floor(s), resolution - 1) for s in scaled]
            u, v, w = (s - c for s, c in zip(scaled, cell, strict=True))
            size = offsets[level + 1] - offsets[level]

            def at(i: int, j: int, k: int, f: int, cell=cell, resolution=resolution, level=level, size=size) -> float:
                row = corner_row((cell[0] + i, cell[1] + j, cell[2] + k), resolution, size)
                return rows[offsets[level] + row][f]

            for f in range(features):
                edges = {(j, k): at(0, j, k, f) + u * (at(1, j, k, f) - at(0, j, k, f)) for j in (0, 1) for k in (0, 1)}
                faces = [edges[0, k] + v * (edges[1, k] - edges[0, k]) for k in (0, 1)]
                encoded.append(faces[0] + w * (faces[1] - faces[0]))
        out.append(encoded)
    return torch.tensor(out, dtype=torch.float64).reshape(len(points), len(resolutions) * features)


def packed_weights(optical_depth: Tensor, offsets: Tensor) -> Tensor:
    """Light that is left is multiplied by exp(-tau) at each sample; what it loses there is the weight."""
    weights: list[float] = []
    for first, last in pairwise(offsets.tolist()):
        left = 1.0
        for tau in optical_depth[first:last].tolist():
            weights.append(left * -math.expm1(-tau))
            left *= math.exp(-tau)
    return torch.tensor(weights, dtype=torch.float64)


def packed_weights_gradient(gradient: Tensor, optical_depth: Tensor, offsets: Tensor) -> Tensor:
    """The full triangular matrix of derivatives of each ray, summed pair by pair."""
    slopes: list[float] = []
    for first, last in pairwise(offsets.tolist()):
        tau, g = optical_depth[first:last].tolist(), gradient[first:last].tolist()
        left = [math.exp(-math.fsum(tau[:i])) for i in range(len(tau))]
        for i in range(len(tau)):
            behind = (g[j] * left[j] * -math.expm1(-tau[j]) for j in range(i + 1, len(tau)))
            slopes.append(g[i] * left[i] * math.exp(-tau[i]) - math.fsum(behind))
    return torch.tensor(slopes, dtype=torch.float64)


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Exactly rounded sums."""
    columns = values.T.tolist()
    sums = [[math.fsum(c[first:last]) for c in columns] for first, last in pairwise(offsets.tolist())]
    return torch.tensor(sums, dtype=torch.float64).reshape(len(offsets) - 1, values.shape[1])


@dataclass(frozen=True)
class Walk:
    """How rays are walked."""

    occupied: Tensor
    box: Tensor
    contracted: bool
    step: float
    cone: float


@dataclass(frozen=True)
class Interval:
    """One step along a ray; `margin` tells by how much t [scene units] or a cell border [cells] decides about it."""

    t0: float
    t1: float
    keep: bool
    margin: float


def unit(point: list[float], walk: Walk) -> list[float]:
    """A point over the box, or over contracted space: inside as it is, outside 2 - 1 / |p| times its bearing."""
    low, high = walk.box.tolist()
    if not walk.contracted:
        return [(p - a) / (b - a) for p, a, b in zip(point, low, high, strict=True)]
    middle = [(p - (a + b) / 2) / ((b - a) / 2) for p, a, b in zip(point, low, high, strict=True)]
    size = max(abs(m) for m in middle)
    if size > 1:
        middle = [m / size * (2 - 1 / size) for m in middle]
    return [(m + 2) / 4 for m in middle]


def march(ray: dict[str, Tensor], walk: Walk) -> list[Interval]:
    """The steps of one ray, kept or not, and those that begin at most SLACK behind its end."""
    origin, direction = ray["origins"].tolist(), ray["directions"].tolist()
    first, last = ray["near"].item(), ray["far"].item()
    low, high = walk.box.tolist()
    for o, d, a, b in zip(origin, direction, low, high, strict=True):
        if walk.contracted:
            break
        if d == 0:
            first, last = (first, last) if a < o < b else (math.inf, -math.inf)
        else:
            enter, leave = sorted(((a - o) / d, (b - o) / d))
            first, last = max(first, enter), min(last, leave)
    if first >= last:
        return []
    t = first + ray["jitter"].item() * max(walk.step, walk.cone * first)
    side = walk.occupied.shape[0]
    steps = []
    while t < last + SLACK:
        width = max(walk.step, walk.cone * t)
        place = unit([o + (t + width / 2) * d for o, d in zip(origin, direction, strict=True)], walk)
        cell = [math.floor(p * side) for p in place]
        inside = all(0 <= c < side for c in cell)
        keep = inside and bool(walk.occupied[cell[2], cell[1], cell[0]])
        margin = min(abs(last - t), *(abs(p * side - round(p * side)) for p in place))
        steps.append(Interval(t, t + width, keep, margin))
        t += width
    return steps
