"""Cameras for other programs: transforms.json, COLMAP text model, frusta for mesh viewers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from lumifield.data import open_capture
from lumifield.data.capture import Capture
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.export import CamerasExport
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import opengl_to_opencv
from lumifield.runtime.files import check_output, check_writable, replacing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

FORMATS = {".json": "transforms", "": "colmap", ".ply": "frusta"}
INTRINSICS_KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "p1", "p2")
RELATIVE_FRUSTUM_LENGTH = 0.1
"""Length of a frustum relative to the median distance of the cameras from their mean position."""
SPLIT_COLORS = {"train": (210, 40, 40), "val": (230, 150, 20), "test": (30, 90, 220), "novel": (40, 160, 60)}
FRUSTUM_FACES = np.array([[0, 2, 1], [0, 3, 2], [0, 4, 3], [0, 1, 4], [1, 2, 3], [1, 3, 4]])


@dataclass(frozen=True)
class WorldCameras:
    """Cameras of a split in world coordinates, with the paths of their images (names if the files are missing).

    `mask_paths` are the mask files of the images, None for those without.
    """

    cameras: Cameras
    image_paths: tuple[Path, ...]
    mask_paths: tuple[Path | None, ...]

    def __iter__(self) -> Iterator[tuple[Path, Cameras]]:
        return zip(self.image_paths, (self.cameras[[row]] for row in range(len(self.cameras))), strict=True)


def export_cameras(settings: CamerasExport, run: LoadedRun, out: Path) -> None:
    """Writes the cameras of a run in the requested format, or the one of the extension of `out`."""
    file_format = settings.format
    if file_format == "auto":
        check_output(out, tuple(FORMATS), ".json (transforms), .ply (frusta), or none for a folder (COLMAP)")
        file_format = FORMATS[out.suffix]
    splits = tuple(run.scenes) if settings.split is None else (settings.split,)
    full_size = open_full_size(run)
    split_cameras = {split: load_world_cameras(run, split, full_size) for split in splits}
    check_writable(out, folder=file_format == "colmap")
    match file_format:
        case "transforms":
            write_transforms(out, split_cameras, run.scenes["train"])
        case "colmap":
            write_colmap(out, split_cameras, None if run.source is None else run.source.data)
        case "frusta":
            write_frusta(out, {split: world.cameras for split, world in split_cameras.items()})


def open_full_size(run: LoadedRun) -> Capture | None:
    """The data of a run without downscaling; None if it is not available."""
    if run.source is None:
        return None
    try:
        return open_capture(replace(run.source, downscale=1))
    except DataError:
        return None


def load_world_cameras(run: LoadedRun, split: str, full_size: Capture | None) -> WorldCameras:
    """Cameras of a split at the full size of the images if these are available, else at the training size."""
    if split not in run.scenes:
        raise DataError(run.folder, "split", repr(split), f"one of {', '.join(run.scenes)}", "correct --split")
    if full_size is not None:
        try:
            scene, files = full_size.locate_images(split)
            return WorldCameras(to_world_cameras(scene), files.paths, files.masks)
        except DataError:
            pass
    scene = run.scenes[split]
    return WorldCameras(to_world_cameras(scene), tuple(map(Path, scene.names)), (None,) * len(scene))


def to_world_cameras(scene: Scene) -> Cameras:
    """Cameras of a scene in world coordinates, in double precision."""
    frame = Frame(scene.frame.rotation.double(), scene.frame.translation.double(), scene.frame.scale)
    return replace(scene.cameras, c2w=frame.poses_to_world(scene.cameras.c2w.double()))


def write_transforms(out: Path, split_cameras: dict[str, WorldCameras], scene: Scene) -> None:
    """Writes transforms.json of instant-ngp and nerfstudio with the images of each split."""
    frames = {}
    for world in split_cameras.values():
        for (image_path, camera), mask_path in zip(world, world.mask_paths, strict=True):
            pose = [*opengl_to_opencv(camera.c2w[0]).tolist(), [0.0, 0.0, 0.0, 1.0]]
            frame = {"file_path": relative_image_path(image_path, out), "transform_matrix": pose}
            mask = {} if mask_path is None else {"mask_path": relative_image_path(mask_path, out)}
            frames[image_path] = frame | transforms_intrinsics(camera) | mask
    first = next(iter(frames.values()))
    shared = {key: first[key] for key in INTRINSICS_KEYS if all(frame[key] == first[key] for frame in frames.values())}
    own = [{key: value for key, value in frame.items() if key not in shared} for frame in frames.values()]
    filenames = {
        f"{split}_filenames": [relative_image_path(path, out) for path in world.image_paths]
        for split, world in split_cameras.items()
    }
    content = {"camera_model": "OPENCV"} | shared | instant_ngp_region(scene) | filenames | {"frames": own}
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def transforms_intrinsics(camera: Cameras) -> dict[str, float | int]:
    """Intrinsics of a camera with the keys of transforms.json."""
    values = [*camera.focal[0].tolist(), *camera.center[0].tolist(), *camera.size[0].tolist()]
    return dict(zip(INTRINSICS_KEYS, [*values, *camera.distortion[0].tolist()], strict=True))


def instant_ngp_region(scene: Scene) -> dict[str, Any]:
    """Mapping of the region of interest to the unit cube of instant-ngp; empty for NDC scenes."""
    if scene.ndc is not None:
        return {}
    low, high = scene.box
    scale = 1 / (float((high - low).max()) * scene.frame.scale)
    offset = 0.5 - scale * scene.frame.to_world((low + high) / 2)
    return {"aabb_scale": 16 if scene.unbounded else 1, "scale": scale, "offset": offset.tolist()}


def relative_image_path(image_path: Path, out: Path) -> str:
    """Path of an image relative to the folder of `out`; a bare name is kept."""
    return os.path.relpath(image_path, out.parent) if image_path.is_file() else image_path.as_posix()


def write_colmap(out: Path, split_cameras: dict[str, WorldCameras], image_folder: Path | None) -> None:
    """Writes a COLMAP text model: cameras.txt, images.txt with names relative to `image_folder`, empty points3D.txt."""
    camera_ids: dict[str, int] = {}
    images = {}
    for world in split_cameras.values():
        for image_path, camera in world:
            camera_id = camera_ids.setdefault(format_colmap_camera(camera), len(camera_ids) + 1)
            is_below = image_folder is not None and image_path.is_relative_to(image_folder)
            name = image_path.relative_to(image_folder) if is_below else image_path  # type: ignore[arg-type]
            images.setdefault(name.as_posix(), f"{format_colmap_pose(camera.c2w[0])} {camera_id}")
    cameras = [f"{camera_id} {text}" for text, camera_id in camera_ids.items()]
    # Each image has a second line for its 2D points, which is empty here.
    image_lines = [f"{image_id} {text} {name}\n" for image_id, (name, text) in enumerate(images.items(), 1)]
    files = {
        "cameras.txt": ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]", *cameras],
        "images.txt": ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of POINTS2D[]", *image_lines],
        "points3D.txt": ["# POINT3D_ID X Y Z R G B ERROR TRACK[]"],
    }
    for name, lines in files.items():
        with replacing(out / name) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def format_colmap_camera(camera: Cameras) -> str:
    """Model, size and parameters of a camera in COLMAP notation."""
    values = [*camera.focal[0].tolist(), *camera.center[0].tolist()]
    model = "PINHOLE"
    if bool(camera.distortion.any()):
        model, values = "OPENCV", [*values, *camera.distortion[0].tolist()]
    width, height = camera.size[0].tolist()
    return f"{model} {width} {height} {' '.join(f'{value:.9g}' for value in values)}"


def format_colmap_pose(c2w: Float[Tensor, "3 4"]) -> str:
    """Quaternion (w x y z) and translation, world to camera."""
    rotation = c2w[:, :3].T
    x, y, z, w = Rotation.from_matrix(rotation.numpy()).as_quat()
    return " ".join(f"{value:.12g}" for value in (w, x, y, z, *(-rotation @ c2w[:, 3]).tolist()))


def write_frusta(out: Path, cameras: dict[str, Cameras]) -> None:
    """Writes a frustum per camera as PLY: apex at the camera center, base with the aspect ratio, color of the split."""
    import trimesh  # half a second to import, and only this function needs it

    positions = torch.cat([split_cameras.positions for split_cameras in cameras.values()])
    median_distance = (positions - positions.mean(0)).norm(dim=-1).median()
    length = RELATIVE_FRUSTUM_LENGTH * float(median_distance) if median_distance > 0 else 1.0
    corners, colors = [], []
    for split, split_cameras in cameras.items():
        corners += [frustum_corners(split_cameras[[row]], length) for row in range(len(split_cameras))]
        colors += [SPLIT_COLORS.get(split, (0, 0, 0))] * (5 * len(split_cameras))
    faces = np.concatenate([FRUSTUM_FACES + 5 * row for row in range(len(corners))])
    mesh = trimesh.Trimesh(torch.cat(corners).numpy(), faces, vertex_colors=colors, process=False)
    with replacing(out) as temporary:
        mesh.export(temporary, file_type="ply")


def frustum_corners(camera: Cameras, length: float) -> Float[Tensor, "5 3"]:
    """Apex and base corners of a frustum, from the top left, with its base at `length` along the optical axis."""
    width, height = camera.size[0].tolist()
    x, y = torch.tensor([[0.0, width, width, 0.0], [0.0, 0.0, height, height]])
    directions = camera.directions(torch.zeros(4, dtype=torch.int64), x, y)
    return camera.positions + length * torch.cat([torch.zeros_like(directions[:1]), directions])
