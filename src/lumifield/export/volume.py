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
from lumifield.runs.run_folder import write_json
from lumifield.runtime.config import at_least
from lumifield.runtime.files import check_output, replacing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

POINTS = 2**18
PROBES = 64
MIN_OPACITY = 0.05
MAX_VOL_RESOLUTION = 1625
"""Maximum resolution of .vol, whose flat index has 32 bits."""
AxisOrder = Literal["yxz", "zyx"]


@dataclass(frozen=True)
class Cube:
    """Cube of `cells`^3 cells with the given lower corner [world units]."""

    low: Float[Tensor, "3"]
    side: float
    cells: int

    @property
    def cell(self) -> float:
        """Cell size [world units]."""
        return self.side / self.cells

    def volume_slabs(self, order: AxisOrder) -> Iterator[Float[Tensor, "p 3"]]:
        """Middles of the cells, some layers at a time; `order` names the axes from the slowest index to the fastest."""
        layers = max(POINTS // self.cells**2, 1)
        every = torch.arange(self.cells)
        for some in every.split(layers):
            index = dict(zip(order, torch.meshgrid(some, every, every, indexing="ij"), strict=True))
            midpoints = torch.stack([index[axis].reshape(-1) for axis in "xyz"], -1) + 0.5
            yield self.low + self.cell * midpoints


@dataclass(frozen=True)
class Slab:
    """Consecutive cells: density [1 / world unit], and 8-bit RGBA, all zero where alpha is zero."""

    density: Float[np.ndarray, " p"]
    rgba: UInt8[np.ndarray, "p 4"]


def write_volume(settings: VolumeExport, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
    """Writes the volume in the format of the extension of `out`, and a .json with resolution and bounds."""
    check_output(out, (".vol", ".raw", ".npz"), ".vol, .raw or .npz")
    at_least(1, settings, "resolution")
    if out.suffix == ".vol" and settings.resolution > MAX_VOL_RESOLUTION:
        found, expected = str(settings.resolution), f"at most {MAX_VOL_RESOLUTION} for .vol"
        raise DataError("volume", "resolution", found, expected, "lower it, or write .raw or .npz")
    field = WorldField(run)
    cube = choose_cube(settings, run, field)
    with replacing(out) as temporary:
        match out.suffix:
            case ".vol":
                write_vol(temporary, volume_slabs(field, cube, "yxz", progress))
            case ".raw":
                write_raw(temporary, volume_slabs(field, cube, "zyx", progress))
            case _:
                write_npz(temporary, volume_slabs(field, cube, "zyx", progress), cube)
        write_json(out.with_suffix(".json"), describe_volume(cube, out))


def choose_cube(settings: VolumeExport, run: LoadedRun, field: WorldField) -> Cube:
    """The requested cube; missing values follow from the density, or from the region of interest if unbounded."""
    if settings.cube_size is not None and not settings.cube_size > 0:
        raise DataError("volume", "cube_size", f"{settings.cube_size:g}", "above 0", "raise it")
    scene = run.scenes["train"]
    cube = density_region(scene)
    if settings.center is None and settings.cube_size is None and not scene.unbounded and scene.ndc is None:
        cube = tighten_cube(cube, field, run.folder)
    middle = cube.low + cube.side / 2 if settings.center is None else torch.tensor(settings.center)
    side = settings.cube_size or cube.side
    if not scene.unbounded and bool(((middle - cube.low - cube.side / 2).abs() > (side + cube.side) / 2).any()):
        reach = f"between {tuple(cube.low.tolist())} and {tuple((cube.low + cube.side).tolist())}"
        raise DataError("volume", "cube", "a cube outside the scene", f"one that overlaps the space {reach}", "move it")
    return Cube(middle - side / 2, side, settings.resolution)


def density_region(scene: Scene) -> Cube:
    """Cube around the region of interest, or in front of an NDC camera, in coarse cells."""
    low, high = scene.box if scene.ndc is None else frustum_cube(scene.ndc)
    side = float((high - low).max()) * scene.frame.scale
    return Cube(scene.frame.to_world((low + high) / 2) - side / 2, side, PROBES)


def frustum_cube(ndc: Ndc) -> Float[Tensor, "2 3"]:
    """Cube with its front on the near plane that covers the view of moderate focal lengths."""
    slope = min(ndc.size[0] / ndc.focal[0], 1.6)
    side = ndc.plane * slope / (1 - slope / 2)
    return torch.tensor([[-side / 2, -side / 2, ndc.plane], [side / 2, side / 2, ndc.plane + side]])


def tighten_cube(cube: Cube, field: WorldField, folder: Path) -> Cube:
    """Smallest cube around the coarse cells with opacity of at least 0.05, one cell larger."""
    optical_depth = torch.cat([field.density(points) for points in cube.volume_slabs("zyx")]) * cube.cell
    seen = (1 - torch.exp(-optical_depth) > MIN_OPACITY).view((cube.cells,) * 3).nonzero().flip(-1)
    if len(seen) == 0:
        raise empty_cube_error(folder)
    low, high = seen.amin(0) - 1, seen.amax(0) + 2
    side = float((high - low).max()) * cube.cell
    return Cube(cube.low + cube.cell * (low + high) / 2 - side / 2, side, cube.cells)


def empty_cube_error(folder: Path) -> DataError:
    """Error for a cube without density."""
    fix = "choose another center and cube size, or train longer"
    return DataError(folder, "density", "an empty cube", "opaque density", fix)


def volume_slabs(field: WorldField, cube: Cube, order: AxisOrder, progress: Progress | None = None) -> Iterator[Slab]:
    """Contents of the cells by slab; raises `DataError` at the end if all are empty."""
    done, found = 0, False
    for points in cube.volume_slabs(order):
        density = field.density(points)
        alpha = (-torch.expm1(-density * cube.cell) * 255).to(torch.uint8)
        rgba = torch.zeros(len(points), 4, dtype=torch.uint8)
        filled = alpha.nonzero()[:, 0]
        rgba[filled, :3] = (field.colors(points[filled]) * 255).to(torch.uint8)
        rgba[:, 3] = alpha
        found, done = found or len(filled) > 0, done + len(points)
        yield Slab(density.numpy(), rgba.numpy())
        if progress is not None:
            progress(done // cube.cells**2, cube.cells)
    if not found:
        raise empty_cube_error(field.run.folder)


def write_vol(path: Path, volume_slabs: Iterator[Slab]) -> None:
    """Sparse volume for Unity: per visible cell its index (y N + x) N + z and R << 24 | G << 16 | B << 8 | A.

    Little-endian 32-bit values without header; colors and alpha are truncated to 8 bits.
    """
    start = 0
    with path.open("wb") as file:
        for slab in volume_slabs:
            index = np.flatnonzero(slab.rgba[:, 3])
            # Bytes of R << 24 | G << 16 | B << 8 | A as one big-endian number.
            color = slab.rgba[index].view(">u4")[:, 0]
            file.write(np.stack([index + start, color], 1).astype("<u4").tobytes())
            start += len(slab.rgba)


def write_raw(path: Path, volume_slabs: Iterator[Slab]) -> None:
    """3D texture with 8-bit RGBA per cell; x runs fastest, then y, then z."""
    with path.open("wb") as file:
        for slab in volume_slabs:
            file.write(slab.rgba.tobytes())


def write_npz(path: Path, volume_slabs: Iterator[Slab], cube: Cube) -> None:
    """`density` [1 / world unit], 8-bit `rgb` at `[z, y, x]`, and `bounds`, for NumPy."""
    shape = (cube.cells,) * 3
    with ZipFile(path, "w") as archive, tempfile.TemporaryFile(dir=path.parent) as colors:
        with array_file(archive, "density", shape, np.float32) as file:
            for slab in volume_slabs:
                file.write(slab.density.astype("<f4").tobytes())
                colors.write(slab.rgba[:, :3].tobytes())
        colors.seek(0)
        with array_file(archive, "rgb", (*shape, 3), np.uint8) as file:
            shutil.copyfileobj(colors, file, 2**22)
        with array_file(archive, "bounds", (2, 3), np.float32) as file:
            file.write(torch.stack([cube.low, cube.low + cube.side]).numpy().astype("<f4").tobytes())


@contextmanager
def array_file(archive: ZipFile, name: str, shape: tuple[int, ...], kind: type) -> Iterator[IO[bytes]]:
    """A member of an .npz archive, with its header written, for the data of an array."""
    about = {"descr": np.dtype(kind).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, about)
        yield file


def describe_volume(cube: Cube, out: Path) -> dict[str, Any]:
    """Metadata for readers of the volume."""
    about = {"cells": cube.cells, "low": cube.low.tolist(), "high": (cube.low + cube.side).tolist()}
    return {"file": out.name} | about
