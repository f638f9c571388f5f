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
from lumifield.export.marching_cubes import TriangleMesh, evaluate_in_chunks
from lumifield.geometry.rays import points_from_ndc

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

SURFACE_OPTICAL_DEPTH = np.log(2) / 5
"""Default optical depth of one pixel width at the surface: five of them absorb half of the light."""
BOUNDS_RESOLUTION = 96
"""Resolution of the grid that locates the density within the region of interest."""
MAX_NDC_DEPTH = 0.95
"""Maximum z of the grid of a forward-facing scene: 40 times the near plane, beyond which cells become very long."""


@dataclass(frozen=True)
class DensityField:
    """Scalar field whose zero level set is the surface of a run: where density equals `level`,
    or signed distance equals -`level`.

    Coordinates are world coordinates, or normalized device coordinates for forward-facing scenes.
    """

    run: LoadedRun
    level: float

    def evaluate(self, points: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, " p"]:
        """Positive inside: log of density over level, or the difference for a signed distance."""
        method, ray_points = self.run.method, self.to_ray_space(points).to(self.run.device)
        with torch.no_grad():
            if method.traits.has_signed_distance:
                values = (-method.signed_distance(ray_points).double().cpu() - self.level).numpy()
            else:
                density = method.density(ray_points).double().cpu()
                values = torch.log(density.clamp_min(1e-9) / self.level).numpy()
        # The border cells of a grid may extend beyond the bounds, and in NDC beyond infinity.
        is_beyond = points[:, 2] > MAX_NDC_DEPTH if self.run.scenes["train"].ndc is not None else False
        return np.where(is_beyond, -np.inf, values)

    def to_ray_space(self, points: Float[np.ndarray, "p 3"]) -> Float[Tensor, "p 3"]:
        """Transforms grid coordinates to the space of the rays of the method."""
        scene, grid_points = self.run.scenes["train"], torch.from_numpy(points).float()
        return grid_points if scene.ndc is not None else scene.frame.to_scene(grid_points)

    def to_world(self, mesh: TriangleMesh) -> TriangleMesh:
        """Transforms a mesh from grid to world coordinates."""
        scene = self.run.scenes["train"]
        if scene.ndc is None:
            return mesh
        vertices = scene.frame.to_world(points_from_ndc(torch.from_numpy(mesh.vertices).float(), scene.ndc))
        # The NDC warp mirrors space, which reverses the orientation of the faces.
        return TriangleMesh(vertices.double().numpy(), mesh.faces[:, ::-1].copy())

    def region_of_interest(self) -> Float[np.ndarray, "2 3"]:
        """Bounding box of the region of interest in grid coordinates."""
        scene = self.run.scenes["train"]
        box = scene.box.double().numpy()
        if scene.ndc is not None:
            return np.stack([box[0], np.minimum(box[1], [np.inf, np.inf, MAX_NDC_DEPTH])])
        corners = np.where(np.array(list(np.ndindex(2, 2, 2)), bool), box[1], box[0])
        world = scene.frame.to_world(torch.from_numpy(corners).float()).double().numpy()
        return np.stack([world.min(0), world.max(0)])

    def resolve_bounds(self, requested: tuple[float, ...] | None) -> Float[np.ndarray, "2 3"]:
        """The requested box, by default the bounding box of the density in the region of interest.

        Raises `DataError` for an invalid box, or if the region of interest is empty.
        """
        region = self.region_of_interest()
        if requested is not None:
            bounds = np.array(requested).reshape(2, 3)
            validate_mesh_bounds(bounds, region, is_bounded=not self.run.scenes["train"].unbounded)
            return bounds
        cell_size = (region[1] - region[0]) / BOUNDS_RESOLUTION
        index = np.stack(np.meshgrid(*[np.arange(BOUNDS_RESOLUTION)] * 3, indexing="ij"), -1).reshape(-1, 3)
        inside = index[evaluate_in_chunks(self.evaluate, region[0] + cell_size * (index + 0.5)) > 0]
        if len(inside) == 0:
            raise empty_density_error(self)
        low, high = np.maximum(inside.min(0) - 1, 0), np.minimum(inside.max(0) + 2, BOUNDS_RESOLUTION)
        return np.stack([low, high]) * cell_size + region[0]


def build_density_field(run: LoadedRun, level: float | None) -> DensityField:
    """Density field of a run at a level [1 / unit of ray space].

    The default is `SURFACE_OPTICAL_DEPTH` per median pixel width, or 0 for a signed distance.
    """
    if level is not None:
        return DensityField(run, level)
    if run.method.traits.has_signed_distance:
        return DensityField(run, 0.0)
    return DensityField(run, SURFACE_OPTICAL_DEPTH / median_pixel_width(run.scenes["train"]))


def empty_density_error(field: DensityField) -> DataError:
    """Error for a scene without density above the level."""
    return DataError(
        field.run.folder,
        "density",
        f"no value above {field.level:.3g}",
        "a surface within the bounds",
        "lower --density-threshold, widen --bounds, or train longer",
    )


def validate_mesh_bounds(
    bounds: Float[np.ndarray, "2 3"], region: Float[np.ndarray, "2 3"], *, is_bounded: bool
) -> None:
    """Raises `DataError` if the bounds are invalid, or outside the region of interest of a bounded scene."""
    numbers = " ".join(f"{number:g}" for number in bounds.flat)
    if not (bounds[0] < bounds[1]).all() or not np.isfinite(bounds).all():
        raise DataError("export mesh", "bounds", numbers, "x y z of a lower and an upper corner", "correct --bounds")
    is_outside = (bounds[1] <= region[0]).any() or (bounds[0] >= region[1]).any()
    if is_outside and is_bounded:
        expected = "a box that overlaps " + " ".join(f"{number:.4g}" for number in region.flat)
        raise DataError("export mesh", "bounds", f"{numbers}, outside the scene", expected, "correct --bounds")
