"""LLFF scenes: `poses_bounds.npy` and images in `images` or `images_K`, forward-facing or around an object."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views, image_files
from lumifield.data.capture import CaptureFiles
from lumifield.data.npy_files import load_array, validate_bounds
from lumifield.data.pose_normalization import forward_frame, frame_to_float32, inward_frame, inward_near
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import normalize, validate_number, validate_pose
from lumifield.geometry.rays import Ndc, Rays, warp_rays_to_ndc

LAYOUT = "poses_bounds.npy (LLFF)"
OPTIONS = ("layout",)

COLUMNS = 17
# World units per scene unit relative to the minimum depth, which becomes 4/3 scene units, behind the near plane at 1.
UNIT_PER_MIN_DEPTH = 0.75
FORWARD_COSINE = math.cos(math.radians(45))
INWARD_FAR = 100.0
BOX_MARGIN = 0.01

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PosesBounds:
    """Content of `poses_bounds.npy`: full-size cameras in its world, and near and far depth of each image."""

    path: Path
    cameras: Cameras
    bounds: Float[Tensor, "n 2"]


@dataclass(frozen=True)
class ImageFolder:
    """Image files, their downscale factor relative to the stated size, and the requested factor."""

    paths: list[Path]
    factor: int
    requested: int


def matches(folder: Path) -> bool:
    """Whether there are poses and bounds."""
    return (folder / "poses_bounds.npy").is_file()


def open_files(source: Source) -> CaptureFiles:
    """Splits of a hold-out; the scene frame is computed from all poses."""
    poses = load_llff(source.data / "poses_bounds.npy")

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        folder = _folder(source, len(poses.cameras))
        rows = held_out_views.split_rows(source, split, poses.cameras.positions)
        files = image_files.read_headers([folder.paths[row] for row in rows])
        sized = _sized(poses.cameras[rows], files, folder)
        names = tuple(path.name for path in files.paths)
        background = image_files.resolve_background(files, source.background)
        if _faces_forward(source, poses):
            training = held_out_views.split_rows(source, "train", poses.cameras.positions)
            scene = _forward_scene(poses, sized, folder.requested, training)
        else:
            scene = _inward_scene(poses, sized, rows)
        return replace(scene, names=names, background=background), files

    return CaptureFiles(held_out_views.split_names(source), locate)


def load_llff(path: Path) -> PosesBounds:
    """Reads `poses_bounds.npy`: per image a row-major 3x5 block and the nearest and farthest depth.

    The columns of the block are down, right, back, position and (H, W, f). Raises `DataError` for another shape, and
    for a pose, size, focal length or bound that cannot be.
    """
    table = _table(path)
    blocks = table[:, :15].reshape(-1, 3, 5)
    down, right, back, position, hwf = np.moveaxis(blocks, -1, 0)
    matrices = np.stack([right, down, -back, position], -1)
    for row, (h, w, f) in enumerate(hwf.tolist()):
        for value, field in ((h, "height"), (w, "width"), (f, "focal length")):
            validate_number(value, path, f"{field} in row {row}", positive=True)
    size = torch.from_numpy(hwf[:, [1, 0]].copy())
    full = Cameras(
        c2w=torch.stack([validate_pose(m, path, f"pose in row {row}") for row, m in enumerate(matrices)]),
        focal=torch.from_numpy(hwf[:, 2:].repeat(2, 1)),
        center=size / 2,
        size=size.round().long(),
        distortion=torch.zeros(len(table), 4),
    )
    return PosesBounds(path, full, validate_bounds(table[:, 15:], path))


def _table(path: Path) -> Float[np.ndarray, "n 17"]:
    table = load_array(path, "the poses of an LLFF scene")
    usable = table.ndim == 2 and table.shape[1] == COLUMNS and len(table) > 0
    if not usable or not np.issubdtype(table.dtype, np.number):
        raise DataError(
            path,
            "array",
            f"of shape {table.shape}",
            f"N rows of {COLUMNS} numbers (3x5 pose with size and focal length, near, far)",
            "write it again with LLFF's image-to-poses script",
        )
    return table.astype(np.float64)


def _folder(source: Source, count: int) -> ImageFolder:
    """`images_K` for downscale K, else the next larger images."""
    factors = {1: source.data / "images"}
    for path in source.data.glob("images_*"):
        if match := re.fullmatch(r"images_([1-9]\d*)", path.name):
            factors[int(match[1])] = path
    there = {k: files for k, path in factors.items() if path.is_dir() and (files := image_files.list_images(path))}
    if not there:
        raise DataError(source.data, "images", "missing or empty", "images or images_K", "restore the images")
    asked = source.downscale
    if asked == 1 and 1 not in there:
        asked = min(there)
        log.info("%s has no full-size images: reading those of images_%d.", source.data, asked)
    factor = asked if asked in there else max((k for k in there if k <= asked), default=0)
    if factor == 0:
        raise DataError(source.data, "downscale", str(asked), f"{min(there)} or more for these folders", "raise it")
    paths = there[factor]
    if len(paths) != count:
        raise DataError(
            paths[0].parent,
            "number of images",
            str(len(paths)),
            f"{count}, one for each row of poses_bounds.npy",
            "restore the images that were posed and remove all others",
        )
    return ImageFolder(paths, factor, asked)


def _sized(full: Cameras, files: image_files.ImageFiles, folder: ImageFolder) -> Cameras:
    """Cameras of the downscaled images; raises `DataError` if images have another size than stated."""
    there = torch.tensor(files.sizes)
    off = ((there - full.size / folder.factor).abs() > 1).any(-1)
    if bool(off.any()):
        row = int(off.nonzero()[0, 0])
        width, height = full.size[row].tolist()
        raise DataError(
            files.paths[row],
            "image size",
            "x".join(map(str, files.sizes[row])),
            f"{width / folder.factor:g}x{height / folder.factor:g} (poses_bounds.npy states {width}x{height})",
            "give poses_bounds.npy the height, width and focal length of the images in images",
        )
    size = (there * (folder.factor / folder.requested)).round().long()
    return Cameras(
        c2w=full.c2w,
        focal=(full.focal * size / full.size).float(),
        center=size / 2,
        size=size,
        distortion=full.distortion,
    )


def _faces_forward(source: Source, poses: PosesBounds) -> bool:
    """Whether the layout is forward-facing: as set, or if all cameras look into one hemisphere."""
    mean = normalize(poses.cameras.forward.mean(0))
    ahead = bool((_corners(poses.cameras) @ mean > 0).all())
    if source.layout == "forward" and not ahead:
        raise DataError(
            poses.path,
            "layout",
            "forward with cameras that face sideways or back",
            "cameras that all face one way",
            "use layout inward",
        )
    if source.layout != "auto":
        return source.layout == "forward"
    return ahead and bool((poses.cameras.forward @ mean > FORWARD_COSINE).all())


def _corners(full: Cameras) -> Float[Tensor, "n 4 3"]:
    """Directions through the four corners of each image."""
    n = len(full)
    share = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.float64)
    x, y = (full.size[:, None] * share).unbind(-1)
    return full.directions(torch.arange(n)[:, None].expand(n, 4), x, y)


def _forward_scene(poses: PosesBounds, sized: Cameras, factor: int, training: list[int]) -> Scene:
    frame = forward_frame(poses.cameras.c2w, UNIT_PER_MIN_DEPTH * float(poses.bounds.min()))
    first = poses.cameras[[0]].resized(1 / factor)
    width, height = first.size[0].tolist()
    fx, fy = first.focal[0].tolist()
    ndc = Ndc((fx, fy), (width, height))
    n = len(sized)
    return Scene(
        cameras=_placed(sized, frame),
        names=(),
        near=torch.zeros(n),
        far=torch.ones(n),
        box=_ndc_box(_placed(poses.cameras[training], frame), ndc),
        frame=frame_to_float32(frame),
        ndc=ndc,
    )


def _inward_scene(poses: PosesBounds, sized: Cameras, rows: list[int]) -> Scene:
    frame = inward_frame(poses.cameras.c2w)
    n = len(sized)
    return Scene(
        cameras=_placed(sized, frame),
        names=(),
        near=(inward_near(poses.cameras.c2w, poses.bounds[:, 0])[rows] / frame.scale).float(),
        far=torch.full((n,), INWARD_FAR),
        box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        frame=frame_to_float32(frame),
        unbounded=True,
    )


def _placed(world: Cameras, frame: Frame) -> Cameras:
    return replace(world, c2w=frame.poses_to_scene(world.c2w).float())


def _ndc_box(full: Cameras, ndc: Ndc) -> Float[Tensor, "2 3"]:
    """Padded bounding box of the rays of all images from the near plane to infinity."""
    directions = _corners(full).reshape(-1, 3).float()
    one = torch.ones(len(directions))
    origins = full.positions.repeat_interleave(4, 0)
    rays = warp_rays_to_ndc(Rays(origins, directions, directions, one, one, one, one.long(), origins[:, :2]), ndc)
    ends = torch.cat([rays.origins, rays.origins + rays.directions])
    lower, upper = ends.amin(0), ends.amax(0)
    margin = BOX_MARGIN * (upper - lower)
    return torch.stack([lower - margin, upper + margin])
