"""Marching cubes in slabs: the zero level set of a field on a regular grid as one watertight mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csgraph
from skimage.measure import marching_cubes

ScalarField = Callable[[Float[np.ndarray, "p 3"]], Float[np.ndarray, " p"]]
Progress = Callable[[int, int], None]

MAX_SLAB_NODES = 4_000_000
"""Maximum number of grid nodes in memory at once."""
CHUNK_SIZE = 262_144
"""Points per evaluation of the field."""
MIN_MAGNITUDE, MAX_MAGNITUDE = 0.02, 4.0
"""Clamp of the absolute field values at the nodes, which keeps vertices away from the ends of their edges."""
NUM_BISECTIONS = 5


@dataclass(frozen=True)
class SamplingGrid:
    """Grid of cubic cells of size `cell_size` with its first node at `origin`; `num_nodes` along x, y and z."""

    origin: Float[np.ndarray, "3"]
    cell_size: float
    num_nodes: tuple[int, int, int]

    @staticmethod
    def from_bounds(bounds: Float[np.ndarray, "2 3"], resolution: int) -> SamplingGrid:
        """Grid over a box with `resolution` cells along the longest side."""
        extents = bounds[1] - bounds[0]
        cell_size = float(extents.max()) / resolution
        x, y, z = (max(1, ceil(extent / cell_size - 1e-6)) + 1 for extent in extents)
        return SamplingGrid(bounds[0], cell_size, (x, y, z))

    def node_positions(self, index: Float[np.ndarray, "*n 3"] | Int[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Coordinates of (fractional) node indices."""
        return self.origin + self.cell_size * index

    def layer_positions(self, first: int, end: int) -> Float[np.ndarray, "p 3"]:
        """Coordinates of the nodes of the layers `first` to `end - 1` along z; x varies fastest."""
        x, y, _ = self.num_nodes
        z, y, x = np.meshgrid(np.arange(first, end), np.arange(y), np.arange(x), indexing="ij")
        return self.node_positions(np.stack([x, y, z], -1).reshape(-1, 3))


@dataclass(frozen=True)
class TriangleMesh:
    """Triangles, counter-clockwise seen from the negative side of the field."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]


def extract_surface(
    field: ScalarField, grid: SamplingGrid, progress: Progress | None = None, *, max_slab_nodes: int = MAX_SLAB_NODES
) -> TriangleMesh:
    """Surface where `field` changes from negative (outside) to positive, closed at the grid border.

    Marching cubes (Lewiner et al. 2003) in slabs that share a layer of nodes. Each vertex lies on one grid edge, which
    identifies it in both slabs; it is refined by bisection of the field.
    """
    x, y, z = grid.num_nodes
    slab_depth = max(1, max_slab_nodes // (x * y))
    vertices, faces, num_vertices = [], [], 0
    values = None
    for first in range(0, z - 1, slab_depth):
        last = min(first + slab_depth, z - 1)
        new_values = _evaluate_layers(field, grid, first + (values is not None), last + 1)
        values = new_values if values is None else np.concatenate([values[-1:], new_values])
        if values.min() < 0 < values.max():
            slab_vertices, slab_faces, _, _ = marching_cubes(values, 0.0)
            vertices.append(slab_vertices[:, ::-1].astype(np.float64) + np.array([0, 0, first]))
            faces.append(slab_faces.astype(np.int64) + num_vertices)
            num_vertices += len(slab_vertices)
        if progress is not None:
            progress(last, z - 1)
    if not vertices:
        return TriangleMesh(np.empty((0, 3)), np.empty((0, 3), np.int64))
    return _merge_edge_vertices(field, grid, np.concatenate(vertices), np.concatenate(faces))


def evaluate_in_chunks(
    field: ScalarField, points: Float[np.ndarray, "p 3"], chunk_size: int = CHUNK_SIZE
) -> Float[np.ndarray, " p"]:
    """Field at many points, `chunk_size` at a time; NaN counts as outside."""
    values = [field(points[start : start + chunk_size]) for start in range(0, len(points), chunk_size)]
    return np.nan_to_num(np.concatenate([np.empty(0), *values]), nan=-MAX_MAGNITUDE)


def label_components(mesh: TriangleMesh) -> Int[np.ndarray, " f"]:
    """Connected component of each face, numbered by decreasing number of faces."""
    a, b, c = mesh.faces.T
    num_vertices = len(mesh.vertices)
    edges = (np.concatenate([a, b]), np.concatenate([b, c]))
    adjacency = coo_array((np.ones(2 * len(a), bool), edges), (num_vertices, num_vertices))
    _, vertex_label = csgraph.connected_components(adjacency, directed=False)
    _, label, sizes = np.unique(vertex_label[a], return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[label]


def select_faces(mesh: TriangleMesh, faces: Bool[np.ndarray, " f"] | Int[np.ndarray, " k"]) -> TriangleMesh:
    """The given faces (mask or indices) of a mesh and the vertices that they use."""
    used, index = np.unique(mesh.faces[faces], return_inverse=True)
    return TriangleMesh(mesh.vertices[used], index.reshape(-1, 3))


def _evaluate_layers(field: ScalarField, grid: SamplingGrid, first: int, end: int) -> Float[np.ndarray, "k y x"]:
    """Clamped field at the nodes of the layers `first` to `end - 1`; nodes on the grid border are outside."""
    x, y, z = grid.num_nodes
    values = evaluate_in_chunks(field, grid.layer_positions(first, end)).reshape(end - first, y, x)
    values = np.copysign(np.clip(np.abs(values), MIN_MAGNITUDE, MAX_MAGNITUDE), values).astype(np.float32)
    values[:, [0, -1]] = values[:, :, [0, -1]] = -MAX_MAGNITUDE
    for border in (0, z - 1):
        if first <= border < end:
            values[border - first] = -MAX_MAGNITUDE
    return values


def _merge_edge_vertices(
    field: ScalarField, grid: SamplingGrid, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> TriangleMesh:
    """One vertex per grid edge (or per cell, for the few inside of cells), refined by bisection."""
    nearest_node = np.round(vertices)
    is_on_node = np.abs(vertices - nearest_node) < MIN_MAGNITUDE / (4 * MAX_MAGNITUDE)
    low = np.where(is_on_node, nearest_node, np.floor(vertices))
    high = np.where(is_on_node, nearest_node, np.floor(vertices) + 1)
    # The sum of the end points identifies the edge.
    edge = np.ravel_multi_index((low + high).astype(np.int64).T, tuple(2 * np.array(grid.num_nodes)))
    _, first, index = np.unique(edge, return_index=True, return_inverse=True)
    faces = index[faces]
    is_triangle = (faces != np.roll(faces, 1, axis=1)).all(1)
    refined = _bisect_edges(field, grid, low[first], high[first], vertices[first])
    return TriangleMesh(grid.node_positions(refined), faces[is_triangle])


def _bisect_edges(
    field: ScalarField,
    grid: SamplingGrid,
    low: Float[np.ndarray, "v 3"],
    high: Float[np.ndarray, "v 3"],
    initial: Float[np.ndarray, "v 3"],
) -> Float[np.ndarray, "v 3"]:
    """Zero crossings between `low` and `high` [node indices], starting from `initial`."""
    is_high_inside = evaluate_in_chunks(field, grid.node_positions(high)) > 0
    crosses = is_high_inside != (evaluate_in_chunks(field, grid.node_positions(low)) > 0)
    outside = np.where(is_high_inside[:, None], low, high)[crosses]
    inside = np.where(is_high_inside[:, None], high, low)[crosses]
    position = initial[crosses]
    for _ in range(NUM_BISECTIONS):
        is_inside = (evaluate_in_chunks(field, grid.node_positions(position)) > 0)[:, None]
        outside, inside = np.where(is_inside, outside, position), np.where(is_inside, position, inside)
        position = (outside + inside) / 2
    refined = initial.copy()
    refined[crosses] = position
    return refined
