"""Texture baking: UV atlas of a surface and colors of its texels."""

from __future__ import annotations

import numpy as np
import trimesh
import xatlas
from jaxtyping import Float, UInt8
from scipy.ndimage import distance_transform_edt

from lumifield.export.image_colors import Paint, SurfaceSamples
from lumifield.export.marching_cubes import Surface
from lumifield.export.mesh_files import Texture, TexturedMesh
from lumifield.geometry.rasterize import interpolate_attributes, rasterize

GUTTER = 2
"""Pixels between charts."""


def bake_texture(surface: Surface, size: int, paint: Paint) -> TexturedMesh:
    """The surface with a texture of `size` x `size` pixels, colored at the surface point of each texel."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices.astype(np.float32), surface.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = size, GUTTER
    atlas.generate(pack_options=packing)
    origin, faces, uv = atlas[0]
    faces, uv = faces.astype(np.int64), uv.astype(np.float64)
    vertices, directions = surface.vertices[origin], vertex_normals(surface)[origin]
    places = np.concatenate([vertices, directions], 1)
    texels = rasterize(uv * size, np.ones(len(uv)), faces, (size, size))
    found = interpolate_attributes(places, faces, texels)
    toward = found[:, 3:] / np.maximum(np.linalg.norm(found[:, 3:], axis=1, keepdims=True), 1e-12)
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[texels.face >= 0] = paint(SurfaceSamples(found[:, :3], toward))
    return TexturedMesh(
        vertices, faces, directions, Texture(fill_unpainted(pixels, texels.face >= 0), uv * [1, -1] + [0, 1])
    )


def fill_unpainted(pixels: UInt8[np.ndarray, "h w 3"], painted: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Texels without color take that of the nearest colored texel."""
    nearest = distance_transform_edt(~painted, return_distances=False, return_indices=True)
    return pixels[tuple(np.asarray(nearest))]


def vertex_normals(surface: Surface) -> Float[np.ndarray, "v 3"]:
    """Unit vertex normals pointing outward."""
    return np.array(trimesh.Trimesh(surface.vertices, surface.faces, process=False).vertex_normals)
