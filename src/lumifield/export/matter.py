"""The matter of a run as a field on a lattice, and the way from there to the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.data.scene import median_pixel_width
from lumifield.errors import DataError
from lumifield.export.surface import Surface, asked
from lumifield.geometry.rays import points_from_ndc

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

# Without a level of its own, a density's surface is where five pixel widths of such matter stop half of the light.
THICKNESS = np.log(2) / 5
PROBES = 96
NDC_DEPTH = 0.95
"""The z at which a forward-facing lattice ends: forty times as far as the near plane, where cells are long already."""


@dataclass(frozen=True)
class Matter:
    """Where `inside` of a run's method crosses `level`, in the coordinates of the lattice.

    These are the world's, but for forward-facing scenes: there they are normalized device coordinates.
    """

    run: LoadedRun
    level: float

    def field(self, places: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, " p"]:
        """Positive inside: the logarithm of density over level, for a signed distance the difference."""
        with torch.no_grad():
            found = self.run.method.inside(self.placed(places).to(self.run.device)).double().cpu()
        signed = self.run.method.surface_level is not None
        values = (found - self.level if signed else torch.log(found.clamp_min(1e-9) / self.level)).numpy()
        # A coarse lattice may reach beyond the bounds, and in NDC past infinity.
        beyond = places[:, 2] > NDC_DEPTH if self.run.scenes["train"].ndc is not None else False
        return np.where(beyond, -np.inf, values)

    def placed(self, places: Float[np.ndarray, "p 3"]) -> Float[Tensor, "p 3"]:
        """Lattice coordinates as the method's rays have them."""
        scene, points = self.run.scenes["train"], torch.from_numpy(places).float()
        return points if scene.ndc is not None else scene.frame.to_scene(points)

    def in_world(self, surface: Surface) -> Surface:
        """A surface of the lattice in world coordinates."""
        scene = self.run.scenes["train"]
        if scene.ndc is None:
            return surface
        # The warp mirrors space.
        vertices = scene.frame.to_world(points_from_ndc(torch.from_numpy(surface.vertices).float(), scene.ndc))
        return Surface(vertices.double().numpy(), surface.faces[:, ::-1].copy())

    def region(self) -> Float[np.ndarray, "2 3"]:
        """The box round the region of interest."""
        scene = self.run.scenes["train"]
        box = scene.box.double().numpy()
        if scene.ndc is not None:
            return np.stack([box[0], np.minimum(box[1], [np.inf, np.inf, NDC_DEPTH])])
        corners = np.where(np.array(list(np.ndindex(2, 2, 2)), bool), box[1], box[0])
        world = scene.frame.to_world(torch.from_numpy(corners).float()).double().numpy()
        return np.stack([world.min(0), world.max(0)])

    def bounds(self, given: tuple[float, ...] | None) -> Float[np.ndarray, "2 3"]:
        """The box given, or the one round all matter of the region; raises `DataError` where there is nothing in it."""
        region = self.region()
        if given is not None:
            return _overlapping(np.array(given).reshape(2, 3), region, self.run)
        cell = (region[1] - region[0]) / PROBES
        index = np.stack(np.meshgrid(*[np.arange(PROBES)] * 3, indexing="ij"), -1).reshape(-1, 3)
        hits = index[asked(self.field, region[0] + cell * (index + 0.5)) > 0]
        if len(hits) == 0:
            raise nothing(self)
        return np.stack([np.maximum(hits.min(0) - 1, 0), np.minimum(hits.max(0) + 2, PROBES)]) * cell + region[0]


def matter(run: LoadedRun, level: float | None) -> Matter:
    """The matter of a run at a level of density [1 / unit of the rays' space], by default one that suits the pixels."""
    if level is not None:
        return Matter(run, level)
    own = run.method.surface_level
    return Matter(run, THICKNESS / median_pixel_width(run.scenes["train"]) if own is None else own)


def nothing(where: Matter) -> DataError:
    """What to say of a scene without matter."""
    found, expected = f"nowhere above {where.level:.3g}", "matter within the bounds"
    return DataError(where.run.folder, "density", found, expected, "lower --level, widen --bounds, or train longer")


def _overlapping(
    bounds: Float[np.ndarray, "2 3"], region: Float[np.ndarray, "2 3"], run: LoadedRun
) -> Float[np.ndarray, "2 3"]:
    """The bounds; raises `DataError` where they are no box, or lie outside of a bounded scene."""
    told = " ".join(f"{number:g}" for number in bounds.flat)
    if not (bounds[0] < bounds[1]).all() or not np.isfinite(bounds).all():
        raise DataError("--bounds", "box", told, "x y z of a lower and of an upper corner", "correct it")
    apart = (bounds[1] <= region[0]).any() or (bounds[0] >= region[1]).any()
    if apart and not run.scenes["train"].unbounded:
        expected = "a box within " + " ".join(f"{number:.4g}" for number in region.flat)
        raise DataError("--bounds", "box", f"{told}, outside of the scene", expected, "correct it")
    return bounds
