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

from lumifield import data
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.export import CamerasExport
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import opengl_to_opencv
from lumifield.runtime.files import check_output, check_writable, replacing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

FORMATS = {".json": "transforms", "": "colmap", ".ply": "frusta"}
LENS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "p1", "p2")
FRUSTUM_SHARE = 0.1
SPLIT_COLORS = {"train": (210, 40, 40), "val": (230, 150, 20), "test": (30, 90, 220), "novel": (40, 160, 60)}


@dataclass(frozen=True)
class WorldCameras:
    """Cameras of a split in world coordinates, with their image files (or names if the files are gone).

    `masks` are mask files of the images, None for those without.
    """

    cameras: Cameras
    photographs: tuple[Path, ...]
    masks: tuple[Path | None, ...]

    def __iter__(self) -> Iterator[tuple[Path, Cameras]]:
        return zip(self.photographs, (self.cameras[[row]] for row in range(len(self.cameras))), strict=True)


def write_cameras(settings: CamerasExport, run: LoadedRun, out: Path) -> None:
    """Writes the cameras of a run in the requested format, or the one of the extension of `out`."""
    chosen = settings.format
    if chosen == "auto":
        check_output(out, tuple(FORMATS), ".json (transforms), .ply (frusta), or none for a folder (COLMAP)")
        chosen = FORMATS[out.suffix]
    splits = tuple(run.scenes) if settings.split is None else (settings.split,)
    shots = {split: world_cameras_of(run, split) for split in splits}
    check_writable(out, folder=chosen == "colmap")
    match chosen:
        case "transforms":
            write_transforms(out, shots, run.scenes["train"])
        case "colmap":
            write_colmap(out, shots, None if run.source is None else run.source.data)
        case "frusta":
            write_frusta(out, {split: one.cameras for split, one in shots.items()})


def world_cameras_of(run: LoadedRun, split: str) -> WorldCameras:
    """Cameras of a split at the full size of the images if these are available, else as trained on."""
    if split not in run.scenes:
        known = ", ".join(run.scenes)
        raise DataError(run.folder, "split", repr(split), f"one of {known}", "choose one of these")
    if run.source is not None:
        try:
            scene, files = data.locate_images(replace(run.source, downscale=1), split)
            return WorldCameras(to_world_cameras(scene), files.paths, files.masks)
        except DataError:
            pass
    scene = run.scenes[split]
    return WorldCameras(to_world_cameras(scene), tuple(map(Path, scene.names)), (None,) * len(scene))


def to_world_cameras(scene: Scene) -> Cameras:
    """Cameras of a scene in world coordinates, in double precision."""
    frame = Frame(scene.frame.rotation.double(), scene.frame.translation.double(), scene.frame.scale)
    return replace(scene.cameras, c2w=frame.poses_to_world(scene.cameras.c2w.double()))


def write_transforms(out: Path, shots: dict[str, WorldCameras], scene: Scene) -> None:
    """A transforms.json of instant-ngp and nerfstudio with the images of each split."""
    frames = {}
    for one in shots.values():
        for (photograph, camera), mask in zip(one, one.masks, strict=True):
            pose = [*opengl_to_opencv(camera.c2w[0]).tolist(), [0.0, 0.0, 0.0, 1.0]]
            frame = {
                "file_path": relative_image_path(photograph, out),
                "transform_matrix": pose,
            } | transforms_intrinsics(camera)
            frames[photograph] = frame | ({} if mask is None else {"mask_path": relative_image_path(mask, out)})
    first = next(iter(frames.values()))
    shared = {key: first[key] for key in LENS if all(frame[key] == first[key] for frame in frames.values())}
    listed = [{key: value for key, value in frame.items() if key not in shared} for frame in frames.values()]
    names = {
        f"{split}_filenames": [relative_image_path(p, out) for p in one.photographs] for split, one in shots.items()
    }
    content = {"camera_model": "OPENCV"} | shared | instant_ngp_region(scene) | names | {"frames": listed}
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def transforms_intrinsics(camera: Cameras) -> dict[str, float | int]:
    """Intrinsics of a camera with the keys of transforms.json."""
    values = [*camera.focal[0].tolist(), *camera.center[0].tolist(), *camera.size[0].tolist()]
    return dict(zip(LENS, [*values, *camera.distortion[0].tolist()], strict=True))


def instant_ngp_region(scene: Scene) -> dict[str, Any]:
    """Mapping of the world to the unit cube of instant-ngp: the region of interest fills it (none for NDC scenes)."""
    if scene.ndc is not None:
        return {}
    low, high = scene.box
    scale = 1 / (float((high - low).max()) * scene.frame.scale)
    offset = 0.5 - scale * scene.frame.to_world((low + high) / 2)
    return {"aabb_scale": 16 if scene.unbounded else 1, "scale": scale, "offset": offset.tolist()}


def relative_image_path(photograph: Path, out: Path) -> str:
    """Path of an image relative to the folder of `out`; a bare name is kept."""
    return os.path.relpath(photograph, out.parent) if photograph.is_file() else photograph.as_posix()


def write_colmap(out: Path, shots: dict[str, WorldCameras], folder: Path | None) -> None:
    """COLMAP text model: cameras.txt, images.txt with names relative to `folder`, and an empty points3D.txt."""
    lenses: dict[str, int] = {}
    images = {}
    for one in shots.values():
        for photograph, camera in one:
            number = lenses.setdefault(colmap_camera(camera), len(lenses) + 1)
            within = folder is not None and photograph.is_relative_to(folder)
            name = photograph.relative_to(folder) if within else photograph  # type: ignore[arg-type]
            images.setdefault(name.as_posix(), f"{colmap_pose(camera.c2w[0])} {number}")
    cameras = [f"{number} {text}" for text, number in lenses.items()]
    # Each image has a second line for its 2D points, which is empty here.
    listed = [f"{row} {text} {name}\n" for row, (name, text) in enumerate(images.items(), 1)]
    lines = {
        "cameras.txt": ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]", *cameras],
        "images.txt": ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of POINTS2D[]", *listed],
        "points3D.txt": ["# POINT3D_ID X Y Z R G B ERROR TRACK[]"],
    }
    for name, text in lines.items():
        with replacing(out / name) as temporary:
            temporary.write_text("\n".join(text) + "\n", encoding="utf-8")


def colmap_camera(camera: Cameras) -> str:
    """Model, size and parameters of a camera in COLMAP notation."""
    values = [*camera.focal[0].tolist(), *camera.center[0].tolist()]
    model = "PINHOLE"
    if bool(camera.distortion.any()):
        model, values = "OPENCV", [*values, *camera.distortion[0].tolist()]
    width, height = camera.size[0].tolist()
    return f"{model} {width} {height} {' '.join(f'{value:.9g}' for value in values)}"


def colmap_pose(c2w: Float[Tensor, "3 4"]) -> str:
    """Quaternion (w x y z) and translation, world to camera."""
    rotation = c2w[:, :3].T
    x, y, z, w = Rotation.from_matrix(rotation.numpy()).as_quat()
    return " ".join(f"{value:.12g}" for value in (w, x, y, z, *(-rotation @ c2w[:, 3]).tolist()))


def write_frusta(out: Path, cameras: dict[str, Cameras]) -> None:
    """A frustum per camera as PLY: apex at the camera center, base with the aspect ratio, color of the split.

    Cameras without a split are "novel".
    """
    import trimesh  # half a second to import, and only this function needs it

    positions = torch.cat([one.positions for one in cameras.values()])
    spread = (positions - positions.mean(0)).norm(dim=-1).median()
    length = FRUSTUM_SHARE * float(spread) if spread > 0 else 1.0
    sides = np.array([[0, 2, 1], [0, 3, 2], [0, 4, 3], [0, 1, 4], [1, 2, 3], [1, 3, 4]])
    corners = [frustum_corners(one[[row]], length) for one in cameras.values() for row in range(len(one))]
    colors = [SPLIT_COLORS.get(split, (0, 0, 0)) for split, one in cameras.items() for _ in range(5 * len(one))]
    faces = np.concatenate([sides + 5 * row for row in range(len(corners))])
    shape = trimesh.Trimesh(torch.cat(corners).numpy(), faces, vertex_colors=colors, process=False)
    with replacing(out) as temporary:
        shape.export(temporary, file_type="ply")


def frustum_corners(camera: Cameras, length: float) -> Float[Tensor, "5 3"]:
    """Apex and base corners of a frustum, from the top left, with its base at `length` along the optical axis."""
    width, height = camera.size[0].tolist()
    x, y = torch.tensor([[0.0, width, width, 0.0], [0.0, 0.0, height, height]])
    ahead = camera.directions(torch.zeros(4, dtype=torch.int64), x, y)
    return camera.positions + length * torch.cat([torch.zeros_like(ahead[:1]), ahead])
