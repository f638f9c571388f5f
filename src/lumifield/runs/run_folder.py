"""The run folder: plain files without executable content, each whole or absent.

`config.json` (settings), `cameras.json` (every split without its images), `weights.safetensors` (best so far),
`state/last.safetensors` (all that an exact resumption needs), `log/`, `eval/`. The first three are a portable scene, as
a folder or packed into one zip file.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import lumifield
from lumifield.data import Source
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rays import Ndc
from lumifield.methods import METHODS, Settings, kind_of
from lumifield.methods.base import Method
from lumifield.runs import bundled
from lumifield.runtime.config import from_plain, mapping, read_json, to_plain
from lumifield.runtime.files import replacing

FORMAT = 1
LARGEST_PORTABLE = 2**32
CONFIG, CAMERAS, WEIGHTS, STATE, SUMMARY = (
    "config.json",
    "cameras.json",
    "weights.safetensors",
    "state/last.safetensors",
    "log/summary.json",
)


@dataclass(frozen=True)
class Run:
    """A trained run, ready to render: `scenes` holds the splits without images.

    `chunk` is the number of rays rendered at once (None: by the device).
    """

    folder: Path
    method: Method
    config: dict[str, Any]
    source: Source | None
    scenes: dict[str, Scene]
    device: torch.device
    train: dict[str, Any]
    chunk: int | None = None


def write_json(path: Path, content: Any) -> None:
    """Writes JSON under its final name in one move."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any] | None = None) -> None:
    """Writes tensors under their final name in one move, with a JSON note."""
    packed = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        # Of its own accord the library would leave a file that nobody else may read.
        temporary.write_bytes(save(packed, metadata={"about": json.dumps(about or {})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and note of a file; raises `DataError` where it is missing or damaged."""
    if not path.is_file():
        raise DataError(path, "file", "missing", "a checkpoint", "point at the folder of a run that has been saved")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        found = f"damaged ({error})"
        raise DataError(path, "checkpoint", found, "a whole safetensors file", "train again or restore it") from None


def start(
    folder: Path, method: Method, settings: Settings, source: Source, plan: dict[str, Any], scenes: dict[str, Scene]
) -> None:
    """Writes what does not change while a run goes on; `plan` are the settings of the training by what it is."""
    config = {
        "format": FORMAT,
        "lumifield": lumifield.__version__,
        "method": {"kind": kind_of(settings)} | to_plain(method.settings),
        "source": to_plain(source) | {"data": str(source.data.resolve())},
    }
    for what, settings_of in plan.items():
        init = settings_of.init
        config[what] = to_plain(settings_of) | ({"init": str(bundled.found(init).resolve())} if init else {})
    write_json(folder / CONFIG, config)
    write_scenes(folder / CAMERAS, scenes)


def write_scenes(path: Path, scenes: dict[str, Scene]) -> None:
    """Writes every split without its images."""
    write_json(path, {split: _plain_scene(scene) for split, scene in scenes.items()})


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a run; raises `DataError` for a folder that holds none, or one of another version."""
    if not (folder / CONFIG).is_file():
        raise DataError(folder, "run folder", "without config.json", "the folder of a run", "check the path")
    config = read_json(folder / CONFIG)
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        fix = "use the release of Lumifield that wrote it, or train again"
        raise DataError(folder / CONFIG, "format", repr(found), str(FORMAT), fix)
    return config


def method_settings(config: dict[str, Any], file: Path) -> Settings:
    """The method's settings in a run's config."""
    plain = dict(mapping(config.get("method"), file, "method"))
    kind = plain.pop("kind", None)
    if kind not in tuple(METHODS):
        raise DataError(file, "method kind", repr(kind), f"one of {', '.join(METHODS)}", "correct it")
    return from_plain(METHODS[kind], plain, file)


def load(
    path: Path,
    which: Literal["best", "last"] = "best",
    device: torch.device | str = "cpu",
    *,
    chunk: int | None = None,
) -> Run:
    """A run from its folder or a portable scene, without its images, to be rendered `chunk` rays at once."""
    if not path.is_file():
        return _loaded(path, which, torch.device(device), chunk)
    with _unpacked(path) as folder:
        return replace(_loaded(folder, which, torch.device(device), chunk), folder=path.with_suffix(""))


def _loaded(folder: Path, which: Literal["best", "last"], device: torch.device, chunk: int | None) -> Run:
    config = read_config(folder)
    portable = "source" in config and config["source"] is None
    source = None if portable else from_plain(Source, config.get("source"), folder / CONFIG)
    scenes = read_scenes(folder / CAMERAS)
    method = method_settings(config, folder / CONFIG).build(scenes["train"])
    file = folder / (WEIGHTS if which == "best" else STATE)
    tensors, _ = read_tensors(file)
    set_weights(method, tensors if which == "best" else part(tensors, "weights."), file)
    summary = folder / SUMMARY
    train = {"seconds": 0.0, "rays": 0, "steps": 0, "n_train_images": len(scenes["train"])}
    train |= mapping(read_json(summary), summary, "content") if summary.is_file() else {}
    return Run(folder, method.to(device).eval(), config, source, scenes, device, train, chunk)


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The folder of a portable scene in one file, while the block lasts; its faults are told as those of the file."""
    fix = "get it again, or export it again"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with ZipFile(path) as archive:
                parts = [archive.getinfo(name) for name in (CONFIG, CAMERAS, WEIGHTS)]
                if sum(part.file_size for part in parts) > LARGEST_PORTABLE:
                    raise DataError(path, "content", "far larger than any scene", "a portable scene", fix)
                for part in parts:
                    archive.extract(part, folder)
            yield Path(folder)
        except KeyError as error:
            raise DataError(path, "content", f"incomplete ({error.args[0]})", "a portable scene", fix) from None
        except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(path, "file", f"damaged ({error})", "a run's folder or a portable scene", fix) from None
        except DataError as error:
            place = error.path.replace(folder, str(path), 1)
            raise DataError(place, error.field, error.found, error.expected, error.fix) from None


def set_weights(method: Method, weights: dict[str, Tensor], file: Path) -> None:
    """Puts weights into a method; raises `DataError` where names or shapes differ."""
    own = method.state_dict()
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if wrong:
        raise DataError(
            file, "parameters", f"different in {wrong[0]}", "those of the method", "load the run's own file"
        )
    method.load_state_dict(weights)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def flat_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A torch optimizer's state as named tensors and a JSON note."""
    tensors, plain = {}, {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                plain[f"{index}.{key}"] = value
    return tensors, {"groups": state["param_groups"], "values": plain}


def nested_optimizer(tensors: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat_optimizer`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in (tensors | about["values"]).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in about["groups"]]
    return {"state": state, "param_groups": groups}


def _plain_scene(scene: Scene) -> dict[str, Any]:
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
        "planes": scene.bounds_are_z_depth,
        "ndc": None if scene.ndc is None else to_plain(scene.ndc),
    }


def read_scenes(file: Path) -> dict[str, Scene]:
    """The splits in cameras.json; raises `DataError` where they are not what was written."""
    plain = mapping(read_json(file), file, "content")
    try:
        scenes = {split: _scene(one) for split, one in plain.items()}
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        found, fix = f"damaged ({type(error).__name__}: {error})", "restore the file or train again"
        raise DataError(file, "content", found, "the cameras of the run", fix) from None
    if "train" not in scenes:
        raise DataError(file, "train split", "missing", "the cameras of the run", "restore the file or train again")
    return scenes


def _scene(plain: dict[str, Any]) -> Scene:
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
        bounds_are_z_depth=plain.get("planes", False),
        ndc=None if ndc is None else Ndc(tuple(ndc["focal"]), tuple(ndc["size"]), ndc["plane"]),
        near=torch.tensor(plain["near"], dtype=torch.float32).reshape(n),
        far=torch.tensor(plain["far"], dtype=torch.float32).reshape(n),
        box=torch.tensor(plain["box"], dtype=torch.float32).reshape(2, 3),
    )
