"""Textures: a surface cut into charts, laid out in one image, and painted there."""

from __future__ import annotations

import numpy as np
import trimesh
import xatlas
from jaxtyping import Float, UInt8
from scipy.ndimage import distance_transform_edt

from lumifield.export.colors import Paint, Spots
from lumifield.export.model import Model, Texture
from lumifield.export.surface import Surface
from lumifield.geometry.rasterize import interpolate_attributes, rasterize

GUTTER = 2
"""Pixels between two charts."""


def baked(surface: Surface, size: int, paint: Paint) -> Model:
    """The surface with a texture of `size` pixels a side, whose every pixel is painted where it lies on the surface."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices.astype(np.float32), surface.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = size, GUTTER
    atlas.generate(pack_options=packing)
    origin, faces, uv = atlas[0]
    faces, uv = faces.astype(np.int64), uv.astype(np.float64)
    vertices, directions = surface.vertices[origin], normals(surface)[origin]
    places = np.concatenate([vertices, directions], 1)
    texels = rasterize(uv * size, np.ones(len(uv)), faces, (size, size))
    found = interpolate_attributes(places, faces, texels)
    toward = found[:, 3:] / np.maximum(np.linalg.norm(found[:, 3:], axis=1, keepdims=True), 1e-12)
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[texels.face >= 0] = paint(Spots(found[:, :3], toward))
    return Model(vertices, faces, directions, Texture(spread(pixels, texels.face >= 0), uv * [1, -1] + [0, 1]))


def spread(pixels: UInt8[np.ndarray, "h w 3"], painted: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Every pixel that is not painted takes the color of the nearest one that is."""
    nearest = distance_transform_edt(~painted, return_distances=False, return_indices=True)
    return pixels[tuple(np.asarray(nearest))]


def normals(surface: Surface) -> Float[np.ndarray, "v 3"]:
    """Unit normals at the vertices, pointing out of the matter."""
    return np.array(trimesh.Trimesh(surface.vertices, surface.faces, process=False).vertex_normals)
