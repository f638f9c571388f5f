"""What leaves a trained scene: a settings dataclass for each kind, free of torch, whose `write` imports the rest.

Everything leaves in the world frame of the images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.runtime.config import at_least

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CamerasExport:
    """The cameras: transforms.json (instant-ngp, nerfstudio), a folder of COLMAP's text model, or frusta as PLY."""

    format: Literal["auto", "transforms", "colmap", "frusta"] = "auto"
    """auto: told by the ending: .json, none for a folder, .ply."""
    split: str | None = None
    """Only the cameras of this split (all)."""

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes the cameras to `out`; raises `DataError` for an ending of no format or a split that is not there."""
        from lumifield.export import cameras

        cameras.write(self, run, out)


@dataclass(frozen=True)
class Volume:
    """Density and color in a cube of cells: Unity's sparse .vol, a raw 3D texture, or NumPy's .npz."""

    resolution: int = 512
    """Cells along each side of the cube."""
    center: tuple[float, float, float] | None = None
    """Middle of the cube in world coordinates (that of the matter)."""
    side: float | None = None
    """Length of the cube's sides in world units (as far as the matter reaches)."""

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes `out`, and its bounds beside it as .json; raises `DataError` where the cube holds no matter."""
        from lumifield.export import volume

        volume.write(self, run, out, progress)


@dataclass(frozen=True)
class Weights:
    """A portable scene: network and cameras without images, which `render`, `export` and `view` take for a run."""

    half: bool = False
    """Parameters of 16 bits: half as large, and rounded."""

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes one file (.zip) or a folder (no ending); raises `DataError` for another ending."""
        from lumifield.export import weights

        weights.write(self, run, out)


@dataclass(frozen=True)
class Mesh:
    """The surface as colored triangles: .ply, .obj, .glb, .dae, or .stl, which has no colors."""

    resolution: int = 256
    """Cells along the longest side of the bounds."""
    bounds: tuple[float, float, float, float, float, float] | None = None
    """Lower and upper corner of the box to look in, in the world (forward-facing scenes: in normalized device
    coordinates); by default round all matter of the region of interest."""
    level: float | None = None
    """Density at the surface [1 / unit of the scene]; by default such that five pixel widths stop half of the light."""
    keep: Literal["all", "largest"] | int = 200
    """Which connected pieces: all, the largest, or those of at least so many faces."""
    keep_unseen: bool = True
    """Keep the faces that no training camera sees; without them the surface is open."""
    faces: int | None = None
    """Simplify to about so many faces."""
    colors: Literal["photographs", "radiance", "field"] = "photographs"
    """From the training images that see a place, from a ray of the method against its normal, or from rays of the
    method in the directions of the training cameras."""
    texture: int | None = None
    """Colors in a texture of so many pixels a side (GLB, OBJ) instead of at the vertices."""
    data: Path | None = None
    """Where the images are now, if they have moved since the training."""

    def __post_init__(self) -> None:
        at_least(2, self, "resolution")
        at_least(4, self, "faces")
        at_least(16, self, "texture")
        if isinstance(self.keep, int):
            at_least(1, self, "keep")

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes the mesh; raises `DataError` for an unknown ending, bounds that miss the scene, or no matter."""
        from lumifield.export import mesh

        mesh.write(self, run, out, progress)


@dataclass(frozen=True)
class Points:
    """What the training cameras see as a cloud of points with normals and colors (.ply)."""

    count: int = 1_000_000
    """At most about so many points."""
    normals: Literal["density", "depth"] = "density"
    """What the normals are read from."""

    def __post_init__(self) -> None:
        at_least(1, self, "count")

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes the points; raises `DataError` for an unknown ending, or where no view shows matter."""
        from lumifield.export import points

        points.write(self, run, out, progress)


@dataclass(frozen=True)
class Web:
    """One self-contained page (.html) that shows the scene in any browser with WebGL2."""

    side: int = 256
    """Voxels along each side of the region, a multiple of 8."""
    rays: int = 1_000_000
    """Rays of the training cameras that the colors are fitted to."""
    seed: int = 0
    """Seed of their choice."""

    def __post_init__(self) -> None:
        at_least(1, self, "rays")
        if self.side % 8 or not 16 <= self.side <= 512:
            raise DataError("web", "side", str(self.side), "a multiple of 8 from 16 to 512", "take the nearest one")

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes the page; raises `DataError` for another ending, or a scene without matter."""
        from lumifield.export import web

        web.write(self, run, out, progress)
