"""`localize density`: density on a voxel grid around the training cameras, and distances to occupied cells."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from lumifield.errors import DataError
from lumifield.export.cameras import to_world_cameras
from lumifield.export.world_field import WorldField
from lumifield.localization import Density, Progress
from lumifield.runtime import distributed
from lumifield.runtime.files import check_output, replacing
from lumifield.runtime.image_io import to_uint8

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

# Bounds of the training cameras without outliers (LENS).
PERCENTILES = (0.5, 99.5)
# Relative to the camera spread.
MARGIN_FRACTION, CLEARANCE_FRACTION = 0.25, 0.1
# Samples per cell and axis, of which the maximum is the density of the cell.
SAMPLES_PER_AXIS = 2
CHUNK = 8192
MEMBERS = ("bounds", "density", "density_threshold")


@dataclass(frozen=True)
class DensityGrid:
    """Maximum density per cubic cell [1 / world unit] and the threshold of occupied cells.

    `bounds` are the lower and upper corner of the grid [world units].
    """

    bounds: Float[np.ndarray, "2 3"]
    density: Float[np.ndarray, "x y z"]
    density_threshold: float

    @property
    def edge(self) -> float:
        """Edge length of a cell."""
        return float((self.bounds[1, 0] - self.bounds[0, 0]) / self.density.shape[0])

    @property
    def occupied(self) -> Bool[np.ndarray, "x y z"]:
        """Mask of occupied cells."""
        return self.density > self.density_threshold

    @cached_property
    def occupied_centers(self) -> Float[np.ndarray, "m 3"]:
        """Centers of occupied cells."""
        return self.bounds[0] + self.edge * (np.argwhere(self.occupied) + 0.5)

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self.occupied_centers)

    def distance(self, points: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, " p"]:
        """Lower bound of the distance to occupied cells; infinite if there are none.

        A surface in a cell may be closer than its center by up to half a diagonal.
        """
        if len(self.occupied_centers) == 0:
            return np.full(len(points), np.inf)
        return np.maximum(self._tree.query(points)[0] - math.sqrt(3) / 2 * self.edge, 0.0)


def write_density(settings: Density, run: LoadedRun, progress: Progress) -> str:
    """Measures the density, writes the grid and the point cloud, and returns a summary."""
    out = density_file(run) if settings.out is None else settings.out
    check_output(out, (".npz",), ".npz")
    if distributed.join()[0] > 0:
        return ""
    positions = training_camera_positions(run)
    grid = measure_density(run, camera_bounds(positions, settings.margin), settings, progress)
    write_density_grid(grid, out)
    cloud = out.with_suffix(".ply")
    write_occupied_cells(run, grid, cloud)
    near = int((grid.distance(positions) == 0).sum())
    return (
        f"{len(grid.occupied_centers)} of {grid.density.size} cells of {grid.edge:.3g} are occupied (density above "
        f"{grid.density_threshold:.3g}), {near} of {len(positions)} training cameras are inside: {out}, {cloud}"
    )


def density_file(run: LoadedRun) -> Path:
    """Default density file of a run."""
    return run.folder / "localize" / "density.npz"


def training_camera_positions(run: LoadedRun) -> Float[np.ndarray, "n 3"]:
    """Positions of the training cameras [world units]."""
    return to_world_cameras(run.scenes["train"]).positions.numpy()


def camera_spread(positions: Float[np.ndarray, "n 3"]) -> float:
    """Median distance of positions from their mean (1 if they coincide)."""
    found = float(np.median(np.linalg.norm(positions - positions.mean(0), axis=-1)))
    return found if found > 0 else 1.0


def camera_bounds(positions: Float[np.ndarray, "n 3"], margin: float | None) -> Float[np.ndarray, "2 3"]:
    """Bounds of nearly all cameras with a margin; raises `DataError` if they have no volume."""
    margin = MARGIN_FRACTION * camera_spread(positions) if margin is None else margin
    bounds = np.percentile(positions, PERCENTILES, axis=0) + np.array([[-margin], [margin]])
    if not (bounds[0] < bounds[1]).all():
        found = "flat, because the cameras lie in a plane or a line"
        raise DataError("--margin", "box", found, "a box with a volume", "give a margin above zero")
    return bounds


def measure_density(
    run: LoadedRun, bounds: Float[np.ndarray, "2 3"], settings: Density, progress: Progress
) -> DensityGrid:
    """Density on a cubic grid that covers the bounds."""
    span = bounds[1] - bounds[0]
    edge = float(span.prod() / settings.num_cells) ** (1 / 3)
    shape = np.ceil(span / edge - 1e-9).astype(int)
    low = (bounds[0] + bounds[1] - shape * edge) / 2
    corner = np.array(list(np.ndindex(SAMPLES_PER_AXIS, SAMPLES_PER_AXIS, SAMPLES_PER_AXIS)))
    within = torch.from_numpy((corner + 0.5) / SAMPLES_PER_AXIS)
    field, found = WorldField(run), []
    for first in range(0, int(shape.prod()), CHUNK):
        rows = np.arange(first, min(first + CHUNK, int(shape.prod())))
        index = torch.from_numpy(np.stack(np.unravel_index(rows, shape), -1))
        points = torch.from_numpy(low) + edge * (index[:, None] + within)
        found.append(field.density(points.reshape(-1, 3).float()).view(len(rows), -1).amax(1))
        progress(int(rows[-1]) + 1, int(shape.prod()))
    return DensityGrid(
        bounds=np.stack([low, low + shape * edge]),
        density=torch.cat(found).view(*shape.tolist()).numpy(),
        density_threshold=math.log(2) / (CLEARANCE_FRACTION * camera_spread(training_camera_positions(run)))
        if settings.density_threshold is None
        else settings.density_threshold,
    )


def write_density_grid(grid: DensityGrid, path: Path) -> None:
    """Writes bounds, density and threshold as arrays of one file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, allow_pickle=False, bounds=grid.bounds, density=grid.density, density_threshold=grid.density_threshold
        )


def write_occupied_cells(run: LoadedRun, grid: DensityGrid, path: Path) -> None:
    """Writes centers of occupied cells as a point cloud with colors of the field."""
    import trimesh  # half a second to import, and only this function needs it

    field = WorldField(run)
    parts = torch.from_numpy(grid.occupied_centers).float().split(CHUNK)
    colors = np.concatenate([to_uint8(field.colors(part)).numpy() for part in parts])
    with replacing(path) as temporary:
        trimesh.PointCloud(grid.occupied_centers, colors).export(temporary, file_type="ply")


def read_density_grid(path: Path) -> DensityGrid:
    """Reads the file of `save_grid`; raises `DataError` if it is missing or damaged."""
    fix = "write it again with `lumifield localize density`"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            bounds, density, threshold = (arrays[name] for name in MEMBERS)
    except FileNotFoundError:
        raise DataError(path, "file", "missing", "the density of the run", fix) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(path, "file", f"damaged ({error})", "the density of the run", fix) from None
    if bounds.shape != (2, 3) or density.ndim != 3 or threshold.shape != () or not np.isfinite(bounds).all():
        raise DataError(path, "content", "arrays of other shapes", "bounds, density and density_threshold", fix)
    return DensityGrid(bounds.astype(np.float64), density, float(threshold))
