"""7-Scenes: frames of indoor videos with poses and depth, in sequences with lists of splits, or in one folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source, held_out_views, image_files, transforms_file
from lumifield.data.pose_normalization import frame_to_float32
from lumifield.data.reader import Reader
from lumifield.data.scene import Scene
from lumifield.data.sparse_reconstruction import BOUND_PERCENTILES, NEAR_MARGIN, core_frame
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import validate_pose

# The color camera's focal length for its width [pixels]; the nominal 585 of the data's page is the depth camera's.
FOCAL, WIDTH = 525.0, 640
INVALID = (0, 65535)
MILLIMETER = 1e-3
# Where no frame has depth: the range that the depth camera works in [m].
RANGE = (0.3, 5.0)
FAR_MARGIN = 1.1
# Rows and columns of a depth image that are looked at.
STRIDES = 40


@dataclass(frozen=True)
class VideoFrame:
    """The files of a frame of a video."""

    image: Path
    pose: Path
    depth: Path | None


def seven_scenes_splits(source: Source) -> tuple[str, ...]:
    """Those that have a list; in a single folder those of the hold-out. `synthesis` are views that nobody took."""
    listed = tuple(split for split in ("train", "test") if _list(source, split).is_file())
    synthesis = ("synthesis",) if _list(source, "synthesis").is_file() else ()
    if listed:
        held_out_views.reject_hold_out(source, _list(source, listed[0]))
        return listed + synthesis
    if synthesis and not any(source.data.glob("frame-*.pose.txt")):
        return synthesis
    return (("train", "val", "test") if _judged_by_depth(source) else held_out_views.split_names(source)) + synthesis


def seven_scenes_cameras(source: Source, split: str) -> tuple[Scene, image_files.ImageFiles]:
    """One split without its pixels, and the files that hold them.

    Scene frame, region and bounds follow from poses and depth of the training frames alone, where there are any.
    """
    ruling = "train" if "train" in seven_scenes_splits(source) else split
    training = _shots(source, ruling)
    shots = training if split == ruling else _shots(source, split)
    files = image_files.read_headers([shot.image for shot in shots])
    measured = _measured(source, training)
    frame = core_frame(_poses(training), measured.points)
    own = measured.bounds if split == ruling else torch.full((len(shots), 2), torch.nan)
    near, far = torch.where(own.isnan(), measured.widest, own).unbind(-1)
    scene = Scene(
        cameras=_lenses(source, frame.poses_to_scene(_poses(shots)), files.sizes).resized(1 / source.downscale),
        names=tuple(shot.image.relative_to(source.data).as_posix() for shot in shots),
        near=(near / frame.scale).float(),
        far=(far / frame.scale).float(),
        box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        frame=frame_to_float32(frame),
        background=image_files.resolve_background(files, source.background),
        unbounded=True,
    )
    return scene, files


def _shots(source: Source, split: str) -> list[VideoFrame]:
    """The frames of a split, in the order of their numbers."""
    path = _list(source, split)
    if not path.is_file():
        everything = _frames(source.data, source.data)
        return [everything[row] for row in _held(source, everything, split)]
    return [shot for sequence in _sequences(path) for shot in _frames(source.data, source.data / sequence)]


def _sequences(path: Path) -> list[str]:
    """The folders that a list names: `sequence1` is `seq-01`."""
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
    """The frames of a folder that have a pose and an image; depth of the mesh goes before that of the sensor."""
    listed = [
        {"file_path": path.name.removesuffix(".pose.txt") + ".color", "pose": path} for path in _pose_files(folder)
    ]
    shots = []
    for frame, image in transforms_file.existing_frames(folder / "frame-*.color.png", listed):
        name = frame["file_path"].removesuffix(".color")
        sensor = folder / f"{name}.depth.png"
        depth = _rendered(root, folder.name, name) or (sensor if sensor.is_file() else None)
        shots.append(VideoFrame(image, frame["pose"], depth))
    return shots


def _pose_files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("frame-*.pose.txt"))
    if not found:
        raise DataError(folder, "poses", "missing", "frame-000000.pose.txt and its like", "unpack the sequence")
    return found


def _rendered(root: Path, sequence: str, name: str) -> Path | None:
    """The depth of the fused mesh as seen by the color camera, where it has been unpacked beside or into the scene."""
    for place in (root, root.parent / f"7scenes_{root.name}"):
        for split in ("train", "test"):
            path = place / split / "depth" / f"{sequence}_{name}.pose.depth.tiff"
            if path.is_file():
                return path
    return None


def _held(source: Source, shots: list[VideoFrame], split: str) -> list[int]:
    """The rows of a split of a folder without lists.

    Where only some frames have depth these are the test, as their truth is known; every eighth other one is val.
    """
    if not _judged_by_depth(source):
        return held_out_views.split_rows(source, split, _poses(shots)[:, :, 3])
    others = [row for row, shot in enumerate(shots) if shot.depth is None]
    match split:
        case "test":
            return [row for row, shot in enumerate(shots) if shot.depth is not None]
        case "val":
            return others[:: held_out_views.HOLD_OUT_EVERY]
        case _:
            return [row for place, row in enumerate(others) if place % held_out_views.HOLD_OUT_EVERY]


def _judged_by_depth(source: Source) -> bool:
    with_depth = sum(shot.depth is not None for shot in _frames(source.data, source.data))
    return source.hold_out == "auto" and 0 < with_depth < len(_pose_files(source.data))


def _poses(shots: list[VideoFrame]) -> Float[Tensor, "n 3 4"]:
    return torch.stack([validate_pose(_table(shot.pose), shot.pose, "pose") for shot in shots])


def _table(path: Path) -> list[list[float]] | None:
    try:
        return [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except ValueError:
        return None


def _lenses(source: Source, c2w: Float[Tensor, "n 3 4"], sizes: tuple[tuple[int, int], ...]) -> Cameras:
    """Pinholes that look through the middle of their images, whatever the size of these."""
    size = torch.tensor(sizes)
    focal = size[:, :1] * (FOCAL / WIDTH) if source.focal is None else torch.full((len(size), 1), source.focal)
    return Cameras(c2w.float(), focal.expand(-1, 2).float(), size / 2, size, torch.zeros(len(size), 4))


@dataclass(frozen=True)
class _Measured:
    """What the depth of the training frames says [m]: points, near and far of each frame (NaN where it has none), and
    the bounds that hold for all."""

    points: Float[Tensor, "p 3"]
    bounds: Float[Tensor, "n 2"]
    widest: Float[Tensor, "2"]


def _measured(source: Source, shots: list[VideoFrame]) -> _Measured:
    """Points and bounds by depth; where no frame has any, along the optical axes and by the range of the sensor."""
    poses = _poses(shots)
    bounds = torch.full((len(shots), 2), torch.nan, dtype=torch.float64)
    points = []
    for row, shot in enumerate(shots):
        local = _seen(source, shot) if shot.depth is not None else torch.zeros(0, 3, dtype=torch.float64)
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


def _seen(source: Source, shot: VideoFrame) -> Float[Tensor, "p 3"]:
    """Evenly chosen points that a frame's depth shows, in its own axes [m]."""
    assert shot.depth is not None
    depth = image_files.read_single_channel(shot.depth)
    rows, columns = (slice(side // STRIDES // 2, None, max(side // STRIDES, 1)) for side in depth.shape)
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]][:, rows, columns] + 0.5
    z = depth[rows, columns] * MILLIMETER
    valid = ~np.isin(depth[rows, columns], INVALID) & np.isfinite(z)
    camera = _lenses(source, torch.eye(3, 4)[None], (depth.shape[::-1],))
    middle, focal = camera.center[0].numpy(), camera.focal[0].numpy()
    local = np.stack([(u - middle[0]) / focal[0] * z, (v - middle[1]) / focal[1] * z, z], -1)
    return torch.from_numpy(local[valid])


def _list(source: Source, split: str) -> Path:
    return source.data / f"{split.capitalize()}Split.txt"


READER = Reader(splits=seven_scenes_splits, cameras=seven_scenes_cameras)
