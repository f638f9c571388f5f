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
        """Density [1 / world unit]; for an NDC scene as seen by the central camera, zero behind it."""
        scene = self.run.scenes["train"]
        inner = scene.frame.to_scene(points)
        if scene.ndc is None:
            return self._density(inner) / scene.frame.scale
        ahead = inner[:, 2] > scene.ndc.plane
        found = torch.zeros(len(points))
        inner = inner[ahead]
        # A ray of the camera at the origin runs along z in NDC: by 2 plane / z^2 for each unit of depth.
        stretch = 2 * scene.ndc.plane / (inner[:, 2] * inner.norm(dim=-1))
        found[ahead] = self._density(points_to_ndc(inner, scene.ndc)) * stretch / scene.frame.scale
        return found

    @torch.no_grad()
    def colors(
        self, points: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"] | None = None
    ) -> Float[Tensor, "p 3"]:
        """RGB in [0, 1] seen along unit `directions` in world axes; by default the mean over the six scene axes."""
        scene, device = self.run.scenes["train"], self.run.device
        inner = scene.frame.to_scene(points)
        inner = (inner if scene.ndc is None else points_to_ndc(inner, scene.ndc)).to(device)
        if directions is not None:
            viewdirs = (directions @ scene.frame.rotation).to(device)
            return self.run.method.colors(inner, viewdirs).float().cpu()
        along = [self.run.method.colors(inner, axis.to(device).expand_as(inner)) for axis in AXES]
        return torch.stack(along).mean(0).float().cpu()

    def _density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        return self.run.method.density(points.to(self.run.device)).float().cpu()
