"""Volume export: density and color in the cells of a cube, written slab by slab."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.export import Progress, VolumeExport
from lumifield.export.world_field import WorldField
from lumifield.geometry.rays import Ndc
from lumifield.runtime.config import check_min
from lumifield.runtime.files import check_output, replacing, write_json

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

POINTS_PER_SLAB = 2**18
COARSE_RESOLUTION = 64
"""Resolution of the grid that locates the density within the region of interest."""
MIN_OPACITY = 0.05
"""Minimum opacity of coarse cells to enclose."""
MAX_VOL_RESOLUTION = 1625
"""Maximum resolution of .vol, whose flat index has 32 bits."""
MAX_WIDTH_PER_DEPTH = 1.6
"""Maximum width per distance of the camera frustum that the cube of a forward-facing scene covers."""
AxisOrder = Literal["yxz", "zyx"]


@dataclass(frozen=True)
class CubeGrid:
    """Grid of `resolution`^3 cells over a cube with the given lower corner and edge length [world units]."""

    low: Float[Tensor, "3"]
    size: float
    resolution: int

    @property
    def cell_size(self) -> float:
        """Edge length of a cell [world units]."""
        return self.size / self.resolution

    def cell_centers(self, axis_order: AxisOrder) -> Iterator[Float[Tensor, "p 3"]]:
        """Centers of the cells in slabs of layers; `axis_order` names the axes from the slowest to the fastest."""
        slab_depth = max(POINTS_PER_SLAB // self.resolution**2, 1)
        all_rows = torch.arange(self.resolution)
        for slab_rows in all_rows.split(slab_depth):
            indices = torch.meshgrid(slab_rows, all_rows, all_rows, indexing="ij")
            index = dict(zip(axis_order, indices, strict=True))
            yield self.low + self.cell_size * (torch.stack([index[axis].reshape(-1) for axis in "xyz"], -1) + 0.5)


@dataclass(frozen=True)
class VolumeSlab:
    """Consecutive cells: density [1 / world unit], and 8-bit RGBA, all zero where alpha is zero."""

    density: Float[np.ndarray, " p"]
    rgba: UInt8[np.ndarray, "p 4"]


def export_volume(settings: VolumeExport, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
    """Writes the volume in the format of the extension of `out`, and a .json with resolution and bounds."""
    check_output(out, (".vol", ".raw", ".npz"), ".vol, .raw or .npz")
    check_min(settings, resolution=1)
    if out.suffix == ".vol" and settings.resolution > MAX_VOL_RESOLUTION:
        found, expected = str(settings.resolution), f"at most {MAX_VOL_RESOLUTION} for .vol"
        raise DataError("export volume", "resolution", found, expected, "lower it, or write .raw or .npz")
    field = WorldField(run)
    grid = select_grid(settings, run, field)
    with replacing(out) as temporary:
        match out.suffix:
            case ".vol":
                write_vol(temporary, sample_slabs(field, grid, "yxz", progress))
            case ".raw":
                write_raw(temporary, sample_slabs(field, grid, "zyx", progress))
            case _:
                write_npz(temporary, sample_slabs(field, grid, "zyx", progress), grid)
        write_json(out.with_suffix(".json"), volume_metadata(grid, out))


def select_grid(settings: VolumeExport, run: LoadedRun, field: WorldField) -> CubeGrid:
    """The requested cube; missing values follow from the density, or from the region of interest if unbounded."""
    if settings.cube_size is not None and not settings.cube_size > 0:
        found = f"{settings.cube_size:g}"
        raise DataError("export volume", "cube_size", found, "a positive number", "raise --cube-size")
    scene = run.scenes["train"]
    cube = region_grid(scene)
    if settings.center is None and settings.cube_size is None and not scene.unbounded and scene.ndc is None:
        cube = tighten_grid(cube, field, run.folder)
    center = cube.low + cube.size / 2 if settings.center is None else torch.tensor(settings.center)
    size = settings.cube_size or cube.size
    if not scene.unbounded and bool(((center - cube.low - cube.size / 2).abs() > (size + cube.size) / 2).any()):
        low, high = cube.low.tolist(), (cube.low + cube.size).tolist()
        expected = f"a cube that overlaps the scene, between {tuple(low)} and {tuple(high)}"
        raise DataError(
            "export volume", "cube", "a cube outside the scene", expected, "correct --center or --cube-size"
        )
    return CubeGrid(center - size / 2, size, settings.resolution)


def region_grid(scene: Scene) -> CubeGrid:
    """Coarse grid over a cube around the region of interest, or in front of the cameras of an NDC scene."""
    low, high = scene.box if scene.ndc is None else frustum_cube(scene.ndc)
    size = float((high - low).max()) * scene.frame.scale
    return CubeGrid(scene.frame.to_world((low + high) / 2) - size / 2, size, COARSE_RESOLUTION)


def frustum_cube(ndc: Ndc) -> Float[Tensor, "2 3"]:
    """Cube with its front on the near plane that is as wide as the camera frustum at its center [scene units]."""
    width_per_depth = min(ndc.size[0] / ndc.focal[0], MAX_WIDTH_PER_DEPTH)
    size = ndc.plane * width_per_depth / (1 - width_per_depth / 2)
    return torch.tensor([[-size / 2, -size / 2, ndc.plane], [size / 2, size / 2, ndc.plane + size]])


def tighten_grid(cube: CubeGrid, field: WorldField, folder: Path) -> CubeGrid:
    """Smallest cube around the cells with opacity above `MIN_OPACITY`, with a margin of one cell."""
    optical_depth = torch.cat([field.density(points) for points in cube.cell_centers("zyx")]) * cube.cell_size
    is_opaque = 1 - torch.exp(-optical_depth) > MIN_OPACITY
    index = is_opaque.view((cube.resolution,) * 3).nonzero().flip(-1)
    if len(index) == 0:
        raise empty_cube_error(folder)
    low, high = index.amin(0) - 1, index.amax(0) + 2
    size = float((high - low).max()) * cube.cell_size
    return CubeGrid(cube.low + cube.cell_size * (low + high) / 2 - size / 2, size, cube.resolution)


def empty_cube_error(folder: Path) -> DataError:
    """Error for a cube without density."""
    fix = "choose another --center and --cube-size, or train longer"
    return DataError(folder, "density", "an empty cube", "opaque density", fix)


def sample_slabs(
    field: WorldField, grid: CubeGrid, axis_order: AxisOrder, progress: Progress | None = None
) -> Iterator[VolumeSlab]:
    """Density and color of the cells, slab by slab; raises `DataError` at the end if all are empty."""
    num_completed, is_empty = 0, True
    for points in grid.cell_centers(axis_order):
        density = field.density(points)
        alpha = (-torch.expm1(-density * grid.cell_size) * 255).to(torch.uint8)
        rgba = torch.zeros(len(points), 4, dtype=torch.uint8)
        occupied = alpha.nonzero()[:, 0]
        rgba[occupied, :3] = (field.colors(points[occupied]) * 255).to(torch.uint8)
        rgba[:, 3] = alpha
        is_empty, num_completed = is_empty and len(occupied) == 0, num_completed + len(points)
        yield VolumeSlab(density.numpy(), rgba.numpy())
        if progress is not None:
            progress(num_completed // grid.resolution**2, grid.resolution)
    if is_empty:
        raise empty_cube_error(field.run.folder)


def write_vol(path: Path, slabs: Iterator[VolumeSlab]) -> None:
    """Sparse volume for Unity: per visible cell its index (y N + x) N + z and R << 24 | G << 16 | B << 8 | A.

    Little-endian 32-bit values without header; colors and alpha are truncated to 8 bits.
    """
    start = 0
    with path.open("wb") as file:
        for slab in slabs:
            index = np.flatnonzero(slab.rgba[:, 3])
            # Bytes of R << 24 | G << 16 | B << 8 | A as one big-endian number.
            color = slab.rgba[index].view(">u4")[:, 0]
            file.write(np.stack([index + start, color], 1).astype("<u4").tobytes())
            start += len(slab.rgba)


def write_raw(path: Path, slabs: Iterator[VolumeSlab]) -> None:
    """3D texture with 8-bit RGBA per cell; x varies fastest, then y, then z."""
    with path.open("wb") as file:
        for slab in slabs:
            file.write(slab.rgba.tobytes())


def write_npz(path: Path, slabs: Iterator[VolumeSlab], grid: CubeGrid) -> None:
    """NumPy archive with `density` [1 / world unit] and 8-bit `rgb` at `[z, y, x]`, and `bounds`."""
    shape = (grid.resolution,) * 3
    with ZipFile(path, "w") as archive, tempfile.TemporaryFile(dir=path.parent) as colors:
        with open_npz_member(archive, "density", shape, np.float32) as file:
            for slab in slabs:
                file.write(slab.density.astype("<f4").tobytes())
                colors.write(slab.rgba[:, :3].tobytes())
        colors.seek(0)
        with open_npz_member(archive, "rgb", (*shape, 3), np.uint8) as file:
            shutil.copyfileobj(colors, file, 2**22)
        with open_npz_member(archive, "bounds", (2, 3), np.float32) as file:
            file.write(torch.stack([grid.low, grid.low + grid.size]).numpy().astype("<f4").tobytes())


@contextmanager
def open_npz_member(archive: ZipFile, name: str, shape: tuple[int, ...], dtype: type) -> Iterator[IO[bytes]]:
    """Member of an .npz archive, after its header, to write the data of an array to."""
    header = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def volume_metadata(grid: CubeGrid, out: Path) -> dict[str, Any]:
    """Content of the .json file for readers of the volume."""
    low, high = grid.low.tolist(), (grid.low + grid.size).tolist()
    return {"file": out.name, "cells": grid.resolution, "low": low, "high": high}
