"""Commands from a config.json: of a run to resume, of `--config`, or with the method of `--init`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from lumifield.cli.meta_train import MetaTrainCommand
from lumifield.cli.pretrain_features import PretrainFeaturesCommand
from lumifield.cli.train import TrainCommand
from lumifield.data import Source
from lumifield.errors import DataError
from lumifield.meta import MetaTrain
from lumifield.methods import Instant, Settings, SimpleNerf
from lumifield.pretraining import Pretrain
from lumifield.runs import bundled
from lumifield.runs.run_config import read_method
from lumifield.runtime.config import from_plain, mapping, read_json
from lumifield.training import Train


def default_from_config(arguments: list[str]) -> Any:
    """Default command from `--config FILE`, from the run that `--resume` continues, or with the method of `--init RUN`.

    `tyro.MISSING` without any of them.
    """
    command = arguments[0] if arguments else ""
    if command not in READERS:
        return tyro.MISSING
    read_command = READERS[command]
    config, out = option_value(arguments, "--config"), option_value(arguments, "--out")
    if config is not None:
        return read_command(Path(config))
    resumed = Path(out) / "config.json" if out is not None and "--resume" in arguments else None
    if resumed is not None and resumed.is_file():
        return read_command(resumed)
    init = option_value(arguments, "--init")
    if init is None or command == "pretrain-features":
        return tyro.MISSING
    initialization = bundled.resolve_initialization(Path(init)) / "config.json"
    return command_with_method(command, initialization) if initialization.is_file() else tyro.MISSING


def option_value(arguments: list[str], option: str) -> str | None:
    """Value of an option, given as `--option value` or `--option=value`; None if absent."""
    for word, following in zip(arguments, [*arguments[1:], None], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None


def read_train_command(file: Path) -> TrainCommand:
    """The train command that a config.json describes."""
    plain, method, source = read_settings(file, "train", Instant())
    train = from_plain(Train, plain.get("train", {}), file)
    return TrainCommand(source=source, out=tyro.MISSING, method=method, train=train, config=file)


def read_meta_train_command(file: Path) -> MetaTrainCommand:
    """The meta-train command that a config.json describes."""
    plain, method, source = read_settings(file, "meta", SimpleNerf())
    meta = from_plain(MetaTrain, plain.get("meta", {}), file)
    return MetaTrainCommand(source=source, out=tyro.MISSING, method=method, meta=meta, config=file)


def read_pretrain_command(file: Path) -> PretrainFeaturesCommand:
    """The pretrain-features command that a config.json describes."""
    plain = mapping(read_json(file), file, "content")
    return PretrainFeaturesCommand(from_plain(Pretrain, plain.get("pretrain", {}), file), out=tyro.MISSING)


def command_with_method(command: str, file: Path) -> TrainCommand | MetaTrainCommand:
    """A training command with the method of the run that it is initialized from."""
    method = read_method(mapping(read_json(file), file, "content").get("method", {}), file, Instant())
    kind = TrainCommand if command == "train" else MetaTrainCommand
    return kind(source=tyro.MISSING_NONPROP, out=tyro.MISSING, method=method)


def read_settings(file: Path, training: str, default: Settings) -> tuple[dict[str, Any], Settings, Source]:
    """Content, method and source of a config.json; `training` is the key of the training settings."""
    plain = mapping(read_json(file), file, "content")
    known = ("format", "lumifield", "method", "source", training)
    for key in plain:
        if key not in known:
            raise DataError(file, "key", repr(key), f"one of {', '.join(known)}", "remove or correct it")
    source = mapping(plain.get("source", {}), file, "source")
    read = from_plain(Source, {"data": "."} | source, file)
    read = read if "data" in source else replace(read, data=tyro.MISSING)
    return plain, read_method(plain.get("method", {}), file, default), read


READERS = {
    "train": read_train_command,
    "meta-train": read_meta_train_command,
    "pretrain-features": read_pretrain_command,
}
