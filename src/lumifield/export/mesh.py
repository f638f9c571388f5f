"""Mesh export: marching cubes on the density of a run, colored from its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from lumifield import data
from lumifield.errors import DataError
from lumifield.export import MeshExport, Progress, surface_rays
from lumifield.export.cameras import to_world_cameras
from lumifield.export.density_field import density_field, empty_density_error
from lumifield.export.image_colors import (
    Paint,
    SurfaceSamples,
    fill_unknown_colors,
    fuse_colors,
    posed_images_of,
    project_points,
)
from lumifield.export.marching_cubes import SamplingGrid, Surface, extract_surface, label_components, select_faces
from lumifield.export.mesh_files import EXTENSIONS, TEXTURED_EXTENSIONS, TexturedMesh, save_mesh
from lumifield.export.texture_baking import bake_texture, vertex_normals
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rasterize import rasterize
from lumifield.runtime.files import check_output

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

MAX_IMAGE_SIDE = 2048
"""Maximum side of the images in which visible faces are rasterized [pixels]."""
# Colors of surface samples and whether they are known; the last argument is the cell size [world units].
ColorSource = Callable[[Surface, SurfaceSamples, float], tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]]


def write_mesh(settings: MeshExport, run: LoadedRun, out: Path, progress: Progress | None) -> None:
    """Extracts, selects, simplifies, colors and writes the surface of a run."""
    validate_extension(out, textured=settings.texture_size is not None)
    look = color_source(settings, run)
    surface = extract_run_surface(settings, run, progress)
    reach = median_edge_length(surface)
    if settings.num_faces is not None:
        surface = simplify_surface(surface, settings.num_faces)

    def paint(samples: SurfaceSamples) -> UInt8[np.ndarray, "p 3"]:
        return np.round(255 * fill_unknown_colors(samples.points, *look(surface, samples, reach))).astype(np.uint8)

    save_mesh(
        bake_texture(surface, settings.texture_size, paint)
        if settings.texture_size
        else color_vertices(surface, paint),
        out,
    )


def extract_run_surface(settings: MeshExport, run: LoadedRun, progress: Progress | None = None) -> Surface:
    """Selected part of the surface of a run in world coordinates; raises `DataError` if it is empty."""
    where = density_field(run, settings.density_threshold)
    lattice = SamplingGrid.over(where.bounds(settings.bounds), settings.resolution)
    surface = select_surface(where.in_world(extract_surface(where.field, lattice, progress)), settings, run)
    if len(surface.faces) == 0:
        raise empty_density_error(where)
    return surface


def validate_extension(out: Path, *, textured: bool) -> None:
    """Raises `DataError` if `out` has an unknown extension."""
    if textured and out.suffix in EXTENSIONS and out.suffix not in TEXTURED_EXTENSIONS:
        expected = f"{' or '.join(TEXTURED_EXTENSIONS)} for a texture"
        raise DataError(out, "extension", repr(out.suffix), expected, "change it or drop --texture-size")
    check_output(out, EXTENSIONS, f"{', '.join(EXTENSIONS[:-1])} or {EXTENSIONS[-1]}")


def color_source(settings: MeshExport, run: LoadedRun) -> ColorSource:
    """Source of colors; raises `DataError` if images are requested but not available."""
    match settings.color_source:
        case "radiance":
            return lambda surface, samples, reach: surface_rays.radiance_colors(run, samples, reach)
        case "field":
            return lambda surface, samples, reach: surface_rays.mean_radiance_colors(run, samples, reach)
    if run.source is None:
        fix = "use --color-source radiance or field"
        raise DataError(run.folder, "images", "none (a portable scene)", "the training images", fix)
    scene = data.read_scene(run.source if settings.data is None else replace(run.source, data=settings.data), "train")
    return lambda surface, samples, reach: fuse_colors(samples, surface, lambda: posed_images_of(scene))


def select_surface(surface: Surface, settings: MeshExport, run: LoadedRun) -> Surface:
    """Components to keep, and of these, if requested, the faces that a training camera sees."""
    kept = np.ones(len(surface.faces), bool)
    if settings.components != "all" and len(surface.faces):
        piece = label_components(surface)
        kept = piece == 0 if settings.components == "largest" else np.bincount(piece)[piece] >= settings.components
    surface = select_faces(surface, kept)
    return surface if settings.keep_unseen else visible_part(surface, to_world_cameras(run.scenes["train"]))


def visible_part(surface: Surface, cameras: Cameras) -> Surface:
    """Faces with vertices that cameras see."""
    return select_faces(surface, np.flatnonzero(find_visible_vertices(surface, cameras)[surface.faces].all(1)))


def find_visible_vertices(surface: Surface, cameras: Cameras) -> Bool[np.ndarray, " v"]:
    """Vertices of the faces that some camera sees, rasterized at two pixels per edge."""
    seen, side = np.zeros(len(surface.vertices), bool), median_edge_length(surface)
    middle = torch.from_numpy(surface.vertices.mean(0))
    for index in range(len(cameras)):
        camera = cameras[[index]]
        pixel = float((camera.positions - middle).norm() / camera.focal.mean())
        camera = camera.resized(max(1.0, min(2 * pixel / side, MAX_IMAGE_SIDE / int(camera.size.max()))))
        width, height = camera.size[0].tolist()
        face = rasterize(*project_points(camera, surface.vertices), surface.faces, (width, height)).face
        seen[surface.faces[face[face >= 0]]] = True
    return seen


def color_vertices(surface: Surface, paint: Paint) -> TexturedMesh:
    """The surface with vertex colors."""
    samples = SurfaceSamples(surface.vertices, vertex_normals(surface))
    return TexturedMesh(surface.vertices, surface.faces, samples.normals, paint(samples))


def simplify_surface(surface: Surface, faces: int) -> Surface:
    """Simplification to a number of faces by quadric errors (Garland and Heckbert 1997)."""
    import fast_simplification

    if len(surface.faces) <= faces:
        return surface
    points, triangles = fast_simplification.simplify(surface.vertices, surface.faces, target_count=faces)[:2]
    return Surface(points.astype(np.float64), triangles.astype(np.int64))


def median_edge_length(surface: Surface) -> float:
    """Median length of the edges."""
    corners = surface.vertices[surface.faces]
    return float(np.median(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)))
