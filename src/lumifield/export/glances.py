"""Colors of a surface from short rays of the method that end right behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lumifield.data.scene import Scene, median_pixel_width
from lumifield.export.colors import Spots
from lumifield.geometry.rays import Rays, warp_rays_to_ndc
from lumifield.methods.base import RenderContext, render_in_chunks
from lumifield.rendering.view import usual_chunk

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

# Where a ray begins before the surface and ends behind it, in cells of the lattice.
BEFORE, BEHIND = 2.0, 6.0
LOOKS = 6
BLOCK = 16384
# Below this opacity a ray has met nothing; NDC rays must go forward at least so steeply.
MET, FORWARD = 0.05, 0.1


def radiance(run: LoadedRun, spots: Spots, cell: float) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """What is seen of each spot against its normal, and where anything is; `cell` is in world units."""
    rgb, opacity = glanced(run, spots.points, -spots.normals, cell)
    return rgb, opacity > MET


def field(run: LoadedRun, spots: Spots, cell: float) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """What the training cameras that face each spot most squarely would see of it on average, were nothing between."""
    scene = run.scenes["train"]
    cameras = scene.frame.to_world(scene.cameras.positions).double().numpy()
    parts = []
    for start in range(0, len(spots.points), BLOCK):
        points, normals = spots.points[start : start + BLOCK], spots.normals[start : start + BLOCK]
        towards = cameras[None] - points[:, None]
        towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
        cosine = np.einsum("pnc,pc->pn", towards, normals)
        looks = np.argsort(-cosine, axis=1)[:, :LOOKS]
        directions = -np.take_along_axis(towards, looks[..., None], 1)
        weight = np.maximum(np.take_along_axis(cosine, looks, 1), 1e-3)
        rgb, opacity = glanced(run, np.repeat(points, looks.shape[1], 0), directions.reshape(-1, 3), cell)
        weight = weight * opacity.reshape(looks.shape)
        mean = (weight[..., None] * rgb.reshape(*looks.shape, 3)).sum(1) / np.maximum(weight.sum(1), 1e-9)[:, None]
        parts.append(np.concatenate([mean, weight.sum(1, keepdims=True)], 1))
    found = np.concatenate([np.empty((0, 4)), *parts])
    return found[:, :3], found[:, 3] > MET


def glanced(
    run: LoadedRun, points: Float[np.ndarray, "p 3"], directions: Float[np.ndarray, "p 3"], cell: float
) -> tuple[Float[np.ndarray, "p 3"], Float[np.ndarray, " p"]]:
    """Color of the matter about the points, seen along unit directions, and its opacity; all in the world."""
    scene = run.scenes["train"]
    place = scene.frame.to_scene(torch.from_numpy(points).float())
    ahead = torch.from_numpy(directions).float() @ scene.frame.rotation
    rays = towards(scene, place, ahead, cell / scene.frame.scale)
    context = RenderContext(torch.zeros(3, device=run.device))
    seen = render_in_chunks(run.method, rays.to(run.device), context, run.chunk or usual_chunk(run.device))
    opacity = torch.where(rays.far > rays.near, seen.opacity.float().cpu(), 0.0)
    rgb = seen.rgb.float().cpu() / opacity.clamp_min(MET)[:, None]
    return rgb.clamp(0, 1).double().numpy(), opacity.double().numpy()


def towards(scene: Scene, points: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"], cell: float) -> Rays:
    """Rays of a scene along unit directions, each from a camera's usual distance, that see the matter about a point.

    Those that look backward in a forward-facing scene are empty: their near is their far.
    """
    distance = float((scene.cameras.positions - scene.box.mean(0)).norm(dim=-1).median()) + BEFORE * cell
    t = torch.full_like(points[:, 0], distance)
    rays = Rays(
        origins=points - distance * directions,
        directions=directions,
        viewdirs=directions,
        radius=torch.full_like(t, float((1 / scene.cameras.focal.mean(-1)).median())),
        near=t - BEFORE * cell,
        far=t + BEHIND * cell,
        image=torch.zeros_like(t, dtype=torch.int64),
        place=torch.full_like(points[:, :2], 0.5),
    )
    if scene.ndc is None:
        return rays
    # t of NDC rays is 1 - plane / depth (NeRF, equation 20), for they start at the near plane.
    ends = [1 - scene.ndc.plane / (rays.origins + t[:, None] * directions)[:, 2] for t in (rays.near, rays.far)]
    forward = (directions[:, 2] > FORWARD) & (ends[0] > 0) & (ends[0] < ends[1]) & (ends[1] < 1)
    safe = torch.where(forward[:, None], directions, torch.tensor([0.0, 0.0, 1.0]))
    warped = warp_rays_to_ndc(replace(rays, directions=safe, radius=torch.full_like(t, median_pixel_width(scene))), scene.ndc)
    return replace(warped, near=torch.where(forward, ends[0], 0.0), far=torch.where(forward, ends[1], 0.0))
