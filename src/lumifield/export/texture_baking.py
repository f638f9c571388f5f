"""Texture baking: UV atlas of a surface and colors of its texels."""

from __future__ import annotations

import numpy as np
import trimesh
import xatlas
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt

from lumifield.export.image_colors import ColorFunction, SurfaceSamples
from lumifield.export.marching_cubes import TriangleMesh
from lumifield.export.mesh_files import ColoredMesh, Texture
from lumifield.geometry.rasterize import interpolate_attributes, rasterize

CHART_PADDING = 2
"""Pixels between charts."""


def bake_texture(mesh: TriangleMesh, size: int, color_samples: ColorFunction) -> ColoredMesh:
    """The mesh with a texture of `size` x `size` pixels, colored at the surface point of each texel."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = size, CHART_PADDING
    atlas.generate(pack_options=packing)
    original, faces, uv = atlas[0]
    faces, uv = faces.astype(np.int64), uv.astype(np.float64)
    vertices, normals = mesh.vertices[original], vertex_normals(mesh)[original]
    texels = rasterize(uv * size, np.ones(len(uv)), faces, (size, size))
    found = interpolate_attributes(np.concatenate([vertices, normals], 1), faces, texels)
    unit_normals = found[:, 3:] / np.maximum(np.linalg.norm(found[:, 3:], axis=1, keepdims=True), 1e-12)
    is_covered = texels.face >= 0
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[is_covered] = color_samples(SurfaceSamples(found[:, :3], unit_normals))
    texture = Texture(fill_uncovered_texels(pixels, is_covered), uv * [1, -1] + [0, 1])
    return ColoredMesh(vertices, faces, normals, texture)


def fill_uncovered_texels(
    pixels: UInt8[np.ndarray, "h w 3"], is_covered: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Copies the nearest covered texel to each uncovered one, so that filtering across chart borders shows no seam."""
    nearest = distance_transform_edt(~is_covered, return_distances=False, return_indices=True)
    return pixels[tuple(np.asarray(nearest))]


def vertex_normals(mesh: TriangleMesh) -> Float[np.ndarray, "v 3"]:
    """Unit vertex normals pointing outward."""
    return np.array(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).vertex_normals)
