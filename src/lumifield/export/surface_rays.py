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

CELLS_IN_FRONT, CELLS_BEHIND = 2.0, 6.0
"""Start of a ray in front of the surface, and its end behind the surface [cells]."""
NUM_DIRECTIONS = 6
BLOCK_SIZE = 16384
MIN_OPACITY = 0.05
"""Minimum opacity of a ray that hits the surface."""
MIN_FORWARD_COMPONENT = 0.1
"""Minimum forward component of the direction of an NDC ray."""


def sample_radiance_colors(
    run: LoadedRun, samples: SurfaceSamples, cell_size: float
) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """Color of each sample along its inverted normal, and a mask of hits; `cell_size` in world units."""
    rgb, opacity = render_surface_rays(run, samples.points, -samples.normals, cell_size)
    return rgb, opacity > MIN_OPACITY


def sample_mean_radiance_colors(
    run: LoadedRun, samples: SurfaceSamples, cell_size: float
) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """Mean color of each sample over the training cameras that face it most, regardless of occlusion."""
    scene = run.scenes["train"]
    cameras = scene.frame.to_world(scene.cameras.positions).double().numpy()
    blocks = []
    for start in range(0, len(samples.points), BLOCK_SIZE):
        points, normals = samples.points[start : start + BLOCK_SIZE], samples.normals[start : start + BLOCK_SIZE]
        to_cameras = cameras[None] - points[:, None]
        to_cameras /= np.linalg.norm(to_cameras, axis=-1, keepdims=True)
        cosine = np.einsum("pnc,pc->pn", to_cameras, normals)
        chosen = np.argsort(-cosine, axis=1)[:, :NUM_DIRECTIONS]
        directions = -np.take_along_axis(to_cameras, chosen[..., None], 1).reshape(-1, 3)
        weight = np.maximum(np.take_along_axis(cosine, chosen, 1), 1e-3)
        rgb, opacity = render_surface_rays(run, np.repeat(points, chosen.shape[1], 0), directions, cell_size)
        weight = weight * opacity.reshape(chosen.shape)
        mean = (weight[..., None] * rgb.reshape(*chosen.shape, 3)).sum(1) / np.maximum(weight.sum(1), 1e-9)[:, None]
        blocks.append(np.concatenate([mean, weight.sum(1, keepdims=True)], 1))
    found = np.concatenate([np.empty((0, 4)), *blocks])
    return found[:, :3], found[:, 3] > MIN_OPACITY


def render_surface_rays(
    run: LoadedRun, points: Float[np.ndarray, "p 3"], directions: Float[np.ndarray, "p 3"], cell_size: float
) -> tuple[Float[np.ndarray, "p 3"], Float[np.ndarray, " p"]]:
    """Color and opacity at points, seen along unit directions; world coordinates."""
    scene = run.scenes["train"]
    scene_points = scene.frame.to_scene(torch.from_numpy(points).float())
    scene_directions = torch.from_numpy(directions).float() @ scene.frame.rotation
    rays = build_surface_rays(scene, scene_points, scene_directions, cell_size / scene.frame.scale)
    context = RenderContext(torch.zeros(3, device=run.device))
    rendered = render_in_chunks(run.method, rays.to(run.device), context, run.chunk or default_chunk(run.device))
    opacity = torch.where(rays.far > rays.near, rendered.opacity.float().cpu(), 0.0)
    rgb = rendered.rgb.float().cpu() / opacity.clamp_min(MIN_OPACITY)[:, None]
    return rgb.clamp(0, 1).double().numpy(), opacity.double().numpy()


def build_surface_rays(
    scene: Scene, points: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"], cell_size: float
) -> Rays:
    """Rays along unit directions from the median camera distance that see only the density near a point.

    Backward rays in a forward-facing scene are empty: near equals far.
    """
    camera_distance = float((scene.cameras.positions - scene.box.mean(0)).norm(dim=-1).median())
    distance = camera_distance + CELLS_IN_FRONT * cell_size
    t = torch.full_like(points[:, 0], distance)
    rays = Rays(
        origins=points - distance * directions,
        directions=directions,
        viewdirs=directions,
        radius=torch.full_like(t, float((1 / scene.cameras.focal.mean(-1)).median())),
        near=t - CELLS_IN_FRONT * cell_size,
        far=t + CELLS_BEHIND * cell_size,
        image=torch.zeros_like(t, dtype=torch.int64),
        place=torch.full_like(points[:, :2], 0.5),
    )
    return rays if scene.ndc is None else _warp_surface_rays(rays, scene)


def _warp_surface_rays(rays: Rays, scene: Scene) -> Rays:
    """Surface rays in normalized device coordinates; those that do not point forward are empty."""
    assert scene.ndc is not None
    # NDC rays start at the near plane, so that t is 1 - plane / depth (NeRF, equation 20).
    ends = [1 - scene.ndc.plane / (rays.origins + t[:, None] * rays.directions)[:, 2] for t in (rays.near, rays.far)]
    near, far = ends
    is_forward = (rays.directions[:, 2] > MIN_FORWARD_COMPONENT) & (near > 0) & (near < far) & (far < 1)
    directions = torch.where(is_forward[:, None], rays.directions, torch.tensor([0.0, 0.0, 1.0]))
    radius = torch.full_like(near, median_pixel_width(scene))
    warped = warp_rays_to_ndc(replace(rays, directions=directions, radius=radius), scene.ndc)
    return replace(warped, near=torch.where(is_forward, near, 0.0), far=torch.where(is_forward, far, 0.0))
