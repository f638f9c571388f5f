"""Mesh proxy of the surface, rasterized instead of traced (MetaNLR++, "real-time rendering")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from skimage.measure import marching_cubes
from torch import Tensor

from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rasterize import rasterize


@dataclass(frozen=True)
class MeshProxy:
    """Triangles in scene coordinates, and whether each source view sees their vertices."""

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    seen: Bool[Tensor, "n v"]

    def rasterize_view(self, camera: Cameras) -> ProxyHits:
        """Surface hits of the pixels of a camera."""
        device = self.vertices.device
        (image,), (depth,) = camera.project(self.vertices)
        width, height = camera.size[0].tolist()
        faces = self.faces.cpu().numpy()
        shown = rasterize(image.double().cpu().numpy(), depth.double().cpu().numpy(), faces, (width, height))
        row = np.flatnonzero(shown.face >= 0)
        corners = self.faces[torch.from_numpy(shown.face.reshape(-1)[row]).to(device)]
        weights = torch.from_numpy(shown.weights.reshape(-1, 3)[row]).float().to(device)
        points = (weights[..., None] * self.vertices[corners]).sum(1)
        nearest = corners.gather(1, weights.argmax(-1, keepdim=True))[:, 0]
        return ProxyHits(torch.from_numpy(row).to(device), points, self.seen[:, nearest])


@dataclass(frozen=True)
class ProxyHits:
    """Pixels that hit the surface (rows among all), scene points, and which source view sees them."""

    rows: Int[Tensor, " p"]
    points: Float[Tensor, "p 3"]
    seen: Bool[Tensor, "n p"]


def extract_triangles(values: Float[Tensor, "d d d"]) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"]]:
    """Vertices and faces of the zero set of values on a grid over the cube of the unit ball, x last."""
    low, high = values.aminmax()
    if not low < 0 < high:
        return values.new_empty(0, 3), torch.empty(0, 3, dtype=torch.int64, device=values.device)
    vertices, faces, _, _ = marching_cubes(values.cpu().numpy(), 0.0)
    places = torch.from_numpy(np.ascontiguousarray(vertices[:, ::-1])).to(values)
    return places * (2 / (len(values) - 1)) - 1, torch.from_numpy(faces.astype(np.int64)).to(values.device)
