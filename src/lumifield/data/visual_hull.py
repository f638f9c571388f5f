"""Silhouettes: the sphere that their visual hull fits, and whether rays and silhouettes meet the unit sphere at all."""

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

# From this value on a pixel of a silhouette shows the object.
INSIDE = 128
# A check looks at so many pixels of an image's longer side.
LOOKS = 100
# Less than so much of a silhouette within the sphere is no slip of a mask.
LEAST = 0.5
# The hull is carved from a cube of so many cells a side, twice; a cell stays where so many of all views see it, and so
# many of these show it within the silhouette: masks are noisy.
CELLS, SEEING, AGREEING = 64, 0.8, 0.9
# The sphere's radius over that of the hull.
MARGIN = 1.1

log = logging.getLogger(__name__)


def check_object_masks(cameras: Cameras, files: ImageFiles, path: Path) -> None:
    """Raises `DataError` where a camera's rays miss the unit sphere, or most of a silhouette lies outside it.

    `path` names the cameras. Warns of silhouettes that cut nothing out, and of those that show nothing.
    """
    full, empty = 0, []
    for row, image in enumerate(files.paths):
        x, y = _grid(cameras, row)
        meets = _meets(cameras, row, x, y)
        if not bool(meets.any()):
            fix = "correct the cameras or the matrix of the sphere"
            raise DataError(path, f"sphere seen by {image.name}", "outside the image", "some of it inside", fix)
        silhouette = files.silhouettes[row]
        if silhouette is None:
            continue
        inside = _inside(silhouette)[y.long(), x.long()]
        share = float((inside & meets).sum() / inside.sum()) if bool(inside.any()) else 1.0
        if share < LEAST:
            fix = "correct the matrix of the sphere, or remove all such matrices: without, it is computed"
            raise DataError(silhouette, "silhouette within the unit sphere", f"{share:.0%}", "all of it", fix)
        full += bool(inside.all())
        empty += [] if bool(inside.any()) else [image.name]
    _warn(path, full, empty, len(files.paths))


def sphere_of_poses(c2w: Float[Tensor, "n 3 4"], reach: float) -> Frame:
    """The sphere about the point nearest to all optical axes, `reach` times as large as the nearest camera is far."""
    center = focus_point(c2w)
    nearest = float((c2w[:, :, 3] - center).norm(dim=-1).min())
    return Frame(torch.eye(3, dtype=c2w.dtype), center, reach * nearest if nearest > 0 else 1.0)


def sphere_of_hull(cameras: Cameras, files: ImageFiles, path: Path) -> Frame:
    """The sphere about the visual hull of silhouettes, seen from cameras in the world.

    Raises `DataError` where the silhouettes have no point in common.
    """
    masks = [_inside(silhouette) for silhouette in files.silhouettes if silhouette is not None]
    start = sphere_of_poses(cameras.c2w, 1.0)
    coarse, cell = _hull(cameras, masks, start.translation, start.scale, path)
    low, high = coarse.amin(0) - cell, coarse.amax(0) + cell
    fine, cell = _hull(cameras, masks, (low + high) / 2, float((high - low).max()) / 2, path)
    center = (fine.amin(0) + fine.amax(0)) / 2
    radius = MARGIN * (float((fine - center).norm(dim=-1).max()) + cell)
    log.info("%s: names no sphere; that of the silhouettes has its middle in %s, radius %g.", path, center, radius)
    return Frame(torch.eye(3, dtype=torch.float64), center.double(), radius)


def _hull(
    cameras: Cameras, masks: list[Bool[Tensor, "_ _"]], center: Float[Tensor, "3"], half: float, path: Path
) -> tuple[Float[Tensor, "p 3"], float]:
    """The middles of the cells of a cube that the silhouettes leave, and the side of a cell."""
    cells = _cells(center, half)
    left = cells[_carved(cells, cameras, masks)]
    if not len(left):
        fix = "correct the poses, or remove the masks and use --no-object-masks"
        raise DataError(path, "common volume of the silhouettes", "empty", "that of one object", fix)
    return left, 2 * half / CELLS


def _cells(center: Float[Tensor, "3"], half: float) -> Float[Tensor, "p 3"]:
    """The middles of the cells of a cube."""
    line = ((torch.arange(CELLS) + 0.5) / CELLS * 2 - 1) * half
    return torch.cartesian_prod(line, line, line) + center


def _carved(points: Float[Tensor, "p 3"], cameras: Cameras, masks: list[Bool[Tensor, "_ _"]]) -> Bool[Tensor, " p"]:
    """The points that most views see, nearly all of which show them within the silhouette."""
    seen, within = torch.zeros(len(points)), torch.zeros(len(points))
    for row, mask in enumerate(masks):
        pixel, depth = cameras[[row]].project(points)
        column, line = pixel[0].floor().unbind(-1)
        height, width = mask.shape
        shown = (depth[0] > 0) & (column >= 0) & (column < width) & (line >= 0) & (line < height)
        there = mask[line[shown].long(), column[shown].long()]
        seen += shown
        within[shown] += there.float()
    return (seen >= SEEING * len(masks)) & (within >= AGREEING * seen)


def _grid(cameras: Cameras, row: int) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Places all over an image [pixels]."""
    width, height = cameras.size[row].tolist()
    step = max(1, max(width, height) // LOOKS)
    y, x = torch.meshgrid(torch.arange(step // 2, height, step), torch.arange(step // 2, width, step), indexing="ij")
    return x.flatten() + 0.5, y.flatten() + 0.5


def _meets(cameras: Cameras, row: int, x: Float[Tensor, " p"], y: Float[Tensor, " p"]) -> Bool[Tensor, " p"]:
    """Which rays of a camera meet the unit sphere before it."""
    direction = normalize(cameras.directions(torch.full(x.shape, row), x, y))
    origin = cameras.positions[row]
    nearest = -(direction @ origin)
    distance = (origin + nearest[:, None] * direction).norm(dim=-1)
    return (distance < 1) & ((nearest > 0) | (origin.norm() < 1))


def _inside(path: Path) -> Bool[Tensor, "h w"]:
    return torch.from_numpy(read_gray(path) >= INSIDE)


def _warn(path: Path, full: int, empty: list[str], count: int) -> None:
    if full == count:
        text = (
            "%s: all silhouettes are white and cut nothing out; --no-object-masks takes the surroundings as they are."
        )
        log.warning(text, path.parent)
    if empty:
        log.warning("%s: %d of %d silhouettes are black (first: %s).", path.parent, len(empty), count, empty[0])
