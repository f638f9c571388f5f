"""The command line: what was typed, to the command that runs. Nothing here imports torch before it does."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import CascadeSubcommandArgs

from lumifield.cli.commands import Command, MetaTrainCommand, TrainCommand
from lumifield.data import Source
from lumifield.errors import DataError
from lumifield.meta import MetaTrain
from lumifield.methods import METHODS, Instant, Settings, SimpleNerf, kind_of
from lumifield.runs import bundled
from lumifield.runtime.config import from_plain, mapping, read_json
from lumifield.training import Train, TrainingError


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; a mistake of the user's ends it with one sentence and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    # Threads that spin while they wait make a busy machine many times slower, those that never do wake late for each of
    # the many small products: GNU's spin for microseconds, others not at all. torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        default = _from_config(given)
        parsed = tyro.cli(Command, prog="lumifield", args=given, default=default, config=(CascadeSubcommandArgs,))
        parsed.run()
    except DataError as error:
        print(f"lumifield: {error}", file=sys.stderr)
        sys.exit(2)
    except TrainingError as error:
        print(f"lumifield: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("lumifield: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # nobody reads on, as where `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to be written has nowhere to go
        sys.exit(141)


def keep_freed_memory() -> None:
    """Lets glibc keep memory that a step frees for the next one; else it comes anew from the system, page by page."""
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h; a mapping of its own only beyond 32 MiB, which is the most
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _from_config(given: list[str]) -> Any:
    """The training that `--config FILE`, or else the run to resume, describes, or one with the method of `--init RUN`.

    Missing without any of them.
    """
    described = {"train": _described_train, "meta-train": _described_meta}.get(given[0] if given else "")
    if described is None:
        return tyro.MISSING
    named, out = _value(given, "--config"), _value(given, "--out")
    if named is not None:
        return described(Path(named))
    resumed = Path(out) / "config.json" if out is not None and "--resume" in given else None
    if resumed is not None and resumed.is_file():
        return described(resumed)
    init = _value(given, "--init")
    start = None if init is None else bundled.found(Path(init)) / "config.json"
    return _started(given[0], start) if start is not None and start.is_file() else tyro.MISSING


def _value(given: list[str], option: str) -> str | None:
    """What the command line gives for an option, in one word or in two."""
    for word, following in zip(given, [*given[1:], None], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None


def _described_train(file: Path) -> TrainCommand:
    """The train command that a run's config.json or a recipe describes."""
    plain, method, source = _described(file, "train", Instant())
    train = from_plain(Train, plain.get("train", {}), file)
    return TrainCommand(source=source, out=tyro.MISSING, method=method, train=train, config=file)


def _described_meta(file: Path) -> MetaTrainCommand:
    """The meta-train command that a run's config.json describes."""
    plain, method, source = _described(file, "meta", SimpleNerf())
    meta = from_plain(MetaTrain, plain.get("meta", {}), file)
    return MetaTrainCommand(source=source, out=tyro.MISSING, method=method, meta=meta, config=file)


def _started(command: str, file: Path) -> TrainCommand | MetaTrainCommand:
    """A training with the method of a run whose config.json is given, as its parameters fit no other."""
    method = _method(mapping(read_json(file), file, "content"), file, Instant())
    kind = TrainCommand if command == "train" else MetaTrainCommand
    return kind(source=tyro.MISSING_NONPROP, out=tyro.MISSING, method=method)


def _described(file: Path, training: str, default: Settings) -> tuple[dict[str, Any], Settings, Source]:
    """What is in a file, with its method and its source; `training` is the key of the settings of the training."""
    plain = mapping(read_json(file), file, "content")
    known = ("format", "lumifield", "method", "source", training)
    for key in plain:
        if key not in known:
            raise DataError(file, "key", repr(key), f"one of {', '.join(known)}", "remove or correct it")
    source = mapping(plain.get("source", {}), file, "source")
    read = from_plain(Source, {"data": "."} | source, file)
    read = read if "data" in source else replace(read, data=tyro.MISSING)
    return plain, _method(plain, file, default), read


def _method(plain: dict[str, Any], file: Path, default: Settings) -> Settings:
    """The method in the content of a file; `default` tells its kind where the file does not."""
    method = dict(mapping(plain.get("method", {}), file, "method"))
    kind = method.pop("kind", kind_of(default))
    if kind not in tuple(METHODS):
        raise DataError(file, "method kind", repr(kind), f"one of {', '.join(METHODS)}", "correct it")
    return from_plain(METHODS[kind], method, file)
