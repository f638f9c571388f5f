"""`export mesh`: marching cubes over the matter of a run, colored as its images are."""

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
from lumifield.export import Mesh, Progress, glances
from lumifield.export.cameras import in_world
from lumifield.export.colors import Paint, Spots, completed, fused, photographs, projected
from lumifield.export.matter import matter, nothing
from lumifield.export.model import ENDINGS, TEXTURED, Model, save
from lumifield.export.surface import Lattice, Surface, extract, only, pieces
from lumifield.export.texture import baked, normals
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rasterize import rasterize
from lumifield.runtime.files import check_output

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

WIDEST = 2048
"""Pixels along a side of the largest image that faces are looked for in."""
# Colors of spots on a surface, and which are known; the last argument is the edge of a cell [world units].
Look = Callable[[Surface, Spots, float], tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]]


def write(settings: Mesh, run: LoadedRun, out: Path, progress: Progress | None) -> None:
    """Extracts, selects, simplifies, colors and writes the surface of a run."""
    check_ending(out, textured=settings.texture is not None)
    look = looks(settings, run)
    surface = surface_of(settings, run, progress)
    reach = edge(surface)
    if settings.faces is not None:
        surface = simplified(surface, settings.faces)

    def paint(spots: Spots) -> UInt8[np.ndarray, "p 3"]:
        return np.round(255 * completed(spots.points, *look(surface, spots, reach))).astype(np.uint8)

    save(baked(surface, settings.texture, paint) if settings.texture else painted(surface, paint), out)


def surface_of(settings: Mesh, run: LoadedRun, progress: Progress | None = None) -> Surface:
    """What the settings select of a run's surface, in world coordinates; raises `DataError` where there is nothing."""
    where = matter(run, settings.level)
    lattice = Lattice.over(where.bounds(settings.bounds), settings.resolution)
    surface = selected(where.in_world(extract(where.field, lattice, progress)), settings, run)
    if len(surface.faces) == 0:
        raise nothing(where)
    return surface


def check_ending(out: Path, *, textured: bool) -> None:
    """Raises `DataError` where `out` cannot become a file of one of the formats."""
    if textured and out.suffix in ENDINGS and out.suffix not in TEXTURED:
        expected = f"{' or '.join(TEXTURED)} for a texture"
        raise DataError(out, "ending", repr(out.suffix), expected, "change it or drop --texture")
    check_output(out, ENDINGS, f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def looks(settings: Mesh, run: LoadedRun) -> Look:
    """Where colors come from; raises `DataError` where images are asked for and gone."""
    match settings.colors:
        case "radiance":
            return lambda surface, spots, reach: glances.radiance(run, spots, reach)
        case "field":
            return lambda surface, spots, reach: glances.field(run, spots, reach)
    if run.source is None:
        fix = "choose --colors radiance or field"
        raise DataError(run.folder, "photographs", "not part of a portable scene", "those of the training", fix)
    scene = data.read(run.source if settings.data is None else replace(run.source, data=settings.data), "train")
    return lambda surface, spots, reach: fused(spots, surface, lambda: photographs(scene))


def selected(surface: Surface, settings: Mesh, run: LoadedRun) -> Surface:
    """The pieces to keep, and of these, where asked, the faces that a training camera sees."""
    kept = np.ones(len(surface.faces), bool)
    if settings.keep != "all" and len(surface.faces):
        piece = pieces(surface)
        kept = piece == 0 if settings.keep == "largest" else np.bincount(piece)[piece] >= settings.keep
    surface = only(surface, kept)
    return surface if settings.keep_unseen else seen_part(surface, in_world(run.scenes["train"]))


def seen_part(surface: Surface, cameras: Cameras) -> Surface:
    """The faces with corners that cameras see."""
    return only(surface, np.flatnonzero(visible(surface, cameras)[surface.faces].all(1)))


def visible(surface: Surface, cameras: Cameras) -> Bool[np.ndarray, " v"]:
    """The corners of the faces that some camera sees, by images with two pixels along an edge."""
    seen, side = np.zeros(len(surface.vertices), bool), edge(surface)
    middle = torch.from_numpy(surface.vertices.mean(0))
    for index in range(len(cameras)):
        camera = cameras[[index]]
        pixel = float((camera.positions - middle).norm() / camera.focal.mean())
        camera = camera.resized(max(1.0, min(2 * pixel / side, WIDEST / int(camera.size.max()))))
        width, height = camera.size[0].tolist()
        face = rasterize(*projected(camera, surface.vertices), surface.faces, (width, height)).face
        seen[surface.faces[face[face >= 0]]] = True
    return seen


def painted(surface: Surface, paint: Paint) -> Model:
    """The surface with colors at its vertices."""
    spots = Spots(surface.vertices, normals(surface))
    return Model(surface.vertices, surface.faces, spots.normals, paint(spots))


def simplified(surface: Surface, faces: int) -> Surface:
    """About so many faces instead, by quadric errors (Garland and Heckbert 1997)."""
    import fast_simplification

    if len(surface.faces) <= faces:
        return surface
    points, triangles = fast_simplification.simplify(surface.vertices, surface.faces, target_count=faces)[:2]
    return Surface(points.astype(np.float64), triangles.astype(np.int64))


def edge(surface: Surface) -> float:
    """The median length of the edges."""
    corners = surface.vertices[surface.faces]
    return float(np.median(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)))
