"""Baking of a method into voxels that render like it from the training cameras.

Density is sampled at the corners of a grid, where a training camera can see it. Colors are a least-squares fit to
renderings of random training rays: for fixed density a pixel is linear in the colors (deferred shading as in SNeRG,
Hedman et al. 2021, with color linear in the viewing direction instead of a network).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from scipy import sparse
from torch import Tensor

from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.export import Progress, WebExport
from lumifield.export.voxel_grid import VoxelLattice, Voxels, cell_corners, cells_with_corners
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays, camera_rays, warp_rays_to_ndc
from lumifield.methods.base import Method, RenderContext, render_in_chunks
from lumifield.rendering.view import default_chunk
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.rng import Rng

BRICK = 8
"""Voxels along a brick, the unit in which empty space is skipped."""
CHUNK = 16384
POINTS = 1 << 16
MET, HIT = 0.05, 0.5
MIN_ALPHA, MIN_WEIGHT = 0.02, 5e-3
MARGIN = 1.02
DIRECTIONS = 4
"""Coefficients per color channel: value, and derivatives along x, y and z of the viewing direction."""
ITERATIONS = 16
REGULARIZATION = np.repeat(np.array([0.01, 0.2, 0.2, 0.2], np.float32), 3)
"""Weight of the prior on each coefficient: voxels that are hardly seen get the mean observed value and zero
derivatives."""


@dataclass(frozen=True)
class RaySupervision:
    """Rendering of a method along rays over black."""

    rays: Rays
    rgb: Float[Tensor, "r 3"]
    depth: Float[Tensor, " r"]
    opacity: Float[Tensor, " r"]

    def __len__(self) -> int:
        return len(self.rays)

    @property
    def points(self) -> Float[Tensor, "m 3"]:
        """Surface points of the rays."""
        met = self.opacity > MET
        return self.rays.origins[met] + self.depth[met, None] * self.rays.directions[met]


@dataclass(frozen=True)
class Baked:
    """Voxels and their colors: value and derivatives per row and channel, `rgb = light @ (1, direction)`."""

    voxels: Voxels
    light: Float[Tensor, "v 4 3"]


def bake_voxels(settings: WebExport, run: LoadedRun, progress: Progress | None = None) -> Baked:
    """Voxels of a run; raises `DataError` if its rays hit no surface."""
    rng = Rng(torch.Generator().manual_seed(settings.seed))
    num_chunks = -(-settings.num_rays // CHUNK)
    done = count(1)

    def note() -> None:
        if progress is not None:
            progress(next(done), 3 * num_chunks + ITERATIONS)

    empty = DataError(
        run.folder, "scene", "no surface (all rays are transparent)", "surfaces that rays hit", "train longer"
    )
    supervision = render_supervision(run, settings.num_rays, rng, note)
    if not bool((supervision.opacity > HIT).any()):
        raise empty
    lattice = VoxelLattice(grid_box(run.scenes["train"], supervision), settings.resolution)
    voxels = measure_density(run.method, lattice, cells_near_surfaces(lattice, supervision), run.device)
    jitter = rng.uniform(len(supervision), 1)[:, 0]
    voxels = voxels.select(cell_corners(contributing_cells(voxels, supervision, jitter, note)))
    if len(voxels.corners) == 0:
        raise empty
    return Baked(voxels, fit_colors(color_matrix(voxels, supervision.rays, jitter, note), supervision, note))


def render_supervision(run: LoadedRun, rays: int, rng: Rng, note: Callable[[], None]) -> RaySupervision:
    """Renders random pixels of the training cameras."""
    scene = run.scenes["train"]
    camera = rng.integers(rays, len(scene))
    pixel = (rng.uniform(rays, 2) * scene.cameras.size[camera]).long()
    sampled = camera_rays(scene.cameras, camera, pixel, scene.near, scene.far)
    sampled = sampled if scene.ndc is None else warp_rays_to_ndc(sampled, scene.ndc)
    black = RenderContext(torch.zeros(3, device=run.device))
    parts = []
    for piece in ray_chunks(rays):
        parts.append(
            render_in_chunks(run.method, sampled[piece].to(run.device), black, run.chunk or default_chunk(run.device))
        )
        note()
    rgb, depth, opacity = (
        torch.cat([getattr(part, name).float().cpu() for part in parts]) for name in ("rgb", "depth", "opacity")
    )
    return RaySupervision(sampled, rgb, depth, opacity)


def grid_box(scene: Scene, supervision: RaySupervision) -> SceneBox:
    """Cube around the surfaces in the region of interest; all space for unbounded scenes."""
    if scene.unbounded:
        return SceneBox(scene.box, True)
    points = supervision.points.clamp(scene.box[0], scene.box[1])
    middle = (points.amin(0) + points.amax(0)) / 2
    half = MARGIN / 2 * (points.amax(0) - points.amin(0)).amax().clamp_min(1e-6)
    return SceneBox(torch.stack([middle - half, middle + half]), False)


def cells_near_surfaces(lattice: VoxelLattice, supervision: RaySupervision) -> Bool[Tensor, "g g g"]:
    """Cells of the bricks that rays hit surfaces in, and of their neighbors."""
    bricks = VoxelLattice(lattice.space, lattice.side // BRICK).cells(supervision.points)
    bricks = F.max_pool3d(bricks[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
    for axis in range(3):
        bricks = bricks.repeat_interleave(BRICK, axis)
    return bricks


@torch.no_grad()
def measure_density(
    method: Method, lattice: VoxelLattice, cells: Bool[Tensor, "g g g"], device: torch.device
) -> Voxels:
    """Density at the cell corners, rounded to the 8 bits of the page so that the colors compensate."""
    index = cell_corners(cells).flatten().nonzero()[:, 0]
    alpha = []
    for part in index.split(POINTS):
        points = lattice.corners(part)
        alpha.append(-torch.expm1(-method.density(points.to(device)).float().cpu() * lattice.lengths(points)))
    found = (torch.cat(alpha) * 255).round() / 255
    matter = found > MIN_ALPHA
    return Voxels.of(lattice, index[matter], found[matter])


def contributing_cells(
    voxels: Voxels, supervision: RaySupervision, jitter: Float[Tensor, " r"], note: Callable[[], None]
) -> Bool[Tensor, "g g g"]:
    """Cells that contribute to a pixel of a training camera; cells behind them are never seen."""
    lattice = voxels.lattice
    occupied = cells_with_corners(voxels.row > 0)
    cells = torch.zeros_like(occupied)
    for piece in ray_chunks(len(supervision)):
        rays = supervision.rays[piece]
        packed, _ = voxels.march(rays, occupied, jitter[piece], MIN_WEIGHT)
        cells |= lattice.cells(packed.points(rays))
        note()
    return cells


def color_matrix(
    voxels: Voxels, rays: Rays, jitter: Float[Tensor, " r"], note: Callable[[], None], *, min_weight: float = MIN_WEIGHT
) -> sparse.csr_matrix:
    """Weight of the color at each corner (column) in the color of each ray (row)."""
    occupied = cells_with_corners(voxels.row > 0)
    blocks = []
    for piece in ray_chunks(len(rays)):
        packed, weights = voxels.march(rays[piece], occupied, jitter[piece], min_weight)
        columns, parts = voxels.corner_weights(packed.points(rays[piece]))
        values = (parts * weights[:, None]).flatten().numpy()
        ends = (8 * packed.offsets).int().numpy()
        block = sparse.csr_matrix((values, columns.flatten().numpy(), ends), (len(ends) - 1, len(voxels.alpha)))
        block.sum_duplicates()
        blocks.append(block)
        note()
    return sparse.csr_matrix(sparse.vstack(blocks))


def fit_colors(
    share: sparse.csr_matrix, supervision: RaySupervision, note: Callable[[], None]
) -> Float[Tensor, "v 4 3"]:
    """Colors that reproduce the renderings, by preconditioned conjugate gradients.

    Minimizes `|share light (1, direction) - rgb|^2 + REGULARIZATION |light - mean|^2`, where mean is that of the colors
    of the rays that see a corner.
    """
    rgb, turned = supervision.rgb.numpy(), share.T.tocsr()
    basis = F.pad(supervision.rays.viewdirs, (1, 0), value=1.0).numpy()
    rows = len(rgb)

    def shown(light: np.ndarray) -> np.ndarray:
        return np.einsum("rdc,rd->rc", (share @ light).reshape(rows, DIRECTIONS, 3), basis)

    def back(colors: np.ndarray) -> np.ndarray:
        return turned @ (basis[:, :, None] * colors[:, None]).reshape(rows, -1)

    seen_by = np.asarray(share.sum(0), np.float32).reshape(-1, 1)
    opacity = np.asarray(share.sum(1), np.float32).reshape(-1, 1)
    light = np.zeros((len(seen_by), 3 * DIRECTIONS), np.float32)
    light[:, :3] = (turned @ rgb) / np.maximum(turned @ opacity, 1e-6)
    step = ConjugateGradients(back(rgb - shown(light)), 1 / (seen_by + REGULARIZATION))
    for _ in range(ITERATIONS):
        light += step.along(lambda direction: back(shown(direction)) + REGULARIZATION * direction)
        note()
    return torch.from_numpy(light).view(-1, DIRECTIONS, 3)


class ConjugateGradients:
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952) from a residual, one step per call."""

    def __init__(self, residual: Float32[np.ndarray, " v c"], preconditioner: Float32[np.ndarray, " v #c"]) -> None:
        self.residual, self.preconditioner = residual, preconditioner
        self.direction = preconditioner * residual
        self.size = np.vdot(residual, self.direction)

    def along(self, applied: Callable[[np.ndarray], np.ndarray]) -> Float32[np.ndarray, " v c"]:
        """How far to go, given how the matrix applies; nowhere when the residual is nought."""
        change = applied(self.direction)
        curvature = np.vdot(self.direction, change)
        if not curvature > 0:
            return np.zeros_like(self.direction)
        length = self.size / curvature
        move = length * self.direction
        self.residual -= length * change
        conditioned = self.preconditioner * self.residual
        size = np.vdot(self.residual, conditioned)
        self.direction = conditioned + size / self.size * self.direction
        self.size = size
        return move


def ray_chunks(rays: int) -> Iterator[slice]:
    """Slices of rays that fit into memory."""
    return (slice(start, start + CHUNK) for start in range(0, rays, CHUNK))
