"""The command line: what was typed, to the command that runs. Nothing here imports torch before it does."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import CascadeSubcommandArgs

from lumifield.commands import Command, TrainCommand
from lumifield.core.settings import from_plain, mapping, read_json
from lumifield.data import Source
from lumifield.errors import DataError
from lumifield.methods import METHODS
from lumifield.training import Train, TrainingError


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; a mistake of the user's ends it with one sentence and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    # Threads that spin while they wait make a busy machine many times slower, those that never do wake late for each of
    # the many small products: GNU's spin for microseconds, others not at all. torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
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


def _from_config(given: list[str]) -> Any:
    """The train command that `--config FILE`, or else the run to resume, describes; missing without one."""
    if given[:1] != ["train"]:
        return tyro.MISSING
    named, out = _value(given, "--config"), _value(given, "--out")
    if named is not None:
        return _described(Path(named))
    resumed = Path(out) / "config.json" if out is not None and "--resume" in given else None
    return _described(resumed) if resumed is not None and resumed.is_file() else tyro.MISSING


def _value(given: list[str], option: str) -> str | None:
    """What the command line gives for an option, in one word or in two."""
    for word, following in zip(given, [*given[1:], None], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None


def _described(file: Path) -> TrainCommand:
    """The train command that a run's config.json or a recipe describes."""
    plain = mapping(read_json(file), file, "content")
    known = ("format", "lumifield", "method", "source", "train")
    for key in plain:
        if key not in known:
            raise DataError(file, "key", repr(key), f"one of {', '.join(known)}", "remove or correct it")
    method = dict(mapping(plain.get("method", {}), file, "method"))
    kind = method.pop("kind", "instant")
    if kind not in tuple(METHODS):
        raise DataError(file, "method kind", repr(kind), f"one of {', '.join(METHODS)}", "correct it")
    source = mapping(plain.get("source", {}), file, "source")
    read = from_plain(Source, {"data": "."} | source, file)
    return TrainCommand(
        source=read if "data" in source else replace(read, data=tyro.MISSING),
        out=tyro.MISSING,
        method=from_plain(METHODS[kind], method, file),
        train=from_plain(Train, plain.get("train", {}), file),
        config=file,
    )
