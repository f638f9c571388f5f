"""Marching cubes in slabs: the zero set of a field on a regular grid as one watertight mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csgraph
from skimage.measure import marching_cubes

Field = Callable[[Float[np.ndarray, "p 3"]], Float[np.ndarray, " p"]]
Progress = Callable[[int, int], None]

# Nodes in memory at once, and points at which the field is evaluated at once.
SLAB_NODES, POINTS = 4_000_000, 262_144
# Between the two nodes of an edge the field is cut to [-STEEP, STEEP] and kept from zero: a vertex stays clear of both.
MAX_FIELD, MIN_FIELD = 4.0, 0.02
BISECTIONS = 5


@dataclass(frozen=True)
class SamplingGrid:
    """Grid of cubic cells of size `cell` with its first node at `origin`; `nodes` counts nodes along x, y, z."""

    origin: Float[np.ndarray, "3"]
    cell: float
    nodes: tuple[int, int, int]

    @staticmethod
    def over(bounds: Float[np.ndarray, "2 3"], resolution: int) -> SamplingGrid:
        """Grid over a box with `resolution` cells along the longest side."""
        spans = bounds[1] - bounds[0]
        cell = float(spans.max()) / resolution
        x, y, z = (max(1, ceil(span / cell - 1e-6)) + 1 for span in spans)
        return SamplingGrid(bounds[0], cell, (x, y, z))

    def points(self, index: Float[np.ndarray, "*n 3"] | Int[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Coordinates of (fractional) node indices."""
        return self.origin + self.cell * index

    def layers(self, first: int, end: int) -> Float[np.ndarray, "p 3"]:
        """Nodes of some layers along z; x runs fastest."""
        x, y, _ = self.nodes
        z, y, x = np.meshgrid(np.arange(first, end), np.arange(y), np.arange(x), indexing="ij")
        return self.points(np.stack([x, y, z], -1).reshape(-1, 3))


@dataclass(frozen=True)
class Surface:
    """Triangles, counter-clockwise seen from the negative side of the field."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]


def extract_surface(field: Field, lattice: SamplingGrid, progress: Progress | None = None) -> Surface:
    """Surface where `field` changes from negative (outside) to positive, closed at the grid border.

    Marching cubes (Lewiner et al. 2003) in slabs that share a layer of nodes. Each vertex lies on one grid edge, which
    identifies it in both slabs; it is refined by bisection of the field.
    """
    x, y, z = lattice.nodes
    optical_depth = max(1, SLAB_NODES // (x * y))
    vertices, faces, count = [], [], 0
    values = None
    for first in range(0, z - 1, optical_depth):
        last = min(first + optical_depth, z - 1)
        fresh = _layers(field, lattice, first + (values is not None), last + 1)
        values = fresh if values is None else np.concatenate([values[-1:], fresh])
        if values.min() < 0 < values.max():
            part, triangles, _, _ = marching_cubes(values, 0.0)
            vertices.append(part[:, ::-1].astype(np.float64) + np.array([0, 0, first]))
            faces.append(triangles.astype(np.int64) + count)
            count += len(part)
        if progress is not None:
            progress(last, z - 1)
    if not vertices:
        return Surface(np.empty((0, 3)), np.empty((0, 3), np.int64))
    return _on_edges(field, lattice, np.concatenate(vertices), np.concatenate(faces))


def _layers(field: Field, lattice: SamplingGrid, first: int, end: int) -> Float[np.ndarray, "k y x"]:
    """Clamped field at the nodes of some layers; nodes on the grid border are outside."""
    x, y, z = lattice.nodes
    values = evaluate_in_chunks(field, lattice.layers(first, end)).reshape(end - first, y, x)
    values = np.copysign(np.clip(np.abs(values), MIN_FIELD, MAX_FIELD), values).astype(np.float32)
    values[:, [0, -1]] = values[:, :, [0, -1]] = -MAX_FIELD
    for border in (0, z - 1):
        if first <= border < end:
            values[border - first] = -MAX_FIELD
    return values


def evaluate_in_chunks(field: Field, points: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, " p"]:
    """Field at many points in chunks; NaN counts as outside."""
    values = [field(points[start : start + POINTS]) for start in range(0, len(points), POINTS)]
    return np.nan_to_num(np.concatenate([np.empty(0), *values]), nan=-MAX_FIELD)


def _on_edges(
    field: Field, lattice: SamplingGrid, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Surface:
    """One vertex per edge (or per cell, for the few in its interior), refined by bisection."""
    whole = np.round(vertices)
    on_node = np.abs(vertices - whole) < MIN_FIELD / (4 * MAX_FIELD)
    low = np.where(on_node, whole, np.floor(vertices))
    high = np.where(on_node, whole, np.floor(vertices) + 1)
    sides = 2 * np.array(lattice.nodes)
    key = np.ravel_multi_index((low + high).astype(np.int64).T, tuple(sides))
    _, first, name = np.unique(key, return_index=True, return_inverse=True)
    faces = name[faces]
    proper = (faces != np.roll(faces, 1, axis=1)).all(1)
    place = _bisected(field, lattice, low[first], high[first], vertices[first])
    return Surface(lattice.points(place), faces[proper])


def _bisected(
    field: Field,
    lattice: SamplingGrid,
    low: Float[np.ndarray, "v 3"],
    high: Float[np.ndarray, "v 3"],
    place: Float[np.ndarray, "v 3"],
) -> Float[np.ndarray, "v 3"]:
    """Zero crossing between `low` and `high`, starting from `place`."""
    inside = evaluate_in_chunks(field, lattice.points(high)) > 0
    crosses = inside != (evaluate_in_chunks(field, lattice.points(low)) > 0)
    outer, inner = np.where(inside[:, None], low, high)[crosses], np.where(inside[:, None], high, low)[crosses]
    moved = place[crosses]
    for _ in range(BISECTIONS):
        within = (evaluate_in_chunks(field, lattice.points(moved)) > 0)[:, None]
        outer, inner = np.where(within, outer, moved), np.where(within, moved, inner)
        moved = (outer + inner) / 2
    place = place.copy()
    place[crosses] = moved
    return place


def label_components(surface: Surface) -> Int[np.ndarray, " f"]:
    """Connected component of each face; the largest is number 0."""
    a, b, c = surface.faces.T
    count = len(surface.vertices)
    links = coo_array((np.ones(2 * len(a), bool), (np.concatenate([a, b]), np.concatenate([b, c]))), (count, count))
    _, piece = csgraph.connected_components(links, directed=False)
    _, piece, sizes = np.unique(piece[a], return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[piece]


def select_faces(surface: Surface, faces: np.ndarray) -> Surface:
    """Some faces of a surface and the vertices that they use."""
    kept = surface.faces[faces]
    used, name = np.unique(kept, return_inverse=True)
    return Surface(surface.vertices[used], name.reshape(-1, 3))
