"""Surface colors from short rays of the method that end right behind the surface."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lumifield.data.scene import Scene, median_pixel_width
from lumifield.export.image_colors import SurfaceSamples
from lumifield.geometry.rays import Rays, warp_rays_to_ndc
from lumifield.methods.base import RenderContext, render_in_chunks
from lumifield.rendering.view import default_chunk

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

# Start of a ray in front of the surface and its end behind it [cells].
BEFORE, BEHIND = 2.0, 6.0
NUM_DIRECTIONS = 6
BLOCK = 16384
# Minimum opacity of a hit; minimum forward component of NDC rays.
MET, FORWARD = 0.05, 0.1


def radiance_colors(
    run: LoadedRun, samples: SurfaceSamples, cell: float
) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """Color of each sample along its inverted normal, and where density was hit; `cell` is in world units."""
    rgb, opacity = render_surface_rays(run, samples.points, -samples.normals, cell)
    return rgb, opacity > MET


def mean_radiance_colors(
    run: LoadedRun, samples: SurfaceSamples, cell: float
) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """Mean color of each sample over the training cameras that face it most, without occlusion."""
    scene = run.scenes["train"]
    cameras = scene.frame.to_world(scene.cameras.positions).double().numpy()
    parts = []
    for start in range(0, len(samples.points), BLOCK):
        points, normals = samples.points[start : start + BLOCK], samples.normals[start : start + BLOCK]
        surface_rays = cameras[None] - points[:, None]
        surface_rays /= np.linalg.norm(surface_rays, axis=-1, keepdims=True)
        cosine = np.einsum("pnc,pc->pn", surface_rays, normals)
        looks = np.argsort(-cosine, axis=1)[:, :NUM_DIRECTIONS]
        directions = -np.take_along_axis(surface_rays, looks[..., None], 1)
        weight = np.maximum(np.take_along_axis(cosine, looks, 1), 1e-3)
        rgb, opacity = render_surface_rays(run, np.repeat(points, looks.shape[1], 0), directions.reshape(-1, 3), cell)
        weight = weight * opacity.reshape(looks.shape)
        mean = (weight[..., None] * rgb.reshape(*looks.shape, 3)).sum(1) / np.maximum(weight.sum(1), 1e-9)[:, None]
        parts.append(np.concatenate([mean, weight.sum(1, keepdims=True)], 1))
    found = np.concatenate([np.empty((0, 4)), *parts])
    return found[:, :3], found[:, 3] > MET


def render_surface_rays(
    run: LoadedRun, points: Float[np.ndarray, "p 3"], directions: Float[np.ndarray, "p 3"], cell: float
) -> tuple[Float[np.ndarray, "p 3"], Float[np.ndarray, " p"]]:
    """Color and opacity at points, seen along unit directions; world coordinates."""
    scene = run.scenes["train"]
    place = scene.frame.to_scene(torch.from_numpy(points).float())
    ahead = torch.from_numpy(directions).float() @ scene.frame.rotation
    rays = surface_rays(scene, place, ahead, cell / scene.frame.scale)
    context = RenderContext(torch.zeros(3, device=run.device))
    seen = render_in_chunks(run.method, rays.to(run.device), context, run.chunk or default_chunk(run.device))
    opacity = torch.where(rays.far > rays.near, seen.opacity.float().cpu(), 0.0)
    rgb = seen.rgb.float().cpu() / opacity.clamp_min(MET)[:, None]
    return rgb.clamp(0, 1).double().numpy(), opacity.double().numpy()


def surface_rays(scene: Scene, points: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"], cell: float) -> Rays:
    """Rays along unit directions from the usual camera distance that see the density near a point.

    Backward rays in a forward-facing scene are empty: near equals far.
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
    # NDC rays start at the near plane, so that t is 1 - plane / depth (NeRF, equation 20).
    ends = [1 - scene.ndc.plane / (rays.origins + t[:, None] * directions)[:, 2] for t in (rays.near, rays.far)]
    forward = (directions[:, 2] > FORWARD) & (ends[0] > 0) & (ends[0] < ends[1]) & (ends[1] < 1)
    safe = torch.where(forward[:, None], directions, torch.tensor([0.0, 0.0, 1.0]))
    warped = warp_rays_to_ndc(
        replace(rays, directions=safe, radius=torch.full_like(t, median_pixel_width(scene))), scene.ndc
    )
    return replace(warped, near=torch.where(forward, ends[0], 0.0), far=torch.where(forward, ends[1], 0.0))
