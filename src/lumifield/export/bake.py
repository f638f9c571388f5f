"""Baking: a method's matter and light as voxels that look the same along the rays of the training cameras.

The matter is the method's density at the corners of a grid, where a training camera can see it. The light follows by
least squares from what the method shows along random rays of these cameras: with the matter fixed, a pixel is a
linear function of the light (the deferred shading of SNeRG, Hedman et al. 2021, with a color that is linear in the
viewing direction in place of a network).
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
from lumifield.export import Progress, Web
from lumifield.export.voxels import Lattice, Voxels, cells_at, corners_of
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays, camera_rays, warp_rays_to_ndc
from lumifield.methods.base import Method, RenderContext, render_in_chunks
from lumifield.rendering.view import usual_chunk
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime.rng import Rng

BRICK = 8
"""Cells along a brick: the unit in which empty space is left out."""
PIECE = 16384
POINTS = 1 << 16
MET, HIT = 0.05, 0.5
LEAST_ALPHA, MIN_WEIGHT = 0.02, 5e-3
MARGIN = 1.02
DIRECTIONS = 4
"""Numbers of a color channel: its value, and its slopes along x, y and z of the viewing direction."""
ITERATIONS = 16
PULL = np.repeat(np.array([0.01, 0.2, 0.2, 0.2], np.float32), 3)
"""How strongly each number is held: where a voxel is hardly seen, its value is the mean seen, its slopes are zero."""


@dataclass(frozen=True)
class Witness:
    """What a method shows along rays, over black."""

    rays: Rays
    rgb: Float[Tensor, "r 3"]
    depth: Float[Tensor, " r"]
    opacity: Float[Tensor, " r"]

    def __len__(self) -> int:
        return len(self.rays)

    @property
    def points(self) -> Float[Tensor, "m 3"]:
        """The points where rays meet matter."""
        met = self.opacity > MET
        return self.rays.origins[met] + self.depth[met, None] * self.rays.directions[met]


@dataclass(frozen=True)
class Baked:
    """Voxels and their light: for each row and channel the value and its slopes, `rgb = light @ (1, direction)`."""

    voxels: Voxels
    light: Float[Tensor, "v 4 3"]


def bake(settings: Web, run: LoadedRun, progress: Progress | None = None) -> Baked:
    """The voxels of a run; raises `DataError` where its rays meet no matter."""
    rng = Rng(torch.Generator().manual_seed(settings.seed))
    pieces = -(-settings.rays // PIECE)
    done = count(1)

    def note() -> None:
        if progress is not None:
            progress(next(done), 3 * pieces + ITERATIONS)

    empty = DataError(run.folder, "scene", "empty (no ray meets matter)", "matter to show", "train it longer")
    witness = witnessed(run, settings.rays, rng, note)
    if not bool((witness.opacity > HIT).any()):
        raise empty
    lattice = Lattice(space_of(run.scenes["train"], witness), settings.side)
    voxels = measured(run.method, lattice, near(lattice, witness), run.device)
    jitter = rng.uniform(len(witness), 1)[:, 0]
    voxels = voxels.kept(corners_of(seen(voxels, witness, jitter, note)))
    if len(voxels.corners) == 0:
        raise empty
    return Baked(voxels, fitted(shares(voxels, witness.rays, jitter, note), witness, note))


def witnessed(run: LoadedRun, rays: int, rng: Rng, note: Callable[[], None]) -> Witness:
    """What the method shows at random pixels of the training cameras."""
    scene = run.scenes["train"]
    camera = rng.integers(rays, len(scene))
    pixel = (rng.uniform(rays, 2) * scene.cameras.size[camera]).long()
    asked = camera_rays(scene.cameras, camera, pixel, scene.near, scene.far)
    asked = asked if scene.ndc is None else warp_rays_to_ndc(asked, scene.ndc)
    black = RenderContext(torch.zeros(3, device=run.device))
    parts = []
    for piece in pieces_of(rays):
        parts.append(render_in_chunks(run.method, asked[piece].to(run.device), black, run.chunk or usual_chunk(run.device)))
        note()
    rgb, depth, opacity = (
        torch.cat([getattr(part, name).float().cpu() for part in parts]) for name in ("rgb", "depth", "opacity")
    )
    return Witness(asked, rgb, depth, opacity)


def space_of(scene: Scene, witness: Witness) -> SceneBox:
    """The cube about the matter within the region of interest; all space where the scene has no bounds."""
    if scene.unbounded:
        return SceneBox(scene.box, True)
    points = witness.points.clamp(scene.box[0], scene.box[1])
    middle = (points.amin(0) + points.amax(0)) / 2
    half = MARGIN / 2 * (points.amax(0) - points.amin(0)).amax().clamp_min(1e-6)
    return SceneBox(torch.stack([middle - half, middle + half]), False)


def near(lattice: Lattice, witness: Witness) -> Bool[Tensor, "g g g"]:
    """The cells of the bricks that rays meet matter in, and of the bricks about them."""
    bricks = Lattice(lattice.space, lattice.side // BRICK).cells(witness.points)
    bricks = F.max_pool3d(bricks[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
    for axis in range(3):
        bricks = bricks.repeat_interleave(BRICK, axis)
    return bricks


@torch.no_grad()
def measured(method: Method, lattice: Lattice, cells: Bool[Tensor, "g g g"], device: torch.device) -> Voxels:
    """The method's matter at the corners of the cells, rounded to the 8 bits of the page: the light makes up for it."""
    index = corners_of(cells).flatten().nonzero()[:, 0]
    alpha = []
    for part in index.split(POINTS):
        points = lattice.corners(part)
        alpha.append(-torch.expm1(-method.density(points.to(device)).float().cpu() * lattice.lengths(points)))
    found = (torch.cat(alpha) * 255).round() / 255
    matter = found > LEAST_ALPHA
    return Voxels.of(lattice, index[matter], found[matter])


def seen(
    voxels: Voxels, witness: Witness, jitter: Float[Tensor, " r"], note: Callable[[], None]
) -> Bool[Tensor, "g g g"]:
    """The cells that contribute to a pixel of a training camera: what lies behind them is never seen."""
    lattice = voxels.lattice
    occupied = cells_at(voxels.row > 0)
    cells = torch.zeros_like(occupied)
    for piece in pieces_of(len(witness)):
        rays = witness.rays[piece]
        packed, _ = voxels.march(rays, occupied, jitter[piece], MIN_WEIGHT)
        cells |= lattice.cells(packed.points(rays))
        note()
    return cells


def shares(
    voxels: Voxels, rays: Rays, jitter: Float[Tensor, " r"], note: Callable[[], None], *, least: float = MIN_WEIGHT
) -> sparse.csr_matrix:
    """How much of each ray's color (row) is the light at each corner (column)."""
    occupied = cells_at(voxels.row > 0)
    blocks = []
    for piece in pieces_of(len(rays)):
        packed, weights = voxels.march(rays[piece], occupied, jitter[piece], least)
        columns, parts = voxels.around(packed.points(rays[piece]))
        values = (parts * weights[:, None]).flatten().numpy()
        ends = (8 * packed.offsets).int().numpy()
        block = sparse.csr_matrix((values, columns.flatten().numpy(), ends), (len(ends) - 1, len(voxels.alpha)))
        block.sum_duplicates()
        blocks.append(block)
        note()
    return sparse.csr_matrix(sparse.vstack(blocks))


def fitted(share: sparse.csr_matrix, witness: Witness, note: Callable[[], None]) -> Float[Tensor, "v 4 3"]:
    """The light that shows what the method shows, by conjugate gradients preconditioned with the normal diagonal.

    Minimizes `|share light (1, direction) - rgb|^2 + PULL |light - mean|^2`, the mean being that of the colors of the
    rays that see a corner.
    """
    rgb, turned = witness.rgb.numpy(), share.T.tocsr()
    basis = F.pad(witness.rays.viewdirs, (1, 0), value=1.0).numpy()
    rows = len(rgb)

    def shown(light: np.ndarray) -> np.ndarray:
        return np.einsum("rdc,rd->rc", (share @ light).reshape(rows, DIRECTIONS, 3), basis)

    def back(colors: np.ndarray) -> np.ndarray:
        return turned @ (basis[:, :, None] * colors[:, None]).reshape(rows, -1)

    seen_by = np.asarray(share.sum(0), np.float32).reshape(-1, 1)
    opacity = np.asarray(share.sum(1), np.float32).reshape(-1, 1)
    light = np.zeros((len(seen_by), 3 * DIRECTIONS), np.float32)
    light[:, :3] = (turned @ rgb) / np.maximum(turned @ opacity, 1e-6)
    step = Descent(back(rgb - shown(light)), 1 / (seen_by + PULL))
    for _ in range(ITERATIONS):
        light += step.along(lambda direction: back(shown(direction)) + PULL * direction)
        note()
    return torch.from_numpy(light).view(-1, DIRECTIONS, 3)


class Descent:
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952) from a residual, one step a call."""

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


def pieces_of(rays: int) -> Iterator[slice]:
    """Slices of as many rays as fit well into memory."""
    return (slice(start, start + PIECE) for start in range(0, rays, PIECE))
