"""Volumes: density and color in the cells of a cube, written slab by slab."""

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
from lumifield.export import Progress, Volume
from lumifield.export.field import WorldField
from lumifield.geometry.rays import Ndc
from lumifield.runs.run_folder import write_json
from lumifield.runtime.config import at_least
from lumifield.runtime.files import check_output, replacing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

POINTS = 2**18
PROBES = 64
SEEN = 0.05
MOST_OF_VOL = 1625
"""A flat index of the .vol file has 32 bits."""
Order = Literal["yxz", "zyx"]


@dataclass(frozen=True)
class Cube:
    """`cells` cells along each side of a cube with the given lower corner [world units]."""

    low: Float[Tensor, "3"]
    side: float
    cells: int

    @property
    def cell(self) -> float:
        """Length of a cell's side."""
        return self.side / self.cells

    def slabs(self, order: Order) -> Iterator[Float[Tensor, "p 3"]]:
        """Middles of the cells, some layers at a time; `order` names the axes from the slowest index to the fastest."""
        layers = max(POINTS // self.cells**2, 1)
        every = torch.arange(self.cells)
        for some in every.split(layers):
            index = dict(zip(order, torch.meshgrid(some, every, every, indexing="ij"), strict=True))
            midpoints = torch.stack([index[axis].reshape(-1) for axis in "xyz"], -1) + 0.5
            yield self.low + self.cell * midpoints


@dataclass(frozen=True)
class Slab:
    """Cells in a row: density [1 / world unit], and 8-bit rgb and alpha, all zero where alpha is."""

    density: Float[np.ndarray, " p"]
    rgba: UInt8[np.ndarray, "p 4"]


def write(settings: Volume, run: LoadedRun, out: Path, progress: Progress | None = None) -> None:
    """Writes the volume in the format that the ending of `out` names, and `out` with .json: cells and bounds."""
    check_output(out, (".vol", ".raw", ".npz"), ".vol, .raw or .npz")
    at_least(1, settings, "resolution")
    if out.suffix == ".vol" and settings.resolution > MOST_OF_VOL:
        found, expected = str(settings.resolution), f"at most {MOST_OF_VOL} for .vol"
        raise DataError("volume", "resolution", found, expected, "lower it, or write .raw or .npz")
    field = WorldField(run)
    cube = chosen_cube(settings, run, field)
    with replacing(out) as temporary:
        match out.suffix:
            case ".vol":
                write_vol(temporary, slabs(field, cube, "yxz", progress))
            case ".raw":
                write_raw(temporary, slabs(field, cube, "zyx", progress))
            case _:
                write_npz(temporary, slabs(field, cube, "zyx", progress), cube)
        write_json(out.with_suffix(".json"), described(cube, out))


def chosen_cube(settings: Volume, run: LoadedRun, field: WorldField) -> Cube:
    """The cube asked for; what is not given follows from the matter, in an open scene from the region of interest."""
    if settings.side is not None and not settings.side > 0:
        raise DataError("volume", "side", f"{settings.side:g}", "above 0", "raise it")
    scene = run.scenes["train"]
    cube = region(scene)
    if settings.center is None and settings.side is None and not scene.unbounded and scene.ndc is None:
        cube = tightened(cube, field, run.folder)
    middle = cube.low + cube.side / 2 if settings.center is None else torch.tensor(settings.center)
    side = settings.side or cube.side
    if not scene.unbounded and bool(((middle - cube.low - cube.side / 2).abs() > (side + cube.side) / 2).any()):
        reach = f"between {tuple(cube.low.tolist())} and {tuple((cube.low + cube.side).tolist())}"
        raise DataError("volume", "cube", "outside the scene", f"one that reaches into the space {reach}", "move it")
    return Cube(middle - side / 2, side, settings.resolution)


def region(scene: Scene) -> Cube:
    """The cube in which matter lies, as coarse cells: about the region of interest, or before an NDC scene's camera."""
    low, high = scene.box if scene.ndc is None else frustum(scene.ndc)
    side = float((high - low).max()) * scene.frame.scale
    return Cube(scene.frame.to_world((low + high) / 2) - side / 2, side, PROBES)


def frustum(ndc: Ndc) -> Float[Tensor, "2 3"]:
    """A cube whose front is the near plane and whose middle fills the view, for lenses that are not too wide."""
    slope = min(ndc.size[0] / ndc.focal[0], 1.6)
    side = ndc.plane * slope / (1 - slope / 2)
    return torch.tensor([[-side / 2, -side / 2, ndc.plane], [side / 2, side / 2, ndc.plane + side]])


def tightened(cube: Cube, field: WorldField, folder: Path) -> Cube:
    """The smallest cube about the coarse cells that stop a twentieth of the light or more, a cell wider."""
    optical_depth = torch.cat([field.density(points) for points in cube.slabs("zyx")]) * cube.cell
    seen = (1 - torch.exp(-optical_depth) > SEEN).view((cube.cells,) * 3).nonzero().flip(-1)
    if len(seen) == 0:
        raise nothing(folder)
    low, high = seen.amin(0) - 1, seen.amax(0) + 2
    side = float((high - low).max()) * cube.cell
    return Cube(cube.low + cube.cell * (low + high) / 2 - side / 2, side, cube.cells)


def nothing(folder: Path) -> DataError:
    """The error about a cube without matter."""
    fix = "choose another center and side, or train for longer"
    return DataError(folder, "density", "empty in the cube", "matter that light does not pass", fix)


def slabs(field: WorldField, cube: Cube, order: Order, progress: Progress | None = None) -> Iterator[Slab]:
    """The cells' contents, slab by slab; raises `DataError` at the end where all were empty."""
    done, found = 0, False
    for points in cube.slabs(order):
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
        raise nothing(field.run.folder)


def write_vol(path: Path, slabs: Iterator[Slab]) -> None:
    """Unity's sparse volume: for each cell that is seen, its index (y N + x) N + z and R << 24 | G << 16 | B << 8 | A.

    Both are little-endian and of 32 bits; colors and alpha are truncated to 8 bits. There is no header.
    """
    start = 0
    with path.open("wb") as file:
        for slab in slabs:
            index = np.flatnonzero(slab.rgba[:, 3])
            # The bytes of R << 24 | G << 16 | B << 8 | A, read as one big-endian number.
            color = slab.rgba[index].view(">u4")[:, 0]
            file.write(np.stack([index + start, color], 1).astype("<u4").tobytes())
            start += len(slab.rgba)


def write_raw(path: Path, slabs: Iterator[Slab]) -> None:
    """A 3D texture: R, G, B and A of every cell, 8 bits each; x runs fastest, then y, then z."""
    with path.open("wb") as file:
        for slab in slabs:
            file.write(slab.rgba.tobytes())


def write_npz(path: Path, slabs: Iterator[Slab], cube: Cube) -> None:
    """`density` [1 / world unit] and 8-bit `rgb` at `[z, y, x]`, and the `bounds` of the cube, as NumPy reads them."""
    shape = (cube.cells,) * 3
    with ZipFile(path, "w") as archive, tempfile.TemporaryFile(dir=path.parent) as colors:
        with array_file(archive, "density", shape, np.float32) as file:
            for slab in slabs:
                file.write(slab.density.astype("<f4").tobytes())
                colors.write(slab.rgba[:, :3].tobytes())
        colors.seek(0)
        with array_file(archive, "rgb", (*shape, 3), np.uint8) as file:
            shutil.copyfileobj(colors, file, 2**22)
        with array_file(archive, "bounds", (2, 3), np.float32) as file:
            file.write(torch.stack([cube.low, cube.low + cube.side]).numpy().astype("<f4").tobytes())


@contextmanager
def array_file(archive: ZipFile, name: str, shape: tuple[int, ...], kind: type) -> Iterator[IO[bytes]]:
    """A member of an .npz archive, with its header, to write the numbers of an array to."""
    about = {"descr": np.dtype(kind).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, about)
        yield file


def described(cube: Cube, out: Path) -> dict[str, Any]:
    """What a reader of the volume needs to know."""
    about = {"cells": cube.cells, "low": cube.low.tolist(), "high": (cube.low + cube.side).tolist()}
    return {"file": out.name} | about
