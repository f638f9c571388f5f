"""Bounding sphere of the visual hull of object masks, and validation of masks against the unit sphere."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lumifield.data.image_files import ImageFiles, read_gray
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import focus_point, normalize

# Minimum value of a foreground pixel of an object mask.
FOREGROUND = 128
# Number of samples along the longer side of an image in checks.
CHECK_SAMPLES = 100
# Minimum share of an object mask inside the sphere.
MIN_SHARE = 0.5
# Resolution of the carved cube; a cell is kept if at least this share of all views observe it, and this share of those
# have it inside their mask, because masks are noisy.
RESOLUTION, MIN_OBSERVED, MIN_AGREEING = 64, 0.8, 0.9
# Radius of the sphere relative to that of the hull.
MARGIN = 1.1

log = logging.getLogger(__name__)


def check_object_masks(cameras: Cameras, files: ImageFiles, path: Path) -> None:
    """Raises `DataError` if the rays of a camera miss the unit sphere, or most of a mask lies outside it.

    `path` is the camera file. Warns about masks that are completely white or black.
    """
    full, empty = 0, []
    for row, image in enumerate(files.paths):
        x, y = _grid(cameras, row)
        meets = _hits_sphere(cameras, row, x, y)
        if not bool(meets.any()):
            fix = "correct the cameras or the matrix of the sphere"
            raise DataError(path, f"sphere seen by {image.name}", "outside the image", "some of it inside", fix)
        silhouette = files.silhouettes[row]
        if silhouette is None:
            continue
        inside = _inside(silhouette)[y.long(), x.long()]
        share = float((inside & meets).sum() / inside.sum()) if bool(inside.any()) else 1.0
        if share < MIN_SHARE:
            fix = "correct the matrix of the sphere, or remove all such matrices: without, it is computed"
            raise DataError(silhouette, "silhouette within the unit sphere", f"{share:.0%}", "all of it", fix)
        full += bool(inside.all())
        empty += [] if bool(inside.any()) else [image.name]
    _warn(path, full, empty, len(files.paths))


def sphere_of_poses(c2w: Float[Tensor, "n 3 4"], reach: float) -> Frame:
    """Sphere around the point nearest to all optical axes, with `reach` times the distance of the nearest camera."""
    center = focus_point(c2w)
    nearest = float((c2w[:, :, 3] - center).norm(dim=-1).min())
    return Frame(torch.eye(3, dtype=c2w.dtype), center, reach * nearest if nearest > 0 else 1.0)


def sphere_of_hull(cameras: Cameras, files: ImageFiles, path: Path) -> Frame:
    """Bounding sphere of the visual hull of object masks, for cameras in world coordinates.

    Raises `DataError` if the masks have no point in common.
    """
    masks = [_inside(silhouette) for silhouette in files.silhouettes if silhouette is not None]
    start = sphere_of_poses(cameras.c2w, 1.0)
    coarse, cell = _hull(cameras, masks, start.translation, start.scale, path)
    low, high = coarse.amin(0) - cell, coarse.amax(0) + cell
    fine, cell = _hull(cameras, masks, (low + high) / 2, float((high - low).max()) / 2, path)
    center = (fine.amin(0) + fine.amax(0)) / 2
    radius = MARGIN * (float((fine - center).norm(dim=-1).max()) + cell)
    log.info("%s: no sphere given; the sphere of the visual hull has center %s and radius %g.", path, center, radius)
    return Frame(torch.eye(3, dtype=torch.float64), center.double(), radius)


def _hull(
    cameras: Cameras, masks: list[Bool[Tensor, "_ _"]], center: Float[Tensor, "3"], half: float, path: Path
) -> tuple[Float[Tensor, "p 3"], float]:
    """Centers of the cells of a cube inside the hull, and the edge length of a cell."""
    cells = _cells(center, half)
    left = cells[_inside_hull(cells, cameras, masks)]
    if not len(left):
        fix = "correct the poses, or remove the masks and use --no-object-masks"
        raise DataError(path, "common volume of the silhouettes", "empty", "that of one object", fix)
    return left, 2 * half / RESOLUTION


def _cells(center: Float[Tensor, "3"], half: float) -> Float[Tensor, "p 3"]:
    """Cell centers of a cube."""
    line = ((torch.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 - 1) * half
    return torch.cartesian_prod(line, line, line) + center


def _inside_hull(
    points: Float[Tensor, "p 3"], cameras: Cameras, masks: list[Bool[Tensor, "_ _"]]
) -> Bool[Tensor, " p"]:
    """Mask of points that most views observe, nearly all of them inside their mask."""
    seen, within = torch.zeros(len(points)), torch.zeros(len(points))
    for row, mask in enumerate(masks):
        pixel, depth = cameras[[row]].project(points)
        column, line = pixel[0].floor().unbind(-1)
        height, width = mask.shape
        shown = (depth[0] > 0) & (column >= 0) & (column < width) & (line >= 0) & (line < height)
        there = mask[line[shown].long(), column[shown].long()]
        seen += shown
        within[shown] += there.float()
    return (seen >= MIN_OBSERVED * len(masks)) & (within >= MIN_AGREEING * seen)


def _grid(cameras: Cameras, row: int) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Evenly spaced samples of an image [pixels]."""
    width, height = cameras.size[row].tolist()
    step = max(1, max(width, height) // CHECK_SAMPLES)
    y, x = torch.meshgrid(torch.arange(step // 2, height, step), torch.arange(step // 2, width, step), indexing="ij")
    return x.flatten() + 0.5, y.flatten() + 0.5


def _hits_sphere(cameras: Cameras, row: int, x: Float[Tensor, " p"], y: Float[Tensor, " p"]) -> Bool[Tensor, " p"]:
    """Mask of the rays of a camera that hit the unit sphere."""
    direction = normalize(cameras.directions(torch.full(x.shape, row), x, y))
    origin = cameras.positions[row]
    nearest = -(direction @ origin)
    distance = (origin + nearest[:, None] * direction).norm(dim=-1)
    return (distance < 1) & ((nearest > 0) | (origin.norm() < 1))


def _inside(path: Path) -> Bool[Tensor, "h w"]:
    return torch.from_numpy(read_gray(path) >= FOREGROUND)


def _warn(path: Path, full: int, empty: list[str], count: int) -> None:
    if full == count:
        text = (
            "%s: all object masks are completely white; with --no-object-masks the surroundings are reconstructed, too."
        )
        log.warning(text, path.parent)
    if empty:
        log.warning(
            "%s: %d of %d object masks are completely black (first: %s).", path.parent, len(empty), count, empty[0]
        )
