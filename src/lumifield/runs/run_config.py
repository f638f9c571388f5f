"""config.json of a run: the method, the source of its images, and the settings of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lumifield.data import Source
from lumifield.errors import DataError
from lumifield.methods import METHODS, Settings, method_name
from lumifield.runs import bundled
from lumifield.runtime.config import from_plain, mapping, read_json, to_plain
from lumifield.runtime.files import write_json
from lumifield.version import VERSION

FORMAT = 1
CONFIG = "config.json"
Training = Literal["train", "meta", "pretrain"]


@dataclass(frozen=True)
class RunConfig:
    """Content of config.json; a portable scene has no source, and no training.

    `training_settings` are the settings of the training in JSON, to be read by the package of that training, and
    `scores` those of pre-training.
    """

    method: Settings
    source: Source | None = None
    training: Training | None = None
    training_settings: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[str, float] | None = None
    version: str = VERSION

    @staticmethod
    def of_training(method: Settings, source: Source | None, training: Training, settings: Any) -> RunConfig:
        """Configuration of a new run, with the absolute path of its data."""
        source = None if source is None else replace(source, data=source.data.resolve())
        return RunConfig(method, source, training, to_plain(settings))

    def write(self, folder: Path) -> None:
        """Writes config.json, with the absolute path of the run that the training is initialized from."""
        content = {"format": FORMAT, "lumifield": self.version}
        content["method"] = {"kind": method_name(self.method)} | to_plain(self.method)
        if self.training != "pretrain":
            content["source"] = to_plain(self.source)
        if self.training is not None:
            init = self.training_settings.get("init")
            path = {"init": str(bundled.resolve_initialization(Path(str(init))).resolve())} if init else {}
            content[self.training] = {**self.training_settings, **path}
        write_json(folder / CONFIG, content if self.scores is None else content | {"scores": self.scores})


def read_config(folder: Path) -> RunConfig:
    """Configuration of a run; raises `DataError` if there is none, it is damaged, or it has another format version."""
    file = folder / CONFIG
    if not file.is_file():
        raise DataError(folder, "run folder", "no config.json", "the folder of a run", "check the path")
    plain = read_json(file)
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT:
        fix = "use the release of Lumifield that wrote it, or train again"
        raise DataError(file, "format", repr(found), str(FORMAT), fix)
    training = next((kind for kind in get_args(Training) if kind in plain), None)
    has_source = training != "pretrain" and plain.get("source", "missing") is not None
    return RunConfig(
        method=read_method(plain.get("method"), file),
        source=from_plain(Source, plain.get("source"), file) if has_source else None,
        training=training,
        training_settings=mapping(plain[training], file, training) if training else {},
        scores=plain.get("scores"),
        version=plain["lumifield"],
    )


def read_method(plain: object, file: Path, default: Settings | None = None) -> Settings:
    """Method settings in a config.json; `default` is the method if the file names none."""
    settings = mapping(plain, file, "method")
    kind = settings.get("kind", None if default is None else method_name(default))
    if kind not in tuple(METHODS):
        raise DataError(file, "method kind", repr(kind), f"one of {', '.join(METHODS)}", "correct it")
    return from_plain(METHODS[kind], {key: value for key, value in settings.items() if key != "kind"}, file)
