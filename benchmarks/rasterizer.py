"""A textured or colored mesh file as cameras see it: NumPy alone, every face tried at every pixel of its box.

It shares no code with the package, and knows nothing of radiance fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh


@dataclass(frozen=True)
class Seen:
    """The nearest face at each pixel's center (-1: none), the weights of its corners and its depth."""

    face: np.ndarray
    weights: np.ndarray
    depth: np.ndarray


def rasterize(image: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Seen:
    """Faces with corners at `image` (v, 2) [pixels] and `depth` (v,); `size` is (width, height)."""
    width, height = size
    corners, z = image[faces], depth[faces]
    low = np.maximum(np.ceil(corners.min(1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(1) - 0.5), [width - 1, height - 1]).astype(np.int64)
    spans = np.where((z > 0).all(1, keepdims=True), np.maximum(high - low + 1, 0), 0)
    counts = spans.prod(1)
    face = np.repeat(np.arange(len(faces)), counts)
    within = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    column = low[face, 0] + within % np.maximum(spans[face, 0], 1)
    row = low[face, 1] + within // np.maximum(spans[face, 0], 1)
    place = np.stack([column, row], 1) + 0.5
    a, b, c = (corners[face, k] - place for k in range(3))
    flat = np.stack([cross(b, c), cross(c, a), cross(a, b)], 1)
    area = flat.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = flat / area[:, None] / z[face]
        hit = (flat / area[:, None] >= 0).all(1)
        far = 1 / inverse.sum(1)
    chosen = np.flatnonzero(hit)
    chosen = chosen[np.argsort(-far[chosen], kind="stable")]
    seen = Seen(np.full((height, width), -1), np.zeros((height, width, 3)), np.full((height, width), np.inf))
    where = row[chosen], column[chosen]
    # The nearest comes last, and what is assigned last stays.
    seen.face[where] = face[chosen]
    seen.depth[where] = far[chosen]
    seen.weights[where] = inverse[chosen] * far[chosen, None]
    return seen


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def project(
    points: np.ndarray, c2w: np.ndarray, focal: np.ndarray, center: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Image points [pixels] and depths of world points in a pinhole camera with OpenCV axes."""
    local = (points - c2w[:, 3]) @ c2w[:, :3]
    with np.errstate(divide="ignore", invalid="ignore"):
        return local[:, :2] / local[:, 2:] * focal + center, local[:, 2]


def image(
    mesh: trimesh.Trimesh, c2w: np.ndarray, focal: np.ndarray, center: np.ndarray, size: tuple[int, int], over: int = 3
) -> np.ndarray:
    """RGBA in [0, 1] of a mesh of a file, the mean over `over` x `over` points of each pixel; alpha is coverage."""
    wide = size[0] * over, size[1] * over
    faces = np.asarray(mesh.faces)
    seen = rasterize(*project(np.asarray(mesh.vertices), c2w, focal * over, center * over), faces, wide)
    met = seen.face >= 0
    rgba = np.zeros((wide[1], wide[0], 4))
    corners, weights = faces[seen.face[met]], seen.weights[met]
    rgba[met] = np.concatenate([shades(mesh, corners, weights), np.ones((len(corners), 1))], 1)
    return rgba.reshape(size[1], over, size[0], over, 4).mean((1, 3))


def shades(mesh: trimesh.Trimesh, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sRGB colors, by the texture where there is one, else by the vertices."""
    if mesh.visual.kind != "texture":
        return np.einsum("nkc,nk->nc", mesh.visual.vertex_colors[corners, :3] / 255, weights)
    pixels = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")) / 255
    uv = np.einsum("nkc,nk->nc", mesh.visual.uv[corners], weights)
    x, y = uv[:, 0] * pixels.shape[1] - 0.5, (1 - uv[:, 1]) * pixels.shape[0] - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    found = np.zeros((len(x), 3))
    for row, column in np.ndindex(2, 2):
        share = (1 - np.abs(x - left - column)) * (1 - np.abs(y - top - row))
        at = np.clip(top + row, 0, pixels.shape[0] - 1), np.clip(left + column, 0, pixels.shape[1] - 1)
        found += share[:, None] * pixels[at]
    return found


def load(path: Path) -> trimesh.Trimesh:
    """The one mesh of a file."""
    return trimesh.load(path, process=False, force="mesh")
