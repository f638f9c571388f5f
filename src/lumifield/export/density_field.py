"""Density of a run as a scalar field for marching cubes, and the transformation of its surface to the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data.scene import median_pixel_width
from lumifield.errors import DataError
from lumifield.export.marching_cubes import Surface, evaluate_in_chunks
from lumifield.geometry.rays import points_from_ndc

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

# By default the surface is at the density of which five pixel widths absorb half of the light.
SURFACE_OPTICAL_DEPTH = np.log(2) / 5
PROBES = 96
NDC_DEPTH = 0.95
"""z at which the grid of a forward-facing scene ends: forty times the near plane, where cells become long."""


@dataclass(frozen=True)
class DensityField:
    """Field whose zero set is where `inside` of the method equals `level`.

    Coordinates are world coordinates, or normalized device coordinates for forward-facing scenes.
    """

    run: LoadedRun
    level: float

    def field(self, places: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, " p"]:
        """Positive inside: log of density over level, or the difference for a signed distance."""
        with torch.no_grad():
            found = self.run.method.inside(self.to_ray_space(places).to(self.run.device)).double().cpu()
        signed = self.run.method.surface_level is not None
        values = (found - self.level if signed else torch.log(found.clamp_min(1e-9) / self.level)).numpy()
        # A coarse grid may extend beyond the bounds, and in NDC beyond infinity.
        beyond = places[:, 2] > NDC_DEPTH if self.run.scenes["train"].ndc is not None else False
        return np.where(beyond, -np.inf, values)

    def to_ray_space(self, places: Float[np.ndarray, "p 3"]) -> Float[Tensor, "p 3"]:
        """Grid coordinates in the space of the rays of the method."""
        scene, points = self.run.scenes["train"], torch.from_numpy(places).float()
        return points if scene.ndc is not None else scene.frame.to_scene(points)

    def in_world(self, surface: Surface) -> Surface:
        """A surface in world coordinates."""
        scene = self.run.scenes["train"]
        if scene.ndc is None:
            return surface
        # The NDC warp mirrors space.
        vertices = scene.frame.to_world(points_from_ndc(torch.from_numpy(surface.vertices).float(), scene.ndc))
        return Surface(vertices.double().numpy(), surface.faces[:, ::-1].copy())

    def region(self) -> Float[np.ndarray, "2 3"]:
        """Bounding box of the region of interest."""
        scene = self.run.scenes["train"]
        box = scene.box.double().numpy()
        if scene.ndc is not None:
            return np.stack([box[0], np.minimum(box[1], [np.inf, np.inf, NDC_DEPTH])])
        corners = np.where(np.array(list(np.ndindex(2, 2, 2)), bool), box[1], box[0])
        world = scene.frame.to_world(torch.from_numpy(corners).float()).double().numpy()
        return np.stack([world.min(0), world.max(0)])

    def bounds(self, given: tuple[float, ...] | None) -> Float[np.ndarray, "2 3"]:
        """The given box, or the one around all density in the region; raises `DataError` if it is empty."""
        region = self.region()
        if given is not None:
            return _overlapping(np.array(given).reshape(2, 3), region, self.run)
        cell = (region[1] - region[0]) / PROBES
        index = np.stack(np.meshgrid(*[np.arange(PROBES)] * 3, indexing="ij"), -1).reshape(-1, 3)
        hits = index[evaluate_in_chunks(self.field, region[0] + cell * (index + 0.5)) > 0]
        if len(hits) == 0:
            raise empty_density_error(self)
        return np.stack([np.maximum(hits.min(0) - 1, 0), np.minimum(hits.max(0) + 2, PROBES)]) * cell + region[0]


def density_field(run: LoadedRun, level: float | None) -> DensityField:
    """Density field of a run at a level [1 / unit of ray space], by default one that suits the pixel width."""
    if level is not None:
        return DensityField(run, level)
    own = run.method.surface_level
    return DensityField(run, SURFACE_OPTICAL_DEPTH / median_pixel_width(run.scenes["train"]) if own is None else own)


def empty_density_error(where: DensityField) -> DataError:
    """Error for a scene without density."""
    found, expected = f"no value above {where.level:.3g}", "a surface within the bounds"
    return DataError(
        where.run.folder, "density", found, expected, "lower --density-threshold, widen --bounds, or train longer"
    )


def _overlapping(
    bounds: Float[np.ndarray, "2 3"], region: Float[np.ndarray, "2 3"], run: LoadedRun
) -> Float[np.ndarray, "2 3"]:
    """The bounds; raises `DataError` if they are invalid or outside a bounded scene."""
    told = " ".join(f"{number:g}" for number in bounds.flat)
    if not (bounds[0] < bounds[1]).all() or not np.isfinite(bounds).all():
        raise DataError("--bounds", "box", told, "x y z of a lower and an upper corner", "correct --bounds")
    apart = (bounds[1] <= region[0]).any() or (bounds[0] >= region[1]).any()
    if apart and not run.scenes["train"].unbounded:
        expected = "a box within " + " ".join(f"{number:.4g}" for number in region.flat)
        raise DataError("--bounds", "box", f"{told}, outside the scene", expected, "correct --bounds")
    return bounds
