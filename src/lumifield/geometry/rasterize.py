"""Rasterization of triangles with perspective-correct interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from numba import prange

from lumifield.runtime.jit import loop


@dataclass(frozen=True)
class Fragments:
    """Nearest face at each pixel center (-1: none), its depth (infinite) and its barycentric weights."""

    face: Int[np.ndarray, "h w"]
    depth: Float[np.ndarray, "h w"]
    weights: Float[np.ndarray, "h w 3"]


@loop
@no_type_check
def rasterize_triangles(corners, depth, bands, face, nearest, weights):
    """Rasterizes triangles with corners (f, 3, 2) [pixels] and depths (f, 3), one band of rows per thread.

    Depth is linear in space, not in the image.
    """
    height, width = nearest.shape
    for band in prange(bands):
        first, end = band * height // bands, (band + 1) * height // bands
        for i in range(corners.shape[0]):
            ax, ay, bx, by = corners[i, 0, 0], corners[i, 0, 1], corners[i, 1, 0], corners[i, 1, 1]
            cx, cy = corners[i, 2, 0], corners[i, 2, 1]
            top, bottom = max(first, ceil(min(ay, by, cy) - 0.5)), min(end - 1, int(np.floor(max(ay, by, cy) - 0.5)))
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if top > bottom or area == 0.0:
                continue
            left = max(0, ceil(min(ax, bx, cx) - 0.5))
            right = min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
            for row in range(top, bottom + 1):
                y = row + 0.5
                for column in range(left, right + 1):
                    x = column + 0.5
                    u = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                    v = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                    w = 1.0 - u - v
                    if u < 0.0 or v < 0.0 or w < 0.0:
                        continue
                    u, v, w = u / depth[i, 0], v / depth[i, 1], w / depth[i, 2]
                    z = 1.0 / (u + v + w)
                    if z < nearest[row, column]:
                        nearest[row, column], face[row, column] = z, i
                        weights[row, column, 0], weights[row, column, 1] = u * z, v * z
                        weights[row, column, 2] = w * z


def rasterize(
    image: Float[np.ndarray, "v 2"],
    depth: Float[np.ndarray, " v"],
    faces: Int[np.ndarray, "f 3"],
    size: tuple[int, int],
) -> Fragments:
    """Rasterizes triangles with corners at `image` [pixels] and `depth` along the optical axis; `size` is (width,
    height).

    Faces with a corner at or behind the camera are left out. Both sides are drawn.
    """
    shape = (size[1], size[0])
    face, nearest = np.full(shape, -1), np.full(shape, np.inf)
    weights = np.zeros((*shape, 3))
    ahead = np.flatnonzero((depth[faces] > 0).all(1) & np.isfinite(image[faces]).all((1, 2)))
    rasterize_triangles(image[faces[ahead]], depth[faces[ahead]], numba.get_num_threads(), face, nearest, weights)
    seen = face >= 0
    face[seen] = ahead[face[seen]]
    return Fragments(face, nearest, weights)


def interpolate_attributes(
    values: Float[np.ndarray, "v c"], faces: Int[np.ndarray, "f 3"], drawn: Fragments
) -> Float[np.ndarray, "n c"]:
    """Vertex attributes interpolated at the pixels that see a face, in row order."""
    seen = drawn.face >= 0
    return np.einsum("nkc,nk->nc", values[faces[drawn.face[seen]]], drawn.weights[seen])
