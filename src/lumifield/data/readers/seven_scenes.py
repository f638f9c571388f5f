"""7-Scenes: indoor RGB-D video frames with poses, in sequences with split lists, or in one folder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views, image_files, transforms_file
from lumifield.data.capture import CaptureFiles
from lumifield.data.pose_normalization import frame_to_float32
from lumifield.data.scene import Scene
from lumifield.data.sparse_reconstruction import BOUND_PERCENTILES, NEAR_MARGIN, core_frame
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import validate_pose

LAYOUT = "frame-*.pose.txt or TrainSplit.txt (7-Scenes)"
OPTIONS = ("focal",)

# Focal length of the color camera for its image width [pixels]; the published 585 is that of the depth camera.
FOCAL, WIDTH = 525.0, 640
INVALID = (0, 65535)
MILLIMETER = 1e-3
# Range of the depth camera, used if no frame has depth [m].
RANGE = (0.3, 5.0)
FAR_MARGIN = 1.1
# Sampled rows and columns of a depth image.
DEPTH_SAMPLES = 40


@dataclass(frozen=True)
class VideoFrame:
    """Files of a video frame."""

    image: Path
    pose: Path
    depth: Path | None


def matches(folder: Path) -> bool:
    """Whether a split has a list, or the folder has poses."""
    has_list = any((folder / f"{split}Split.txt").is_file() for split in ("Train", "Synthesis"))
    return has_list or any(folder.glob("frame-*.pose.txt"))


def open_files(source: Source) -> CaptureFiles:
    """Splits with a list, or of a hold-out in a single folder; `synthesis` contains rendered views.

    Scene frame, region of interest and bounds follow from poses and depth of the training frames only, if there are
    any.
    """
    if source.focal is not None and not 0 < source.focal < math.inf:
        raise DataError(source.data, "focal", f"{source.focal:g}", "a positive number", "correct it")
    frames_in = cache(lambda folder: _frames(source.data, folder))
    splits = _splits(source, frames_in)

    @cache
    def frames_of(split: str) -> list[VideoFrame]:
        path = _list(source, split)
        if path.is_file():
            return [frame for sequence in _sequences(path) for frame in frames_in(source.data / sequence)]
        everything = frames_in(source.data)
        return [everything[row] for row in _held_out_rows(source, everything, split)]

    measured = cache(lambda split: _measure_depth(source, frames_of(split)))

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        reference = "train" if "train" in splits else split
        return _scene(source, frames_of(split), _poses(frames_of(reference)), measured(reference), split == reference)

    return CaptureFiles(splits, locate)


def _splits(source: Source, frames_in: Callable[[Path], list[VideoFrame]]) -> tuple[str, ...]:
    listed = tuple(split for split in ("train", "test") if _list(source, split).is_file())
    synthesis = ("synthesis",) if _list(source, "synthesis").is_file() else ()
    if listed:
        held_out_views.reject_hold_out(source, _list(source, listed[0]))
        return listed + synthesis
    if synthesis and not any(source.data.glob("frame-*.pose.txt")):
        return synthesis
    if _is_split_by_depth(source, frames_in(source.data)):
        return ("train", "val", "test", *synthesis)
    return held_out_views.split_names(source) + synthesis


def _scene(
    source: Source,
    frames: list[VideoFrame],
    reference_poses: Float[Tensor, "n 3 4"],
    measured: _Measured,
    is_reference: bool,
) -> tuple[Scene, image_files.ImageFiles]:
    files = image_files.read_headers([frame.image for frame in frames])
    frame = core_frame(reference_poses, measured.points)
    own = measured.bounds if is_reference else torch.full((len(frames), 2), torch.nan)
    near, far = torch.where(own.isnan(), measured.widest, own).unbind(-1)
    scene = Scene(
        cameras=_cameras(source, frame.poses_to_scene(_poses(frames)), files.sizes).resized(1 / source.downscale),
        names=tuple(frame.image.relative_to(source.data).as_posix() for frame in frames),
        near=(near / frame.scale).float(),
        far=(far / frame.scale).float(),
        box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        frame=frame_to_float32(frame),
        background=image_files.resolve_background(files, source.background),
        unbounded=True,
    )
    return scene, files


def _sequences(path: Path) -> list[str]:
    """Folders that a list names: `sequence1` is `seq-01`."""
    folders = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"sequence\s*(\d+)", line.strip())
        if match is None:
            raise DataError(path, f"line {number}", repr(line.strip()), "sequence and a number", "correct or remove it")
        folders.append(f"seq-{int(match[1]):02d}")
    if not folders:
        raise DataError(path, "list", "empty", "at least one sequence", "name the sequences of this split")
    return folders


def _frames(root: Path, folder: Path) -> list[VideoFrame]:
    """Frames of a folder with a pose and an image; depth of the fused mesh is preferred to that of the sensor."""
    listed = [
        {"file_path": path.name.removesuffix(".pose.txt") + ".color", "pose": path} for path in _pose_files(folder)
    ]
    frames = []
    for listed_frame, image in transforms_file.existing_frames(folder / "frame-*.color.png", listed):
        name = listed_frame["file_path"].removesuffix(".color")
        sensor = folder / f"{name}.depth.png"
        depth = _mesh_depth(root, folder.name, name) or (sensor if sensor.is_file() else None)
        frames.append(VideoFrame(image, listed_frame["pose"], depth))
    return frames


def _pose_files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("frame-*.pose.txt"))
    if not found:
        raise DataError(folder, "poses", "missing", "files like frame-000000.pose.txt", "unpack the sequence")
    return found


def _mesh_depth(root: Path, sequence: str, name: str) -> Path | None:
    """Depth of the fused mesh in the color camera, if it was unpacked next to or into the scene."""
    for place in (root, root.parent / f"7scenes_{root.name}"):
        for split in ("train", "test"):
            path = place / split / "depth" / f"{sequence}_{name}.pose.depth.tiff"
            if path.is_file():
                return path
    return None


def _held_out_rows(source: Source, frames: list[VideoFrame], split: str) -> list[int]:
    """Rows of a split of a folder without lists.

    If only some frames have depth, these are the test split, and every 8th other one is val.
    """
    if not _is_split_by_depth(source, frames):
        return held_out_views.split_rows(source, split, _poses(frames)[:, :, 3])
    others = [row for row, frame in enumerate(frames) if frame.depth is None]
    match split:
        case "test":
            return [row for row, frame in enumerate(frames) if frame.depth is not None]
        case "val":
            return others[:: held_out_views.HOLD_OUT_EVERY]
        case _:
            return [row for place, row in enumerate(others) if place % held_out_views.HOLD_OUT_EVERY]


def _is_split_by_depth(source: Source, frames: list[VideoFrame]) -> bool:
    with_depth = sum(frame.depth is not None for frame in frames)
    return source.hold_out == "auto" and 0 < with_depth < len(_pose_files(source.data))


def _poses(frames: list[VideoFrame]) -> Float[Tensor, "n 3 4"]:
    return torch.stack([validate_pose(_table(frame.pose), frame.pose, "pose") for frame in frames])


def _table(path: Path) -> list[list[float]] | None:
    try:
        return [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except ValueError:
        return None


def _cameras(source: Source, c2w: Float[Tensor, "n 3 4"], sizes: tuple[tuple[int, int], ...]) -> Cameras:
    """Pinhole cameras with the principal point at the image center."""
    size = torch.tensor(sizes)
    focal = size[:, :1] * (FOCAL / WIDTH) if source.focal is None else torch.full((len(size), 1), source.focal)
    return Cameras(c2w.float(), focal.expand(-1, 2).float(), size / 2, size, torch.zeros(len(size), 4))


@dataclass(frozen=True)
class _Measured:
    """Points, near and far of each frame (NaN without depth), and the widest bounds, from depth [m]."""

    points: Float[Tensor, "p 3"]
    bounds: Float[Tensor, "n 2"]
    widest: Float[Tensor, "2"]


def _measure_depth(source: Source, frames: list[VideoFrame]) -> _Measured:
    """Points and bounds from depth; without depth, from the optical axes and the range of the sensor."""
    poses = _poses(frames)
    bounds = torch.full((len(frames), 2), torch.nan, dtype=torch.float64)
    points = []
    for row, frame in enumerate(frames):
        local = _depth_points(source, frame) if frame.depth is not None else torch.zeros(0, 3, dtype=torch.float64)
        if len(local) == 0:
            continue
        near, far = np.percentile(local.norm(dim=-1).numpy(), BOUND_PERCENTILES)
        bounds[row] = torch.tensor([NEAR_MARGIN * near, FAR_MARGIN * far])
        points.append(local @ poses[row, :, :3].T + poses[row, :, 3])
    if not points:
        along = torch.linspace(*RANGE, 16, dtype=torch.float64)
        axes = poses[:, None, :, 3] + along[:, None] * poses[:, None, :, 2]
        return _Measured(axes.reshape(-1, 3), bounds, torch.tensor(RANGE, dtype=torch.float64))
    known = bounds[~bounds.isnan().any(-1)]
    return _Measured(torch.cat(points), bounds, torch.stack([known[:, 0].min(), known[:, 1].max()]))


def _depth_points(source: Source, frame: VideoFrame) -> Float[Tensor, "p 3"]:
    """Evenly sampled depth points of a frame in camera coordinates [m]."""
    assert frame.depth is not None
    depth = image_files.read_single_channel(frame.depth)
    rows, columns = (slice(side // DEPTH_SAMPLES // 2, None, max(side // DEPTH_SAMPLES, 1)) for side in depth.shape)
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]][:, rows, columns] + 0.5
    z = depth[rows, columns] * MILLIMETER
    valid = ~np.isin(depth[rows, columns], INVALID) & np.isfinite(z)
    camera = _cameras(source, torch.eye(3, 4)[None], (depth.shape[::-1],))
    center, focal = camera.center[0].numpy(), camera.focal[0].numpy()
    local = np.stack([(u - center[0]) / focal[0] * z, (v - center[1]) / focal[1] * z, z], -1)
    return torch.from_numpy(local[valid])


def _list(source: Source, split: str) -> Path:
    return source.data / f"{split.capitalize()}Split.txt"
