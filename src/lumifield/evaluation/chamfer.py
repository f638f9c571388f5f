"""Chamfer distance between the surface of a run and the ground truth mesh."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from lumifield.errors import DataError
from lumifield.export import MeshExport
from lumifield.export.cameras import to_world_cameras
from lumifield.export.marching_cubes import TriangleMesh
from lumifield.export.mesh import extract_run_surface, select_visible_faces

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

FILE = "ground_truth/mesh.ply"
SETTINGS = MeshExport(resolution=128, components="all", keep_unseen=False)
NUM_QUERY_POINTS, NUM_REFERENCE_POINTS = 20_000, 200_000
"""Points whose distances are measured, and points that represent the other surface."""


def chamfer_distance(run: LoadedRun) -> float | None:
    """Chamfer distance to `ground_truth/mesh.ply` in the data of a run, relative to the diagonal of that mesh.

    `(mean_x min_y |x - y| + mean_y min_x |x - y|) / 2` over points x and y sampled uniformly on the parts that training
    cameras see. None if there is no ground truth mesh, the method has no surface, or the surface is empty. Raises
    `DataError` if the mesh is unreadable.
    """
    path = None if run.source is None else run.source.data / FILE
    if path is None or not path.is_file() or not run.method.traits.has_signed_distance:
        return None
    whole = read_mesh(path)
    try:
        surface = extract_run_surface(SETTINGS, run)
    except DataError:  # no surface, or none that is seen
        return None
    ground_truth = select_visible_faces(whole, to_world_cameras(run.scenes["train"]))
    if len(ground_truth.faces) == 0:
        return None
    return surface_distance(surface, ground_truth) / float(np.linalg.norm(np.ptp(whole.vertices, axis=0)))


def read_mesh(path: Path) -> TriangleMesh:
    """Triangles of a PLY file; raises `DataError` for other content."""
    import trimesh  # half a second to import

    try:
        mesh = trimesh.load(path, process=False, force="mesh")
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(path, "mesh", str(error), "a PLY file with faces", "write it again or remove it") from None
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise DataError(path, "mesh", "no face", "a PLY file with faces", "write it again or remove it")
    return TriangleMesh(np.asarray(mesh.vertices, float), np.asarray(mesh.faces, np.int64))


def surface_distance(one: TriangleMesh, other: TriangleMesh) -> float:
    """Mean of both mean distances between two surfaces [world units]."""
    few, many = (
        [sample_surface(each, count, seed) for seed, each in enumerate((one, other))]
        for count in (NUM_QUERY_POINTS, NUM_REFERENCE_POINTS)
    )
    there, back = (KDTree(to).query(at)[0].mean() for at, to in zip(few, reversed(many), strict=True))
    return float(there + back) / 2


def sample_surface(surface: TriangleMesh, count: int, seed: int) -> Float[np.ndarray, "{count} 3"]:
    """Points sampled uniformly on a surface, deterministic for a seed."""
    random = np.random.default_rng(seed)
    corners = surface.vertices[surface.faces]
    edge_u, edge_v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    ends = np.cumsum(np.linalg.norm(np.cross(edge_u, edge_v), axis=-1))
    face = np.searchsorted(ends, random.uniform(0, ends[-1], count)).clip(max=len(corners) - 1)
    u, v = random.uniform(size=(2, count, 1))
    u, v = np.where(u + v > 1, (1 - u, 1 - v), (u, v))
    return corners[face, 0] + u * edge_u[face] + v * edge_v[face]
