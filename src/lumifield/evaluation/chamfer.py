"""How far the surface of a run lies from the true one, where that is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from lumifield.errors import DataError
from lumifield.export import MeshExport
from lumifield.export.cameras import to_world_cameras
from lumifield.export.mesh import visible_part, extract_run_surface
from lumifield.export.marching_cubes import Surface

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

FILE = "truth/mesh.ply"
SETTINGS = MeshExport(resolution=128, components="all", keep_unseen=False)
SAMPLES, DENSE = 20_000, 200_000
"""Points whose distances are taken, and those that stand for the surface that they are taken from."""


def chamfer(run: LoadedRun) -> float | None:
    """The chamfer distance of a run's surface from `truth/mesh.ply` among its data, as a share of that mesh's diagonal.

    `(mean_x min_y |x - y| + mean_y min_x |x - y|) / 2` over points x and y spread evenly over the parts of both that
    the cameras of the training see. None where no truth is known, the method has densities alone, or the run no
    surface. Raises `DataError` where the true mesh cannot be read.
    """
    path = None if run.source is None else run.source.data / FILE
    if path is None or not path.is_file() or run.method.surface_level is None:
        return None
    whole = read(path)
    try:
        surface = extract_run_surface(SETTINGS, run)
    except DataError:  # nothing is inside, or nothing of it is seen
        return None
    truth = visible_part(whole, to_world_cameras(run.scenes["train"]))
    if len(truth.faces) == 0:
        return None
    return apart(surface, truth) / float(np.linalg.norm(np.ptp(whole.vertices, axis=0)))


def read(path: Path) -> Surface:
    """The triangles of a PLY file; raises `DataError` for another content."""
    import trimesh  # half a second to import

    try:
        mesh = trimesh.load(path, process=False, force="mesh")
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(path, "mesh", str(error), "a PLY file with faces", "write it again, or remove it") from None
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise DataError(path, "mesh", "no face", "a PLY file with faces", "write it again, or remove it")
    return Surface(np.asarray(mesh.vertices, float), np.asarray(mesh.faces, np.int64))


def apart(one: Surface, other: Surface) -> float:
    """The mean of both mean distances between two surfaces [world units]."""
    few, many = ([spread(each, count, seed) for seed, each in enumerate((one, other))] for count in (SAMPLES, DENSE))
    there, back = (KDTree(to).query(at)[0].mean() for at, to in zip(few, reversed(many), strict=True))
    return float(there + back) / 2


def spread(surface: Surface, count: int, seed: int) -> Float[np.ndarray, "{count} 3"]:
    """Points spread evenly over a surface, the same for the same seed."""
    random = np.random.default_rng(seed)
    corners = surface.vertices[surface.faces]
    along, beside = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    ends = np.cumsum(np.linalg.norm(np.cross(along, beside), axis=-1))
    face = np.searchsorted(ends, random.uniform(0, ends[-1], count)).clip(max=len(corners) - 1)
    u, v = random.uniform(size=(2, count, 1))
    u, v = np.where(u + v > 1, (1 - u, 1 - v), (u, v))
    return corners[face, 0] + u * along[face] + v * beside[face]
