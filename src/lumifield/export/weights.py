"""A portable scene: the part of a run folder that rendering needs, as a folder or in one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import torch
from torch import Tensor

from lumifield.export import Weights
from lumifield.methods.base import Method
from lumifield.runs.run_folder import CAMERAS, CONFIG, WEIGHTS, write_cameras, write_json, write_tensors
from lumifield.runtime.files import check_output, replacing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun


def write(settings: Weights, run: LoadedRun, out: Path) -> None:
    """Writes config.json, cameras.json and weights.safetensors to a folder, or packed into one zip file."""
    check_output(out, ("", ".zip"), ".zip, or none for a folder")
    if out.suffix == "":
        write_parts(settings, run, out)
        return
    with tempfile.TemporaryDirectory() as folder, replacing(out) as temporary:
        write_parts(settings, run, Path(folder))
        with ZipFile(temporary, "w") as archive:
            for name in (CONFIG, CAMERAS, WEIGHTS):
                # Without the time of its making: equal scenes are equal files.
                archive.writestr(ZipInfo(name), (Path(folder) / name).read_bytes(), ZIP_DEFLATED)


def write_parts(settings: Weights, run: LoadedRun, folder: Path) -> None:
    """The files of a portable scene; nothing in them says where the images were."""
    config = {key: run.config[key] for key in ("format", "lumifield", "method")}
    write_json(folder / CONFIG, config | {"source": None})
    write_cameras(folder / CAMERAS, run.scenes)
    write_tensors(folder / WEIGHTS, subdivide_cells(run.method) if settings.half else run.method.state_dict())


def subdivide_cells(method: Method) -> dict[str, Tensor]:
    """A method's state with parameters of 16 bits, kept finite; buffers (bounds, occupied cells) stay as they are."""
    most = torch.finfo(torch.float16).max
    parameters = {name: value.detach().clamp(-most, most).half() for name, value in method.named_parameters()}
    return method.state_dict() | parameters
