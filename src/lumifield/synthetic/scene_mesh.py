"""Triangle meshes of synthetic scenes, with vertex colors and vertices on the exact surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numba import prange
from skimage.measure import marching_cubes

from lumifield.runtime.jit import loop
from lumifield.synthetic.path_tracer import encode_srgb
from lumifield.synthetic.scene_description import Item, SyntheticScene, pack_scene
from lumifield.synthetic.signed_distance import item_distance, item_normal
from lumifield.synthetic.textures import evaluate_albedo

# Cell size of marching cubes [world units], and the maximum number of cells along one axis.
CELL_SIZE, MAX_CELLS = 0.02, 120
# The SDF of the vase is only a bound: each Newton step reduces the error tenfold. Other shapes need a single step.
NEWTON_STEPS = 10


@dataclass(frozen=True)
class SceneMesh:
    """Triangles in world coordinates, counter-clockwise seen from outside, with sRGB vertex colors."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colors: UInt8[np.ndarray, "v 3"]


@loop
def evaluate_item(items, points, distances, normals, colors):
    """Fills signed distance, unit gradient and albedo of `items[0]` at points (n, 3) in its own axes."""
    for row in prange(points.shape[0]):
        item, p = items[0], (points[row, 0], points[row, 1], points[row, 2])
        distances[row] = item_distance(item, p)
        normals[row, 0], normals[row, 1], normals[row, 2] = item_normal(item, p)
        colors[row, 0], colors[row, 1], colors[row, 2] = evaluate_albedo(item, p)


def build_scene_mesh(scene: SyntheticScene) -> SceneMesh:
    """Concatenates the closed meshes of all items, including surfaces inside other items."""
    parts = [build_item_mesh(item) for item in scene.items]
    first_vertex = np.cumsum([0] + [len(part.vertices) for part in parts])
    return SceneMesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, first_vertex, strict=False)]),
        np.concatenate([part.colors for part in parts]),
    )


def build_item_mesh(item: Item) -> SceneMesh:
    """Extracts the surface of one item by marching cubes and projects the vertices onto it by Newton steps."""
    row = pack_scene(SyntheticScene((item,))).items
    axes = [grid_coordinates(lower, upper, item) for lower, upper in zip(*item.shape.bounds(), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    distances = query_item(row, points)[0].reshape([len(axis) for axis in axes])
    spacing = tuple(axis[1] - axis[0] for axis in axes)
    vertices, faces, _, _ = marching_cubes(distances, 0.0, spacing=spacing)
    vertices = vertices.astype(np.float64) + [axis[0] for axis in axes]
    for _ in range(NEWTON_STEPS):
        distance, gradient, _ = query_item(row, vertices)
        vertices = vertices - distance[:, None] * gradient
    colors = np.round(255 * encode_srgb(query_item(row, vertices)[2])).astype(np.uint8)
    return SceneMesh(vertices @ item.rotation_matrix().T + item.center, faces.astype(np.int64), colors)


def grid_coordinates(lower: float, upper: float, item: Item) -> Float[np.ndarray, " _"]:
    """Grid coordinates along one axis: at least four cells over the item's bounds, and one beyond each end."""
    longest = max(b - a for a, b in zip(*item.shape.bounds(), strict=True))
    num_cells = max(4, ceil((upper - lower) / max(CELL_SIZE, longest / MAX_CELLS)))
    cell_size = (upper - lower) / num_cells
    return lower + cell_size * (np.arange(num_cells + 3) - 1.0)


def query_item(
    row: np.ndarray, points: Float[np.ndarray, "p 3"]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "p 3"], Float[np.ndarray, "p 3"]]:
    """Signed distance, unit gradient and albedo of a packed item at points in its own axes."""
    distances, normals, colors = np.empty(len(points)), np.empty(points.shape), np.empty(points.shape)
    evaluate_item(row, points, distances, normals, colors)
    return distances, normals, colors


def write_scene_mesh(path: Path, scene: SyntheticScene) -> None:
    """Writes the mesh of a scene as a binary PLY file."""
    import trimesh  # Imported here because it takes half a second.

    mesh = build_scene_mesh(scene)
    trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=mesh.colors, process=False).export(path)
