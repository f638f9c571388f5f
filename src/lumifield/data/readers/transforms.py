"""instant-ngp and nerfstudio scenes: `transforms.json`, or one file per split, with intrinsics and distortion."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views, image_files, transforms_file
from lumifield.data.capture import CaptureFiles
from lumifield.data.pose_normalization import frame_to_float32, inward_frame
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import validate_number, validate_pose

LAYOUT = "transforms.json (instant-ngp, nerfstudio)"
OPTIONS = ("min_sharpness",)

NEAR, FAR_BOUNDED, FAR_UNBOUNDED = 0.05, 3.0, 100.0
# Number of neighbors on each side in the list for the mean sharpness.
NEIGHBORS = 3
CAMERA_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
Listing = dict[str, Any]
Kept = list[tuple[Listing, Path]]

log = logging.getLogger(__name__)


def matches(folder: Path) -> bool:
    """Whether there is a single file or one per split."""
    return (folder / "transforms.json").is_file() or transforms_file.find_split_file(folder) is not None


def open_files(source: Source) -> CaptureFiles:
    """Splits with a file or a list of file names in `transforms.json`; else those of the hold-out.

    The scene frame is computed from all listed poses of the single file, or of the training file, whether their images
    exist or not.
    """
    if not 0 <= source.min_sharpness < 1:
        found, expected = f"{source.min_sharpness:g}", "0 to below 1"
        raise DataError(source.data, "min_sharpness", found, expected, "correct it")
    single = source.data / "transforms.json"
    if single.is_file():
        return _open_single(source, single)

    @cache
    def listing(split: str) -> tuple[Path, Listing]:
        path = source.data / f"transforms_{split}.json"
        return path, transforms_file.load_listing(path)

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        path, content = listing(split)
        kept = transforms_file.existing_frames(path, content["frames"])
        return _scene(source, split, path, content, kept, _scene_frame(*listing("train")))

    return CaptureFiles(transforms_file.split_files(source), locate)


def _open_single(source: Source, path: Path) -> CaptureFiles:
    content = transforms_file.load_listing(path)
    named = tuple(split for split in transforms_file.SPLITS if f"{split}_filenames" in content)
    if named:
        held_out_views.reject_hold_out(source, path)

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        kept = _select_frames(source, split, path, content)
        return _scene(source, split, path, content, kept, _scene_frame(path, content))

    rule = f"the data's own {{split}}_filenames in {path.name}" if named else None
    return CaptureFiles(named or held_out_views.split_names(source), locate, rule)


def _scene(
    source: Source, split: str, path: Path, content: Listing, kept: Kept, frame: Frame
) -> tuple[Scene, image_files.ImageFiles]:
    if split == "train" and source.min_sharpness:
        kept = _select_sharp(path, kept, source.min_sharpness)
    chosen = [frame for frame, _ in kept]
    files = image_files.read_headers([image for _, image in kept], [_mask(path, frame) for frame in chosen])
    lenses = [_intrinsics(path, content | one, size) for one, size in zip(chosen, files.sizes, strict=True)]
    focal, center, distortion = torch.tensor(lenses).split([2, 2, 4], -1)
    scene = Scene(
        cameras=Cameras(
            c2w=frame.poses_to_scene(_world_poses(path, content, chosen)).float(),
            focal=focal,
            center=center,
            size=torch.tensor(files.sizes),
            distortion=distortion,
        ).resized(1 / source.downscale),
        names=tuple(one["file_path"].removeprefix("./") for one in chosen),
        near=torch.full((len(kept),), NEAR),
        far=torch.full((len(kept),), FAR_BOUNDED if files.alpha else FAR_UNBOUNDED),
        box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        frame=frame_to_float32(frame),
        background=image_files.resolve_background(files, source.background),
        unbounded=not files.alpha,
    )
    return scene, files


def _select_frames(source: Source, split: str, path: Path, content: Listing) -> Kept:
    """Frames of a split of a single file with their images, sorted by name."""
    listed = sorted(content["frames"], key=lambda frame: frame["file_path"])
    names = content.get(f"{split}_filenames")
    if names is not None:
        listed = [frame for frame in listed if frame["file_path"] in set(names)]
        if not listed:
            raise DataError(path, f"{split}_filenames", "empty", "file_path of at least one frame", "list them")
        return transforms_file.existing_frames(path, listed)
    kept = transforms_file.existing_frames(path, listed)
    positions = transforms_file.frame_poses(path, [frame for frame, _ in kept])[:, :, 3]
    return [kept[row] for row in held_out_views.split_rows(source, split, positions)]


def _select_sharp(path: Path, kept: Kept, min_sharpness: float) -> Kept:
    """Frames whose `sharpness` relative to the mean over themselves and their neighbors is at least `min_sharpness`."""
    values = [
        validate_number(frame.get("sharpness"), path, f"sharpness of {frame['file_path']}", positive=True)
        for frame, _ in kept
    ]
    means = [fmean(values[max(row - NEIGHBORS, 0) : row + NEIGHBORS + 1]) for row in range(len(values))]
    sharp = [one for one, value, mean in zip(kept, values, means, strict=True) if value >= min_sharpness * mean]
    log.info("%s: %d of %d training images are blurred and omitted.", path, len(kept) - len(sharp), len(kept))
    return sharp


def _scene_frame(path: Path, content: Listing) -> Frame:
    """Origin at the point nearest to all optical axes, +z up, the farthest camera at distance 1."""
    return inward_frame(_world_poses(path, content, content["frames"]))


def _world_poses(path: Path, content: Listing, listed: list[Listing]) -> Float[Tensor, "n 3 4"]:
    """Poses in the original world: inverts `file = applied_scale * applied_transform @ original` of nerfstudio."""
    scale = validate_number(content.get("applied_scale", 1.0), path, "applied_scale", positive=True)
    poses = transforms_file.frame_poses(path, listed)
    applied = content.get("applied_transform")
    if applied is None:
        applied = torch.eye(3, 4, dtype=torch.float64).tolist()
    matrix = validate_pose(applied, path, "applied_transform")
    return Frame(matrix[:, :3], matrix[:, 3] * scale, scale).poses_to_scene(poses)


def _intrinsics(path: Path, values: Listing, size: tuple[int, int]) -> list[float]:
    """`fx fy cx cy k1 k2 p1 p2` of a frame with an image of `size` (width, height) [pixels]."""
    where = f"of {values['file_path']}"

    def number(key: str, otherwise: float | int | None = None, *, positive: bool = False) -> float:
        return validate_number(values.get(key, otherwise), path, f"{key} {where}", positive=positive)

    for key, found in zip(("w", "h"), size, strict=True):
        stated = number(key, found, positive=True)
        if round(stated) != found:
            raise DataError(
                path, f"{key} {where}", f"{stated:g}", f"the image's {found}", "give the size of the images"
            )
    _check_lens(path, values, where)
    if "fl_x" not in values and "camera_angle_x" not in values:
        raise DataError(path, f"fl_x {where}", "missing", "fl_x or camera_angle_x", "add the focal length")
    fx = number("fl_x", positive=True) if "fl_x" in values else transforms_file.focal_from_angle(path, values, size[0])
    fy = number("fl_y", positive=True) if "fl_y" in values else fx
    center = [number("cx", size[0] / 2), number("cy", size[1] / 2)]
    return [fx, fy, *center, *(number(key, 0.0) for key in ("k1", "k2", "p1", "p2"))]


def _check_lens(path: Path, values: Listing, where: str) -> None:
    """Raises `DataError` for a camera model other than perspective with `k1 k2 p1 p2`."""
    model = values.get("camera_model", "OPENCV")
    if model not in CAMERA_MODELS or values.get("is_fisheye"):
        found = model if model not in CAMERA_MODELS else "fisheye"
        raise DataError(path, f"camera_model {where}", found, "a perspective camera", "undistort the images first")
    for key in ("k3", "k4"):
        if values.get(key, 0) != 0:
            raise DataError(path, f"{key} {where}", repr(values[key]), "0", "undistort the images first")


def _mask(path: Path, frame: Listing) -> Path | None:
    return path.parent / frame["mask_path"] if frame.get("mask_path") else None
