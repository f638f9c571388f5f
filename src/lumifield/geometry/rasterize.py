"""Triangles drawn into pixels: what each pixel's center sees, and where on it."""

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
class Drawn:
    """The nearest face at each pixel's center (-1: none), its depth there (infinite) and the weights of its corners."""

    face: Int[np.ndarray, "h w"]
    depth: Float[np.ndarray, "h w"]
    weights: Float[np.ndarray, "h w 3"]


@loop
@no_type_check
def fill(corners, depth, bands, face, nearest, weights):
    """Rng triangles with corners (f, 3, 2) [pixels] and depths (f, 3), each thread in one band of rows.

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


def draw(
    image: Float[np.ndarray, "v 2"],
    depth: Float[np.ndarray, " v"],
    faces: Int[np.ndarray, "f 3"],
    size: tuple[int, int],
) -> Drawn:
    """Triangles whose corners lie at `image` [pixels], at `depth` along the optical axis; `size` is (width, height).

    Faces with a corner at or behind the camera are left out. Sides make no difference.
    """
    shape = (size[1], size[0])
    face, nearest = np.full(shape, -1), np.full(shape, np.inf)
    weights = np.zeros((*shape, 3))
    ahead = np.flatnonzero((depth[faces] > 0).all(1) & np.isfinite(image[faces]).all((1, 2)))
    fill(image[faces[ahead]], depth[faces[ahead]], numba.get_num_threads(), face, nearest, weights)
    seen = face >= 0
    face[seen] = ahead[face[seen]]
    return Drawn(face, nearest, weights)


def blended(values: Float[np.ndarray, "v c"], faces: Int[np.ndarray, "f 3"], drawn: Drawn) -> Float[np.ndarray, "n c"]:
    """Values of the corners, interpolated at the pixels that see a face, row by row."""
    seen = drawn.face >= 0
    return np.einsum("nkc,nk->nc", values[faces[drawn.face[seen]]], drawn.weights[seen])
