"""The stage as a triangle mesh with colors, its vertices on the surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numba import prange
from skimage.measure import marching_cubes

from lumifield.runtime.jit import loop
from lumifield.synthetic.distance import distance, normal
from lumifield.synthetic.stage import Item, Stage, pack
from lumifield.synthetic.textures import color
from lumifield.synthetic.tracer import encode

# Edge of the cells that surfaces are found in [world units], and the most of them along one axis.
CELL, MOST_CELLS = 0.02, 120
# The vase's distance is only a bound: each Newton step leaves a tenth of it, elsewhere nothing.
NEWTON_STEPS = 10


@dataclass(frozen=True)
class Mesh:
    """Triangles in world coordinates, counter-clockwise seen from outside, with sRGB colors at the vertices."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colors: UInt8[np.ndarray, "v 3"]


@loop
def probe(items, points, gaps, normals, colors):
    """Fills distance, unit gradient and albedo of the first item at points (n, 3) of its own axes."""
    for row in prange(points.shape[0]):
        item, p = items[0], (points[row, 0], points[row, 1], points[row, 2])
        gaps[row] = distance(item, p)
        normals[row, 0], normals[row, 1], normals[row, 2] = normal(item, p)
        colors[row, 0], colors[row, 1], colors[row, 2] = color(item, p)


def mesh(stage: Stage) -> Mesh:
    """All items of a stage; each is closed, and hidden parts are there too."""
    parts = [item_mesh(item) for item in stage.items]
    first = np.cumsum([0] + [len(part.vertices) for part in parts])
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, first, strict=False)]),
        np.concatenate([part.colors for part in parts]),
    )


def item_mesh(item: Item) -> Mesh:
    """One item by marching cubes, its vertices then moved onto the surface."""
    row = pack(Stage((item,))).items
    axes = [grid_lines(lower, upper, item) for lower, upper in zip(*item.shape.bounds(), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    gaps = probed(row, points)[0].reshape([len(axis) for axis in axes])
    spacing = tuple(axis[1] - axis[0] for axis in axes)
    vertices, faces, _, _ = marching_cubes(gaps, 0.0, spacing=spacing)
    vertices = vertices.astype(np.float64) + [axis[0] for axis in axes]
    for _ in range(NEWTON_STEPS):
        gap, gradient, _ = probed(row, vertices)
        vertices = vertices - gap[:, None] * gradient
    shades = np.round(255 * encode(probed(row, vertices)[2])).astype(np.uint8)
    return Mesh(vertices @ item.rotation().T + item.center, faces.astype(np.int64), shades)


def grid_lines(lower: float, upper: float, item: Item) -> Float[np.ndarray, " _"]:
    """Where the cells of one axis end: over the item's bounds and one cell beyond, in at least four cells."""
    longest = max(b - a for a, b in zip(*item.shape.bounds(), strict=True))
    cells = max(4, ceil((upper - lower) / max(CELL, longest / MOST_CELLS)))
    edge = (upper - lower) / cells
    return lower + edge * (np.arange(cells + 3) - 1.0)


def probed(
    row: np.ndarray, points: Float[np.ndarray, "p 3"]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "p 3"], Float[np.ndarray, "p 3"]]:
    """Distance, unit gradient and albedo of the item of a row at points of its own axes."""
    gaps, normals, colors = np.empty(len(points)), np.empty(points.shape), np.empty(points.shape)
    probe(row, points, gaps, normals, colors)
    return gaps, normals, colors


def write_mesh(path: Path, stage: Stage) -> None:
    """The stage's mesh as a binary PLY file."""
    import trimesh  # half a second to import, and only this function needs it

    made = mesh(stage)
    trimesh.Trimesh(made.vertices, made.faces, vertex_colors=made.colors, process=False).export(path)
