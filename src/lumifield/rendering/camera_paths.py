"""Camera paths in scene coordinates, as pure functions of a scene."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline
from torch import Tensor

from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras, pinhole_cameras
from lumifield.geometry.poses import (
    average_pose,
    estimate_up,
    focus_point,
    look_at,
    normalize,
    orthogonal_vector,
    validate_number,
    validate_pose,
)

SPIRAL_TURNS = 2
SPIRAL_QUANTILE = 0.9
SPIRAL_SHARE = 0.1
NEAREST_NDC_DEPTH = 4 / 3
SPHERIC_ELEVATION = math.radians(36)
WIDE_GAP = math.radians(150)
"""Gap between neighboring cameras beyond which the scene between them is unobserved."""


def spiral_path(scene: Scene, frames: int) -> Cameras:
    """Two turns of a closed spiral around the average camera of a forward-facing scene, looking at one point.

    Offsets are `(cos a, sin a, sin a / 2) r` for a from 0 to 4 pi, r the 90th percentile of the camera offsets. In
    other scenes the spiral runs around the first camera with r a tenth of its distance to the focus point.
    """
    c2w, target = scene.cameras.c2w, scene_focus(scene)
    if scene.ndc is not None:
        base = average_pose(c2w)
        offsets = (c2w[:, :, 3] - base[:, 3]) @ base[:, :3]
        radii = torch.quantile(offsets.abs(), SPIRAL_QUANTILE, dim=0)
    else:
        towards = target - c2w[0, :, 3]
        base = look_at(c2w[:1, :, 3], towards[None], estimate_up(c2w))[0]
        radii = (SPIRAL_SHARE * towards.norm()).expand(3)
    angle = _turn(frames) * SPIRAL_TURNS
    circle = torch.stack([angle.cos(), angle.sin(), (angle / 2).sin()], -1) * radii
    positions = base[:, 3] + circle @ base[:, :3].T
    return _like_first(scene, look_at(positions, target - positions, -base[:, 1]))


def orbit_path(scene: Scene, frames: int) -> Cameras:
    """A closed circle around the focus point at the mean distance and elevation of the cameras.

    If the cameras are on one side of it, back and forth along their arc. For a forward-facing scene it is a circle in
    the plane of the cameras that contains half of them.
    """
    if scene.ndc is not None:
        return _circle_before(scene, frames, 0.5)
    up = estimate_up(scene.cameras.c2w)
    offsets = scene.cameras.positions - scene_focus(scene)
    height = offsets @ up
    level = (offsets - height[:, None] * up).norm(dim=-1)
    return _circle(scene, frames, math.atan2(float(height.mean()), float(level.mean())))


def spheric_path(scene: Scene, frames: int) -> Cameras:
    """A closed circle or arc as in `orbit_path`, 36 degrees above the focus point.

    For a forward-facing scene a circle in the plane of the cameras that contains all of them.
    """
    if scene.ndc is not None:
        return _circle_before(scene, frames, 1.0)
    return _circle(scene, frames, SPHERIC_ELEVATION)


def overview_camera(scene: Scene) -> Cameras:
    """One camera that shows the scene: the first of its orbit; the average camera of a forward-facing scene."""
    if scene.ndc is not None:
        return _like_first(scene, average_pose(scene.cameras.c2w)[None])
    return orbit_path(scene, 1)


def interpolate_cameras(cameras: Cameras, frames: int) -> Cameras:
    """A smooth path through the given cameras with equal numbers of frames between them.

    Focus point, distance, principal point and log focal length follow cubic splines, rotations a spline with continuous
    angular acceleration, so that the common subject stays in view. All frames have the size of the first camera, and
    the field of view of each.
    """
    if len(cameras) == 1:
        return cameras[[0] * frames]
    scale = cameras.size[:1].double() / cameras.size.double()
    focal, center = cameras.focal.double() * scale, cameras.center.double() * scale
    distance = focus_distances(cameras)[:, None]
    target = cameras.positions.double() + distance * cameras.forward.double()
    smooth = torch.cat([target, distance, focal.log(), center, cameras.distortion.double()], -1)
    keys, at = np.arange(len(cameras)), np.linspace(0, len(cameras) - 1, frames)
    values = torch.from_numpy(CubicSpline(keys, smooth.numpy())(at))
    turned = RotationSpline(keys, Rotation.from_matrix(cameras.c2w[:, :, :3].double().numpy()))(at)
    target, distance, focal, center, distortion = values.float().split([3, 1, 2, 2, 4], -1)
    matrices = torch.from_numpy(turned.as_matrix()).float()
    positions = target - distance * matrices[:, :, 2]
    return Cameras(
        c2w=torch.cat([matrices, positions[..., None]], -1),
        focal=focal.exp(),
        center=center,
        size=cameras.size[:1].repeat(frames, 1),
        distortion=distortion,
    )


def focus_distances(cameras: Cameras) -> Float[Tensor, " n"]:
    """Distance along each optical axis to the point nearest to all axes; zero if they do not meet.

    That is, if the point is behind a camera or more than 45 degrees off an axis.
    """
    towards = focus_point(cameras.c2w).double() - cameras.positions.double()
    along = (towards * cameras.forward.double()).sum(-1)
    seen = along > 0.5**0.5 * towards.norm(dim=-1)
    return along if bool(seen.all()) else torch.zeros_like(along)


def tour_path(cameras: Cameras, frames: int) -> Cameras:
    """The path of `interpolate_cameras` with image sizes interpolated between those of the cameras."""
    path = interpolate_cameras(cameras, frames)
    place = torch.linspace(0, len(cameras) - 1, frames)
    low = place.long().clamp(max=max(len(cameras) - 2, 0))
    high = (low + 1).clamp(max=len(cameras) - 1)
    sizes = cameras.size.float()
    size = torch.lerp(sizes[low], sizes[high], (place - low)[:, None]).round()
    ratio = size / path.size
    return replace(path, focal=path.focal * ratio, center=path.center * ratio, size=size.long())


def inverse_distance_weights(places: Float[Tensor, "n 3"], known: Float[Tensor, "k 3"]) -> Float[Tensor, "n k"]:
    """Weights w ~ |x - x_k|^-4 that sum to one (Shepard 1968)."""
    distance = (places[:, None] - known).norm(dim=-1).clamp_min(torch.finfo(places.dtype).tiny)
    weight = (distance.amin(-1, keepdim=True) / distance) ** 4
    return weight / weight.sum(-1, keepdim=True)


def read_camera_path(path: Path, scene: Scene) -> Cameras:
    """Reads a camera path: a JSON list with one object per frame, in world coordinates.

    Each object has `c2w` (4x4 or 3x4 rows, OpenCV axes), `width`, `height` [pixels] and either `focal` (a number or
    [fx, fy], pixels) or `fov` (horizontal, degrees); optionally `center` ([cx, cy], pixels, default image center) and
    `distortion` ([k1, k2, p1, p2]). Raises `DataError` for anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(path, "file", f"an error ({error.strerror})", "a readable file", "check the path") from None
    except ValueError as error:
        raise DataError(path, "content", f"invalid JSON ({error})", "a list of cameras", "correct the file") from None
    if not isinstance(content, list) or not content or not all(isinstance(camera, dict) for camera in content):
        raise DataError(path, "content", "no list of objects", "at least one camera", "correct the file")
    c2w = torch.stack(
        [validate_pose(camera.get("c2w"), path, f"c2w of camera {i}") for i, camera in enumerate(content)]
    )
    numbers = [_lens(camera, path, index) for index, camera in enumerate(content)]
    focal, center, size, distortion = torch.tensor(numbers).split([2, 2, 2, 4], -1)
    return Cameras(
        c2w=_double(scene.frame).poses_to_scene(c2w).float(),
        focal=focal,
        center=center,
        size=size.long(),
        distortion=distortion,
    )


def format_camera_path(cameras: Cameras, frame: Frame) -> str:
    """JSON text of a camera path in world coordinates, for `read_camera_path`."""
    poses = _double(frame).poses_to_world(cameras.c2w.double())
    return json.dumps(
        [
            {
                "c2w": [*poses[i].tolist(), [0.0, 0.0, 0.0, 1.0]],
                "focal": cameras.focal[i].tolist(),
                "center": cameras.center[i].tolist(),
                "width": int(cameras.size[i, 0]),
                "height": int(cameras.size[i, 1]),
                "distortion": cameras.distortion[i].tolist(),
            }
            for i in range(len(cameras))
        ],
        indent=1,
    )


def _lens(camera: dict[str, Any], path: Path, index: int) -> list[float]:
    """`fx fy cx cy width height k1 k2 p1 p2` of one camera of a JSON path."""

    def number(value: Any, field: str, *, positive: bool = False) -> float:
        return validate_number(value, path, f"{field} of camera {index}", positive=positive)

    def several(value: Any, field: str, count: int, *, positive: bool = False) -> list[float]:
        if not isinstance(value, list) or len(value) != count:
            raise DataError(path, f"{field} of camera {index}", repr(value), f"{count} numbers", "correct the file")
        return [number(one, field, positive=positive) for one in value]

    size = [number(camera.get(side), side, positive=True) for side in ("width", "height")]
    for side, pixels in zip(("width", "height"), size, strict=True):
        if pixels != round(pixels):
            raise DataError(
                path, f"{side} of camera {index}", f"{pixels:g}", "a whole number of pixels", "correct the file"
            )
    focal = camera.get("focal")
    if focal is None:
        fov = number(camera.get("fov"), "focal or fov", positive=True)
        if fov >= 180:
            raise DataError(path, f"fov of camera {index}", f"{fov:g}", "below 180 degrees", "correct the file")
        focal = 0.5 * size[0] / math.tan(math.radians(fov) / 2)
    focal = several(focal if isinstance(focal, list) else [focal] * 2, "focal", 2, positive=True)
    center = several(camera.get("center", [size[0] / 2, size[1] / 2]), "center", 2)
    return [*focal, *center, *size, *several(camera.get("distortion", [0.0] * 4), "distortion", 4)]


def _circle(scene: Scene, frames: int, elevation: float) -> Cameras:
    """A closed circle around the focus point that begins above or below the first camera."""
    c2w = scene.cameras.c2w
    focus, up = scene_focus(scene), estimate_up(c2w)
    offsets = c2w[:, :, 3] - focus
    distance = offsets.norm(dim=-1).mean()
    first = offsets[0] - (offsets[0] @ up) * up
    x = normalize(first) if bool(first.norm() > 1e-3 * distance) else orthogonal_vector(up)
    y = torch.linalg.cross(up, x)
    angle = _round(torch.atan2(offsets @ y, offsets @ x), frames)[:, None]
    level = angle.cos() * x + angle.sin() * y
    away = math.cos(elevation) * level + math.sin(elevation) * up
    return _like_first(scene, look_at(focus + distance * away, -away, up))


def _round(bearings: Float[Tensor, " n"], frames: int) -> Float[Tensor, " {frames}"]:
    """Angles of one turn; back and forth on the other side of a wide gap between camera bearings."""
    ordered = bearings.sort().values
    gaps = torch.cat([ordered[1:], ordered[:1] + 2 * math.pi]) - ordered
    widest = int(gaps.argmax())
    if float(gaps[widest]) < WIDE_GAP or len(bearings) == 1:
        return _turn(frames)
    half = math.pi - 0.5 * gaps[widest]
    return ordered[widest] - half + half * _turn(frames).sin()


def _circle_before(scene: Scene, frames: int, share: float) -> Cameras:
    """A closed circle around the average camera in its plane that contains a fraction `share` of the cameras."""
    c2w, focus = scene.cameras.c2w, scene_focus(scene)
    base = average_pose(c2w)
    radius = torch.quantile(((c2w[:, :, 3] - base[:, 3]) @ base[:, :2]).norm(dim=-1), share)
    angle = _turn(frames)
    positions = base[:, 3] + radius * torch.stack([angle.cos(), angle.sin()], -1) @ base[:, :2].T
    return _like_first(scene, look_at(positions, focus - positions, -base[:, 1]))


def _turn(frames: int) -> Float[Tensor, " frames"]:
    """Angles of one turn, without repeating the first."""
    return torch.arange(frames) * (2 * math.pi / frames)


def scene_focus(scene: Scene) -> Float[Tensor, "3"]:
    """Point nearest to all optical axes; a point in front of the average camera if it is behind the cameras.

    For a forward-facing scene always the latter, at depth `1 / (0.25 / (0.9 nearest) + 0.75 / (5 farthest))` with the
    farthest at infinity.
    """
    c2w = scene.cameras.c2w
    average = average_pose(c2w)
    if scene.ndc is not None:
        return average[:, 3] + 0.9 / 0.25 * NEAREST_NDC_DEPTH * scene.ndc.plane * average[:, 2]
    focus = focus_point(c2w)
    depth = ((focus - c2w[:, :, 3]) * c2w[:, :, 2]).sum(-1)
    near = scene.near.mean()
    return focus if bool(depth.mean() > near) else average[:, 3] + 2 * near * average[:, 2]


def _like_first(scene: Scene, c2w: Float[Tensor, "n 3 4"]) -> Cameras:
    """Undistorted cameras with the focal length and size of the first image."""
    fx, fy = scene.cameras.focal[0].tolist()
    return pinhole_cameras(c2w, (fx, fy), scene.size(0))


def _double(frame: Frame) -> Frame:
    return replace(frame, rotation=frame.rotation.double(), translation=frame.translation.double())
