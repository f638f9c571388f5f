"""Density and color of a trained method in world coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.geometry.rays import points_to_ndc

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

AXES = torch.cat([torch.eye(3), -torch.eye(3)])


@dataclass(frozen=True)
class WorldField:
    """Density and color of a run at world points, on the CPU."""

    run: LoadedRun

    @torch.no_grad()
    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density [1 / world unit]; for an NDC scene as seen by the central camera, zero behind its near plane."""
        scene = self.run.scenes["train"]
        scene_points = scene.frame.to_scene(points)
        if scene.ndc is None:
            return self._query_density(scene_points) / scene.frame.scale
        is_in_front = scene_points[:, 2] > scene.ndc.plane
        density = torch.zeros(len(points))
        scene_points = scene_points[is_in_front]
        # A ray from the origin is parallel to z in NDC; one unit of depth covers 2 plane / z^2 of it.
        stretch = 2 * scene.ndc.plane / (scene_points[:, 2] * scene_points.norm(dim=-1))
        ndc_density = self._query_density(points_to_ndc(scene_points, scene.ndc))
        density[is_in_front] = ndc_density * stretch / scene.frame.scale
        return density

    @torch.no_grad()
    def colors(
        self, points: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"] | None = None
    ) -> Float[Tensor, "p 3"]:
        """RGB in [0, 1] seen along unit `directions` in world axes; by default the mean over the six scene axes."""
        scene, device = self.run.scenes["train"], self.run.device
        scene_points = scene.frame.to_scene(points)
        ray_points = (scene_points if scene.ndc is None else points_to_ndc(scene_points, scene.ndc)).to(device)
        if directions is not None:
            viewdirs = (directions @ scene.frame.rotation).to(device)
            return self.run.method.colors(ray_points, viewdirs).float().cpu()
        per_axis = [self.run.method.colors(ray_points, axis.to(device).expand_as(ray_points)) for axis in AXES]
        return torch.stack(per_axis).mean(0).float().cpu()

    def _query_density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        return self.run.method.density(points.to(self.run.device)).float().cpu()
