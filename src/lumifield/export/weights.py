"""Portable scene export: the files of a run that rendering needs, as a folder or one zip file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import torch
from torch import Tensor

from lumifield.export import WeightsExport
from lumifield.methods.base import Method
from lumifield.runs.run_folder import CAMERAS, CONFIG, WEIGHTS, RunConfig, write_cameras, write_tensors
from lumifield.runtime.files import check_output, replacing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun


def export_weights(settings: WeightsExport, run: LoadedRun, out: Path) -> None:
    """Writes config.json, cameras.json and weights.safetensors to a folder, or to one zip file."""
    check_output(out, ("", ".zip"), ".zip, or none for a folder")
    if out.suffix == "":
        write_portable_scene(settings, run, out)
        return
    with tempfile.TemporaryDirectory() as folder, replacing(out) as temporary:
        write_portable_scene(settings, run, Path(folder))
        with ZipFile(temporary, "w") as archive:
            for name in (CONFIG, CAMERAS, WEIGHTS):
                # Without modification times, so that equal scenes give equal files.
                archive.writestr(ZipInfo(name), (Path(folder) / name).read_bytes(), ZIP_DEFLATED)


def write_portable_scene(settings: WeightsExport, run: LoadedRun, folder: Path) -> None:
    """Writes the files of a portable scene, without the location of the images."""
    RunConfig(run.config.method, version=run.config.version).write(folder)
    write_cameras(folder / CAMERAS, run.scenes)
    write_tensors(folder / WEIGHTS, half_precision_state(run.method) if settings.half else run.method.state_dict())


def half_precision_state(method: Method) -> dict[str, Tensor]:
    """State of a method with fp16 parameters, clamped to finite values; buffers (such as bounds) are unchanged."""
    limit = torch.finfo(torch.float16).max
    parameters = {name: value.detach().clamp(-limit, limit).half() for name, value in method.named_parameters()}
    return method.state_dict() | parameters
