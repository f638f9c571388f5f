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
from lumifield.export.voxel_grid import SparseVoxels, VoxelGrid, cell_corners
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays, camera_rays, warp_rays_to_ndc
from lumifield.methods.base import Method, RenderContext, render_in_chunks
from lumifield.rendering.view import default_chunk
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.rng import Rng

BRICK_SIZE = 8
"""Voxels along a brick, the unit in which empty space is skipped."""
CHUNK_SIZE = 16384
"""Rays per chunk."""
POINTS_PER_CHUNK = 1 << 16
MIN_DEPTH_OPACITY = 0.05
"""Minimum opacity of rays with a meaningful depth."""
MIN_HIT_OPACITY = 0.5
"""Minimum opacity that some ray must reach; otherwise the scene has no surface."""
MIN_ALPHA = 0.02
"""Minimum opacity of voxels to keep."""
MIN_WEIGHT = 5e-3
"""Minimum compositing weight of samples to keep."""
BOX_MARGIN = 1.02
NUM_COEFFICIENTS = 4
"""Coefficients per color channel: value, and derivatives along x, y and z of the viewing direction."""
NUM_ITERATIONS = 16
REGULARIZATION = np.repeat(np.array([0.01, 0.2, 0.2, 0.2], np.float32), 3)
"""Weight of the prior on each coefficient: voxels with few observations get the mean observed value and zero
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
    def surface_points(self) -> Float[Tensor, "m 3"]:
        """Points at the depth of the rays that are not transparent."""
        has_depth = self.opacity > MIN_DEPTH_OPACITY
        return self.rays.origins[has_depth] + self.depth[has_depth, None] * self.rays.directions[has_depth]


@dataclass(frozen=True)
class BakedVoxels:
    """Voxels and their color coefficients per row and channel: `rgb = coefficients @ (1, direction)`."""

    voxels: SparseVoxels
    coefficients: Float[Tensor, "v 4 3"]


def bake_voxels(settings: WebExport, run: LoadedRun, progress: Progress | None = None) -> BakedVoxels:
    """Voxels of a run; raises `DataError` if its rays hit no surface."""
    rng = Rng(torch.Generator().manual_seed(settings.seed))
    num_chunks = -(-settings.num_rays // CHUNK_SIZE)
    completed = count(1)

    def advance() -> None:
        if progress is not None:
            progress(next(completed), 3 * num_chunks + NUM_ITERATIONS)

    supervision = render_supervision(run, settings.num_rays, rng, advance)
    if not bool((supervision.opacity > MIN_HIT_OPACITY).any()):
        raise empty_scene_error(run)
    grid = VoxelGrid(fit_grid_box(run.scenes["train"], supervision), settings.resolution)
    voxels = sample_density(run.method, grid, find_cells_near_surfaces(grid, supervision), run.device)
    jitter = rng.uniform(len(supervision), 1)[:, 0]
    voxels = voxels.select(cell_corners(find_contributing_cells(voxels, supervision, jitter, advance)))
    if len(voxels.corners) == 0:
        raise empty_scene_error(run)
    matrix = build_color_matrix(voxels, supervision.rays, jitter, advance)
    return BakedVoxels(voxels, fit_colors(matrix, supervision, advance))


def empty_scene_error(run: LoadedRun) -> DataError:
    """Error for a scene whose training rays hit no surface."""
    found, expected = "no surface (all rays are transparent)", "surfaces that rays hit"
    return DataError(run.folder, "scene", found, expected, "train longer")


def render_supervision(run: LoadedRun, num_rays: int, rng: Rng, advance: Callable[[], None]) -> RaySupervision:
    """Renders random pixels of the training cameras; calls `advance` after each chunk."""
    scene = run.scenes["train"]
    camera = rng.integers(num_rays, len(scene))
    pixel = (rng.uniform(num_rays, 2) * scene.cameras.size[camera]).long()
    rays = camera_rays(scene.cameras, camera, pixel, scene.near, scene.far)
    rays = rays if scene.ndc is None else warp_rays_to_ndc(rays, scene.ndc)
    context = RenderContext(torch.zeros(3, device=run.device))
    method_chunk = run.chunk or default_chunk(run.device)
    chunks = []
    for chunk in ray_chunks(num_rays):
        chunks.append(render_in_chunks(run.method, rays[chunk].to(run.device), context, method_chunk))
        advance()
    rgb, depth, opacity = (
        torch.cat([getattr(chunk, name).float().cpu() for chunk in chunks]) for name in ("rgb", "depth", "opacity")
    )
    return RaySupervision(rays, rgb, depth, opacity)


def fit_grid_box(scene: Scene, supervision: RaySupervision) -> SceneBox:
    """Cube around the surfaces in the region of interest; all space for unbounded scenes."""
    if scene.unbounded:
        return SceneBox(scene.box, True)
    points = supervision.surface_points.clamp(scene.box[0], scene.box[1])
    center = (points.amin(0) + points.amax(0)) / 2
    half_size = BOX_MARGIN / 2 * (points.amax(0) - points.amin(0)).amax().clamp_min(1e-6)
    return SceneBox(torch.stack([center - half_size, center + half_size]), False)


def find_cells_near_surfaces(grid: VoxelGrid, supervision: RaySupervision) -> Bool[Tensor, "g g g"]:
    """Cells of the bricks in which rays hit surfaces, and of the neighboring bricks."""
    bricks = VoxelGrid(grid.scene_box, grid.resolution // BRICK_SIZE).cell_mask(supervision.surface_points)
    cells = F.max_pool3d(bricks[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
    for axis in range(3):
        cells = cells.repeat_interleave(BRICK_SIZE, axis)
    return cells


@torch.no_grad()
def sample_density(method: Method, grid: VoxelGrid, cells: Bool[Tensor, "g g g"], device: torch.device) -> SparseVoxels:
    """Density at the cell corners, rounded to the 8 bits of the page so that the colors compensate."""
    index = cell_corners(cells).flatten().nonzero()[:, 0]
    chunks = []
    for chunk in index.split(POINTS_PER_CHUNK):
        points = grid.corner_positions(chunk)
        chunks.append(-torch.expm1(-method.density(points.to(device)).float().cpu() * grid.cell_sizes(points)))
    alpha = (torch.cat(chunks) * 255).round() / 255
    is_dense = alpha > MIN_ALPHA
    return SparseVoxels.from_corners(grid, index[is_dense], alpha[is_dense])


def find_contributing_cells(
    voxels: SparseVoxels, supervision: RaySupervision, jitter: Float[Tensor, " r"], advance: Callable[[], None]
) -> Bool[Tensor, "g g g"]:
    """Cells that contribute to a pixel of a training camera; occluded ones do not."""
    cells = torch.zeros_like(voxels.occupied_cells)
    for chunk in ray_chunks(len(supervision)):
        rays = supervision.rays[chunk]
        packed, _ = voxels.march(rays, jitter[chunk], min_weight=MIN_WEIGHT)
        cells |= voxels.grid.cell_mask(packed.points(rays))
        advance()
    return cells


def build_color_matrix(
    voxels: SparseVoxels,
    rays: Rays,
    jitter: Float[Tensor, " r"],
    advance: Callable[[], None],
    *,
    min_weight: float = MIN_WEIGHT,
) -> sparse.csr_matrix:
    """Weight of the color at each corner (column) in the color of each ray (row)."""
    blocks = []
    for chunk in ray_chunks(len(rays)):
        packed, weights = voxels.march(rays[chunk], jitter[chunk], min_weight=min_weight)
        columns, corner_weights = voxels.corner_weights(packed.points(rays[chunk]))
        values = (corner_weights * weights[:, None]).flatten().numpy()
        row_offsets = (8 * packed.offsets).int().numpy()
        shape = len(row_offsets) - 1, len(voxels.alpha)
        block = sparse.csr_matrix((values, columns.flatten().numpy(), row_offsets), shape)
        block.sum_duplicates()
        blocks.append(block)
        advance()
    return sparse.csr_matrix(sparse.vstack(blocks))


def fit_colors(
    matrix: sparse.csr_matrix, supervision: RaySupervision, advance: Callable[[], None]
) -> Float[Tensor, "v 4 3"]:
    """Color coefficients that reproduce the renderings, by preconditioned conjugate gradients.

    Minimizes `|matrix coefficients (1, direction) - rgb|^2 + REGULARIZATION |coefficients - mean|^2`, where mean
    is the weighted mean color of the rays that see a corner.
    """
    rgb, transposed = supervision.rgb.numpy(), matrix.T.tocsr()
    basis = F.pad(supervision.rays.viewdirs, (1, 0), value=1.0).numpy()
    num_rays = len(rgb)

    def render(coefficients: np.ndarray) -> np.ndarray:
        return np.einsum("rdc,rd->rc", (matrix @ coefficients).reshape(num_rays, NUM_COEFFICIENTS, 3), basis)

    def backproject(colors: np.ndarray) -> np.ndarray:
        return transposed @ (basis[:, :, None] * colors[:, None]).reshape(num_rays, -1)

    total_weight = np.asarray(matrix.sum(0), np.float32).reshape(-1, 1)
    opacity = np.asarray(matrix.sum(1), np.float32).reshape(-1, 1)
    coefficients = np.zeros((len(total_weight), 3 * NUM_COEFFICIENTS), np.float32)
    coefficients[:, :3] = (transposed @ rgb) / np.maximum(transposed @ opacity, 1e-6)
    solver = ConjugateGradients(backproject(rgb - render(coefficients)), 1 / (total_weight + REGULARIZATION))
    for _ in range(NUM_ITERATIONS):
        coefficients += solver.step(lambda direction: backproject(render(direction)) + REGULARIZATION * direction)
        advance()
    return torch.from_numpy(coefficients).view(-1, NUM_COEFFICIENTS, 3)


class ConjugateGradients:
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952) from a residual, one step per call."""

    def __init__(self, residual: Float32[np.ndarray, " v c"], preconditioner: Float32[np.ndarray, " v #c"]) -> None:
        self.residual, self.preconditioner = residual, preconditioner
        self.direction = preconditioner * residual
        self.squared_norm = np.vdot(residual, self.direction)

    def step(self, apply_matrix: Callable[[np.ndarray], np.ndarray]) -> Float32[np.ndarray, " v c"]:
        """Update of the solution, zero if the residual is zero."""
        product = apply_matrix(self.direction)
        curvature = np.vdot(self.direction, product)
        if not curvature > 0:
            return np.zeros_like(self.direction)
        length = self.squared_norm / curvature
        update = length * self.direction
        self.residual -= length * product
        conditioned = self.preconditioner * self.residual
        squared_norm = np.vdot(self.residual, conditioned)
        self.direction = conditioned + squared_norm / self.squared_norm * self.direction
        self.squared_norm = squared_norm
        return update


def ray_chunks(num_rays: int) -> Iterator[slice]:
    """Slices of rays that fit into memory."""
    return (slice(start, start + CHUNK_SIZE) for start in range(0, num_rays, CHUNK_SIZE))
