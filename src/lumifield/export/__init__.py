"""Exports of a trained scene in the world coordinates of its capture.

Each export has a settings dataclass, free of torch, whose `write` imports the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.runtime.config import check_min

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CamerasExport:
    """Cameras as transforms.json (instant-ngp, nerfstudio), a COLMAP text model, or frusta as PLY."""

    format: Literal["auto", "transforms", "colmap", "frusta"] = "auto"
    """Output format (auto: from the extension: .json, none for a folder, .ply)."""
    split: str | None = None
    """Split to export (default: all)."""

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes the cameras to `out`; raises `DataError` for an unknown extension or split."""
        from lumifield.export import cameras

        cameras.export_cameras(self, run, out)


@dataclass(frozen=True)
class VolumeExport:
    """Grid of density and color: sparse .vol for Unity, a raw 3D texture, or NumPy .npz."""

    resolution: int = 512
    """Number of cells along each edge of the cube."""
    center: tuple[float, float, float] | None = None
    """Center of the cube in world coordinates (default: center of the scene)."""
    cube_size: float | None = None
    """Edge length of the cube in world units (default: the extent of the scene)."""

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes `out` and its bounds as .json; raises `DataError` if the cube is empty."""
        from lumifield.export import volume

        volume.export_volume(self, run, out, progress)


@dataclass(frozen=True)
class WeightsExport:
    """Portable scene: weights and cameras without images, for render, export and view."""

    half: bool = False
    """Store parameters in fp16."""

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes one file (.zip) or a folder (no extension); raises `DataError` for another extension."""
        from lumifield.export import weights

        weights.export_weights(self, run, out)


@dataclass(frozen=True)
class MeshExport:
    """Surface as a colored triangle mesh: .ply, .obj, .glb, .dae, or .stl without colors."""

    resolution: int = 256
    """Marching cubes resolution along the longest side of the bounds."""
    bounds: tuple[float, float, float, float, float, float] | None = None
    """Bounding box, lower and upper corner, in world coordinates (forward-facing scenes: normalized device coordinates;
    default: around all density in the region of interest)."""
    density_threshold: float | None = None
    """Density at the surface [1 / scene unit] (default: five pixel widths absorb half of the light)."""
    components: Literal["all", "largest"] | int = 200
    """Connected components to keep: all, largest, or those with at least N faces."""
    keep_unseen: bool = True
    """Keep faces that no training camera sees; without them the mesh is open."""
    num_faces: int | None = None
    """Target number of faces after simplification (default: no simplification)."""
    color_source: Literal["images", "radiance", "field"] = "images"
    """Color source: images (training images that see a point), radiance (rays along the inverted normal), or field
    (mean over rays from the training cameras)."""
    texture_size: int | None = None
    """Texture width and height in pixels (GLB, OBJ) instead of vertex colors."""
    data: Path | None = None
    """Folder of the capture, if it has moved since training."""

    def __post_init__(self) -> None:
        check_min(self, resolution=2, num_faces=4, texture_size=16)
        if isinstance(self.components, int):
            check_min(self, components=1)

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes the mesh; raises `DataError` for an unknown extension, bad bounds, or an empty surface."""
        from lumifield.export import mesh

        mesh.export_mesh(self, run, out, progress)


@dataclass(frozen=True)
class PointsExport:
    """Point cloud of the surfaces that the training cameras see, with normals and colors (.ply)."""

    num_points: int = 1_000_000
    """Maximum number of points."""
    normals: Literal["density", "depth"] = "density"
    """Source of the normals: density gradient or depth differences."""

    def __post_init__(self) -> None:
        check_min(self, num_points=1)

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes the points; raises `DataError` for an unknown extension, or if no view hits a surface."""
        from lumifield.export import points

        points.export_points(self, run, out, progress)


@dataclass(frozen=True)
class WebExport:
    """One self-contained HTML page that renders the scene in any browser with WebGL2."""

    resolution: int = 256
    """Voxel resolution, a multiple of 8 from 16 to 512."""
    num_rays: int = 1_000_000
    """Number of training rays that colors are fitted to."""
    seed: int = 0
    """Random seed of the choice of rays."""

    def __post_init__(self) -> None:
        check_min(self, num_rays=1)
        if self.resolution % 8 or not 16 <= self.resolution <= 512:
            expected = "a multiple of 8 from 16 to 512"
            raise DataError("export web", "resolution", str(self.resolution), expected, "use the nearest one")

    def write(self, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
        """Writes the page; raises `DataError` for another extension or an empty scene."""
        from lumifield.export import web

        web.export_web_page(self, run, out, progress)
