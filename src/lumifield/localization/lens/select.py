"""`localize select`: positions and orientations of novel views."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.export.cameras import to_world_cameras, write_frusta
from lumifield.geometry.cameras import Cameras
from lumifield.localization import Progress, Select
from lumifield.localization.lens.density import (
    CLEARANCE_FRACTION,
    DensityGrid,
    camera_spread,
    density_file,
    read_density_grid,
)
from lumifield.rendering.camera_paths import format_camera_path
from lumifield.runtime import distributed
from lumifield.runtime.files import check_output, replacing
from lumifield.runtime.rng import Rng

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

# Relative to the spread of the training cameras.
REACH_FRACTION = 0.25
MAX_NODES = 4_000_000
MAX_ROUNDS = 100
# Each grid has about twice as many nodes as the one before.
SPACING_FACTOR = 2 ** (-1 / 3)


@dataclass(frozen=True)
class FreeSpace:
    """Free space near the cameras at `positions` [world units]."""

    positions: Float[np.ndarray, "n 3"]
    grid: DensityGrid
    clearance: float
    reach: float
    distance: float
    rng: Rng

    @property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Bounds of the grid, reduced by the clearance, because nothing is known outside."""
        return self.grid.bounds + np.array([[self.clearance], [-self.clearance]])

    def free(self, points: Float[np.ndarray, "p 3"]) -> Bool[np.ndarray, " p"]:
        """Whether points are within the bounds, near a camera, and far enough from occupied cells."""
        kept = ((points >= self.bounds[0]) & (points <= self.bounds[1])).all(-1)
        kept[kept] = nearest_cameras(points[kept], self.positions)[0] <= self.reach
        kept[kept] = self.grid.distance(points[kept]) >= self.clearance
        return kept

    def add_offsets(self, points: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 3"]:
        """Points with uniform random offsets in a ball of radius `distance`."""
        if self.distance == 0:
            return points
        direction, share = self.rng.normal(len(points), 3), self.rng.uniform(len(points), 1)
        unit = (direction / direction.norm(dim=-1, keepdim=True)).double().numpy()
        return points + self.distance * share.double().numpy() ** (1 / 3) * unit


def write_novel_views(settings: Select, run: LoadedRun, progress: Progress) -> str:
    """Selects views and writes a camera path and frusta."""
    out = novel_views_file(run) if settings.out is None else settings.out
    check_output(out, (".json",), ".json")
    if distributed.join()[0] > 0:
        return ""
    train = to_world_cameras(run.scenes["train"])
    source = density_file(run) if settings.density is None else settings.density
    space = find_free_space(settings, train, read_density_grid(source), source)
    places = (
        grid_positions(settings, space)
        if settings.places == "grid"
        else positions_around_cameras(settings, space, progress)
    )
    views = orient_cameras(places, train, settings.rotation_range, space.rng)
    with replacing(out) as temporary:
        temporary.write_text(format_camera_path(views, Frame.identity()) + "\n", encoding="utf-8")
    cameras = {split: to_world_cameras(scene) for split, scene in run.scenes.items() if len(scene) > 0}
    frusta = out.with_suffix(".ply")
    write_frusta(frusta, cameras | {"novel": views})
    return f"{len(views)} views: {out}, {frusta}"


def novel_views_file(run: LoadedRun) -> Path:
    """Default file of the novel views of a run."""
    return run.folder / "localize" / "views.json"


def find_free_space(settings: Select, train: Cameras, grid: DensityGrid, source: Path) -> FreeSpace:
    """Free space of a run; raises `DataError` if the density grid contains none."""
    positions = train.positions.numpy()
    unit = camera_spread(positions)
    clearance = CLEARANCE_FRACTION * unit if settings.min_clearance is None else settings.min_clearance
    reach = REACH_FRACTION * unit if settings.max_camera_distance is None else settings.max_camera_distance
    default = reach if settings.places == "path" else 0.0
    distance = default if settings.max_offset is None else settings.max_offset
    rng = Rng(torch.Generator().manual_seed(settings.seed))
    space = FreeSpace(positions, grid, clearance, reach, distance, rng)
    low = np.maximum(space.bounds[0], positions.min(0) - reach)
    high = np.minimum(space.bounds[1], positions.max(0) + reach)
    if not (low < high).all():
        found = "no overlap with the surroundings of the cameras"
        expected = f"positions {clearance:.3g} within them and {reach:.3g} from a camera"
        raise DataError(source, "bounds", found, expected, "write it again for this run, or lower --min-clearance")
    return space


def nearest_cameras(
    points: Float[np.ndarray, "p 3"], positions: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Distance to and index of the nearest position."""
    distance, row = KDTree(positions).query(points)
    return np.asarray(distance), np.asarray(row)


def grid_positions(settings: Select, space: FreeSpace) -> Float[np.ndarray, "v 3"]:
    """`num_views` free nodes of the coarsest sufficient grid, or at most that many of a grid with given spacing."""
    spacing = float((space.bounds[1] - space.bounds[0]).min()) / 2 if settings.spacing is None else settings.spacing
    free = np.zeros((0, 3))
    while (points := grid_nodes(space.bounds, spacing)) is not None:
        shifted = space.add_offsets(points)
        free = shifted[space.free(shifted)]
        if settings.spacing is not None or len(free) >= settings.num_views:
            break
        spacing *= SPACING_FACTOR
    num_required = settings.num_views if settings.spacing is None else 1
    return choose_positions(free, num_required, settings, space)


def grid_nodes(bounds: Float[np.ndarray, "2 3"], spacing: float) -> Float[np.ndarray, "p 3"] | None:
    """Nodes of a cubic grid centered in the bounds; None if there are too many."""
    shape = np.floor((bounds[1] - bounds[0]) / spacing) + 1
    if shape.prod() > MAX_NODES:
        return None
    sides = [(np.arange(n) - (n - 1) / 2) * spacing for n in shape]
    return bounds.mean(0) + np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3)


def positions_around_cameras(settings: Select, space: FreeSpace, progress: Progress) -> Float[np.ndarray, "v 3"]:
    """`num_views` free positions around random training cameras."""
    free = np.zeros((0, 3))
    for _ in range(MAX_ROUNDS):
        row = space.rng.integers(settings.num_views, len(space.positions)).numpy()
        shifted = space.add_offsets(space.positions[row])
        free = np.concatenate([free, shifted[space.free(shifted)]])
        progress(min(len(free), settings.num_views), settings.num_views)
        if len(free) >= settings.num_views:
            break
    return choose_positions(free, settings.num_views, settings, space)


def choose_positions(
    free: Float[np.ndarray, "p 3"], num_required: int, settings: Select, space: FreeSpace
) -> Float[np.ndarray, "v 3"]:
    """Random subset of at most `num_views` positions; raises `DataError` if there are fewer than required."""
    if len(free) < num_required:
        expected = f"{num_required}, {space.clearance:.3g} from occupied cells and within {space.reach:.3g} of a camera"
        fix = "lower --num-views or --min-clearance, raise --max-camera-distance or the density threshold"
        raise DataError("select", "number of free positions", str(len(free)), expected, fix)
    order = space.rng.uniform(len(free), 1)[:, 0].argsort().numpy()
    return free[order[: settings.num_views]]


def orient_cameras(places: Float[np.ndarray, "v 3"], train: Cameras, angle: float, rng: Rng) -> Cameras:
    """Pinhole cameras at the positions with the orientation of the nearest training camera and a random rotation.

    Image size and field of view are those of the nearest camera. The rotation vector is uniform in [-angle / 2, angle /
    2] per axis.
    """
    cameras = train[torch.from_numpy(nearest_cameras(places, train.positions.numpy())[1])]
    rotation_vector = math.radians(angle) * (rng.uniform(len(places), 3).double() - 0.5)
    rotation = cameras.c2w[:, :, :3] @ torch.from_numpy(Rotation.from_rotvec(rotation_vector.numpy()).as_matrix())
    return replace(
        cameras,
        c2w=torch.cat([rotation, torch.from_numpy(places)[..., None]], -1),
        focal=cameras.focal.mean(-1, keepdim=True).expand(-1, 2),
        center=cameras.size / 2,
        distortion=torch.zeros_like(cameras.distortion),
    )
