"""The run folder: plain files without executable content, each written atomically.

`config.json` (settings), `cameras.json` (every split without its images), `weights.safetensors` (best so far),
`state/last.safetensors` (everything for exact resumption), `log/`, `eval/`. The first three files, as a folder or in
one zip file, are a portable scene.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lumifield.data import Source, open_capture
from lumifield.data.capture import Capture
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rays import Ndc
from lumifield.methods.base import Method
from lumifield.runs.run_config import CONFIG, RunConfig, read_config
from lumifield.runtime.config import from_plain, mapping, read_json, to_plain
from lumifield.runtime.files import replacing, write_json

MAX_PORTABLE_BYTES = 2**32
CAMERAS, WEIGHTS, STATE, SUMMARY = (
    "cameras.json",
    "weights.safetensors",
    "state/last.safetensors",
    "log/summary.json",
)


@dataclass(frozen=True)
class TrainingSummary:
    """Content of log/summary.json: training time, rays, steps, and number of training images of one scene."""

    seconds: float = 0.0
    rays: int = 0
    steps: int = 0
    n_train_images: int | None = None


@dataclass(frozen=True)
class LoadedRun:
    """A trained run ready to render; `scenes` holds the splits without images.

    `source` is where the images are now; `chunk` is the number of rays rendered at once (None: chosen by the device).
    """

    folder: Path
    method: Method
    config: RunConfig
    source: Source | None
    scenes: dict[str, Scene]
    device: torch.device
    training_summary: TrainingSummary
    chunk: int | None = None

    @cached_property
    def capture(self) -> Capture:
        """The data of the run, opened once; raises `DataError` if it is missing, and for a portable scene."""
        if self.source is None:
            found, fix = "none (a portable scene)", "use the run folder it was exported from"
            raise DataError(self.folder, "data", found, "a run with images", fix)
        return open_capture(self.source)


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any] | None = None) -> None:
    """Writes a safetensors file atomically, with JSON metadata."""
    packed = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        # The library's own save_file makes files that only their owner can read.
        temporary.write_bytes(save(packed, metadata={"about": json.dumps(about or {})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON metadata of a safetensors file; raises `DataError` if it is missing or damaged."""
    if not path.is_file():
        raise DataError(path, "file", "nothing", "a checkpoint", "name the folder of a saved run")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        found = f"damaged ({error})"
        raise DataError(path, "checkpoint", found, "a valid safetensors file", "restore it or train again") from None


def write_cameras(path: Path, scenes: dict[str, Scene]) -> None:
    """Writes the cameras and bounds of every split."""
    write_json(path, {split: _scene_to_json(scene) for split, scene in scenes.items()})


def read_run(
    path: Path,
    which: Literal["best", "last"] = "best",
    device: torch.device | str = "cpu",
    *,
    chunk: int | None = None,
) -> LoadedRun:
    """Loads a run folder or a portable scene, without images, to render `chunk` rays at once."""
    if not path.is_file():
        return _loaded(path, which, torch.device(device), chunk)
    with _extract_portable(path) as folder:
        return replace(_loaded(folder, which, torch.device(device), chunk), folder=path.with_suffix(""))


def _loaded(folder: Path, which: Literal["best", "last"], device: torch.device, chunk: int | None) -> LoadedRun:
    config = read_config(folder)
    scenes = read_split_cameras(folder / CAMERAS)
    method = config.method.build(scenes["train"])
    file = folder / (WEIGHTS if which == "best" else STATE)
    tensors, _ = read_tensors(file)
    load_weights(method, tensors if which == "best" else tensors_with_prefix(tensors, "weights."), file)
    summary = read_summary(folder / SUMMARY, len(scenes["train"]))
    return LoadedRun(folder, method.to(device).eval(), config, config.source, scenes, device, summary, chunk)


def read_summary(file: Path, num_train_images: int) -> TrainingSummary:
    """Summary of the training; that of no training if the file is missing."""
    plain = {"n_train_images": num_train_images}
    if file.is_file():
        plain |= mapping(read_json(file), file, "content")
    return from_plain(TrainingSummary, plain, file)


@contextmanager
def _extract_portable(path: Path) -> Iterator[Path]:
    """Extracts a portable scene to a temporary folder; errors inside name the zip file."""
    fix = "copy or export it again"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with ZipFile(path) as archive:
                parts = [archive.getinfo(name) for name in (CONFIG, CAMERAS, WEIGHTS)]
                if sum(part.file_size for part in parts) > MAX_PORTABLE_BYTES:
                    raise DataError(path, "content", f"more than {MAX_PORTABLE_BYTES:,} bytes", "a portable scene", fix)
                for part in parts:
                    archive.extract(part, folder)
            yield Path(folder)
        except KeyError as error:
            raise DataError(path, "content", f"no {error.args[0]}", "a portable scene", fix) from None
        except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(path, "file", f"damaged ({error})", "a run's folder or a portable scene", fix) from None
        except DataError as error:
            place = error.path.replace(folder, str(path), 1)
            raise DataError(place, error.field, error.found, error.expected, error.fix) from None


def load_weights(method: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    """Loads weights into a method or network; raises `DataError` if names or shapes differ."""
    own = method.state_dict()
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if wrong:
        raise DataError(
            file, "parameters", f"a mismatch in {wrong[0]}", "the parameters of the method", "load the run's own file"
        )
    method.load_state_dict(weights)


def tensors_with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, with the prefix removed."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _scene_to_json(scene: Scene) -> dict[str, Any]:
    cameras, frame = scene.cameras, scene.frame
    return {
        "names": list(scene.names),
        "c2w": cameras.c2w.tolist(),
        "focal": cameras.focal.tolist(),
        "center": cameras.center.tolist(),
        "size": cameras.size.tolist(),
        "distortion": cameras.distortion.tolist(),
        "near": scene.near.tolist(),
        "far": scene.far.tolist(),
        "box": scene.box.tolist(),
        "frame": {
            "rotation": frame.rotation.tolist(),
            "translation": frame.translation.tolist(),
            "scale": float(frame.scale),
        },
        "background": scene.background,
        "unbounded": scene.unbounded,
        "bounds_are_z_depth": scene.bounds_are_z_depth,
        "ndc": None if scene.ndc is None else to_plain(scene.ndc),
    }


def read_split_cameras(file: Path) -> dict[str, Scene]:
    """Splits in cameras.json; raises `DataError` if the file is damaged."""
    plain = mapping(read_json(file), file, "content")
    try:
        scenes = {split: _scene_from_json(one) for split, one in plain.items()}
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        found, fix = f"damaged ({type(error).__name__}: {error})", "restore the file or train again"
        raise DataError(file, "content", found, "the cameras of the run", fix) from None
    if "train" not in scenes:
        raise DataError(file, "train split", "nothing", "the cameras of the run", "restore the file or train again")
    return scenes


def _scene_from_json(plain: dict[str, Any]) -> Scene:
    n = len(plain["names"])
    cameras = Cameras(
        c2w=torch.tensor(plain["c2w"], dtype=torch.float32).reshape(n, 3, 4),
        focal=torch.tensor(plain["focal"], dtype=torch.float32).reshape(n, 2),
        center=torch.tensor(plain["center"], dtype=torch.float32).reshape(n, 2),
        size=torch.tensor(plain["size"], dtype=torch.int64).reshape(n, 2),
        distortion=torch.tensor(plain["distortion"], dtype=torch.float32).reshape(n, 4),
    )
    frame, ndc = plain["frame"], plain["ndc"]
    rotation, translation = torch.tensor(frame["rotation"]), torch.tensor(frame["translation"])
    return Scene(
        cameras=cameras,
        names=tuple(plain["names"]),
        frame=Frame(rotation.reshape(3, 3), translation.reshape(3), float(frame["scale"])),
        background=plain["background"],
        unbounded=plain["unbounded"],
        bounds_are_z_depth=plain.get("bounds_are_z_depth", False),
        ndc=None if ndc is None else Ndc(tuple(ndc["focal"]), tuple(ndc["size"]), ndc["plane"]),
        near=torch.tensor(plain["near"], dtype=torch.float32).reshape(n),
        far=torch.tensor(plain["far"], dtype=torch.float32).reshape(n),
        box=torch.tensor(plain["box"], dtype=torch.float32).reshape(2, 3),
    )
