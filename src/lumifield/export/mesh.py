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
from lumifield.export import MeshExport, Progress
from lumifield.export.cameras import to_world_cameras
from lumifield.export.density_field import build_density_field, empty_density_error
from lumifield.export.image_colors import (
    ColorFunction,
    SurfaceSamples,
    fill_unknown_colors,
    fuse_colors,
    iterate_posed_images,
    project_to_camera,
)
from lumifield.export.marching_cubes import SamplingGrid, TriangleMesh, extract_surface, label_components, select_faces
from lumifield.export.mesh_files import EXTENSIONS, TEXTURED_EXTENSIONS, ColoredMesh, write_mesh
from lumifield.export.surface_rays import sample_mean_radiance_colors, sample_radiance_colors
from lumifield.export.texture_baking import bake_texture, vertex_normals
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rasterize import rasterize
from lumifield.runtime.files import check_output

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

MAX_IMAGE_SIZE = 2048
"""Maximum width or height of the images in which visible faces are rasterized [pixels]."""
# Colors of surface samples and whether they are known; the last argument is the cell size [world units].
ColorSource = Callable[[TriangleMesh, SurfaceSamples, float], tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]]


def export_mesh(settings: MeshExport, run: LoadedRun, out: Path, progress: Progress | None) -> None:
    """Extracts, selects, simplifies, colors and writes the surface of a run."""
    validate_extension(out, is_textured=settings.texture_size is not None)
    color_source = select_color_source(settings, run)
    mesh = extract_run_surface(settings, run, progress)
    cell_size = median_edge_length(mesh)
    if settings.num_faces is not None:
        mesh = simplify_mesh(mesh, settings.num_faces)

    def color_samples(samples: SurfaceSamples) -> UInt8[np.ndarray, "p 3"]:
        colors = fill_unknown_colors(samples.points, *color_source(mesh, samples, cell_size))
        return np.round(255 * colors).astype(np.uint8)

    if settings.texture_size is None:
        write_mesh(color_vertices(mesh, color_samples), out)
    else:
        write_mesh(bake_texture(mesh, settings.texture_size, color_samples), out)


def extract_run_surface(settings: MeshExport, run: LoadedRun, progress: Progress | None = None) -> TriangleMesh:
    """Selected part of the surface of a run in world coordinates; raises `DataError` if it is empty."""
    field = build_density_field(run, settings.density_threshold)
    grid = SamplingGrid.from_bounds(field.resolve_bounds(settings.bounds), settings.resolution)
    mesh = select_surface(field.to_world(extract_surface(field.evaluate, grid, progress)), settings, run)
    if len(mesh.faces) == 0:
        raise empty_density_error(field)
    return mesh


def validate_extension(out: Path, *, is_textured: bool) -> None:
    """Raises `DataError` if `out` has an unknown extension, or one without textures for a textured mesh."""
    if is_textured and out.suffix in EXTENSIONS and out.suffix not in TEXTURED_EXTENSIONS:
        expected = f"{' or '.join(TEXTURED_EXTENSIONS)} for a texture"
        raise DataError(out, "extension", repr(out.suffix), expected, "change it or drop --texture-size")
    check_output(out, EXTENSIONS, f"{', '.join(EXTENSIONS[:-1])} or {EXTENSIONS[-1]}")


def select_color_source(settings: MeshExport, run: LoadedRun) -> ColorSource:
    """Function that colors surface samples; raises `DataError` if it needs images that are not available."""
    match settings.color_source:
        case "radiance":
            return lambda mesh, samples, cell_size: sample_radiance_colors(run, samples, cell_size)
        case "field":
            return lambda mesh, samples, cell_size: sample_mean_radiance_colors(run, samples, cell_size)
    if run.source is None:
        fix = "use --color-source radiance or field"
        raise DataError(run.folder, "images", "none (a portable scene)", "the training images", fix)
    moved = settings.data is not None
    capture = data.open_capture(replace(run.source, data=settings.data)) if moved else run.capture
    scene = capture.read("train")
    return lambda mesh, samples, cell_size: fuse_colors(samples, mesh, lambda: iterate_posed_images(scene))


def select_surface(mesh: TriangleMesh, settings: MeshExport, run: LoadedRun) -> TriangleMesh:
    """Connected components to keep, and of these, if requested, the faces that a training camera sees."""
    is_kept = np.ones(len(mesh.faces), bool)
    if settings.components != "all" and len(mesh.faces):
        label = label_components(mesh)
        is_kept = label == 0 if settings.components == "largest" else np.bincount(label)[label] >= settings.components
    mesh = select_faces(mesh, is_kept)
    return mesh if settings.keep_unseen else select_visible_faces(mesh, to_world_cameras(run.scenes["train"]))


def select_visible_faces(mesh: TriangleMesh, cameras: Cameras) -> TriangleMesh:
    """Faces with three vertices that cameras see."""
    return select_faces(mesh, np.flatnonzero(find_visible_vertices(mesh, cameras)[mesh.faces].all(1)))


def find_visible_vertices(mesh: TriangleMesh, cameras: Cameras) -> Bool[np.ndarray, " v"]:
    """Mask of the vertices of faces that some camera sees, rasterized at two pixels per edge."""
    is_visible, edge_length = np.zeros(len(mesh.vertices), bool), median_edge_length(mesh)
    center = torch.from_numpy(mesh.vertices.mean(0))
    for index in range(len(cameras)):
        camera = cameras[[index]]
        pixel_width = float((camera.positions - center).norm() / camera.focal.mean())
        max_scale = MAX_IMAGE_SIZE / int(camera.size.max())
        camera = camera.resized(max(1.0, min(2 * pixel_width / edge_length, max_scale)))
        width, height = camera.size[0].tolist()
        face = rasterize(*project_to_camera(camera, mesh.vertices), mesh.faces, (width, height)).face
        is_visible[mesh.faces[face[face >= 0]]] = True
    return is_visible


def color_vertices(mesh: TriangleMesh, color_samples: ColorFunction) -> ColoredMesh:
    """The mesh with vertex colors."""
    samples = SurfaceSamples(mesh.vertices, vertex_normals(mesh))
    return ColoredMesh(mesh.vertices, mesh.faces, samples.normals, color_samples(samples))


def simplify_mesh(mesh: TriangleMesh, num_faces: int) -> TriangleMesh:
    """Quadric edge collapse (Garland and Heckbert 1997) to about `num_faces` faces."""
    import fast_simplification

    if len(mesh.faces) <= num_faces:
        return mesh
    vertices, faces = fast_simplification.simplify(mesh.vertices, mesh.faces, target_count=num_faces)[:2]
    return TriangleMesh(vertices.astype(np.float64), faces.astype(np.int64))


def median_edge_length(mesh: TriangleMesh) -> float:
    """Median length of the edges."""
    corners = mesh.vertices[mesh.faces]
    return float(np.median(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)))
