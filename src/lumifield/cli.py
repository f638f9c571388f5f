"""The command line: one dataclass a command. Nothing here imports torch before a command runs."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import CascadeSubcommandArgs, OmitSubcommandPrefixes, Positional, arg, subcommand

from lumifield.core.errors import DataError
from lumifield.core.settings import from_plain, read_json
from lumifield.data import Source
from lumifield.methods import METHODS, Instant, Nerf
from lumifield.synthetic import StillLife
from lumifield.training import Train

MethodChoice = Annotated[
    Annotated[Instant, subcommand("instant")] | Annotated[Nerf, subcommand("nerf")], OmitSubcommandPrefixes
]
Channel = Literal["rgb", "depth", "opacity"]


@dataclass(frozen=True)
class TrainCommand:
    """Learn a scene from its train split."""

    source: Annotated[Source, arg(name="")]
    out: Path
    """Folder of the run, made here."""
    method: MethodChoice = field(default_factory=Instant)
    train: Annotated[Train, arg(name="")] = field(default_factory=Train)
    config: Path | None = None
    """A run's config.json or a recipe: settings that the command line does not give."""
    resume: bool = False
    """Go on where the run in --out was stopped."""

    def run(self) -> None:
        """Trains."""
        from rich.console import Console

        from lumifield.training.run import Job, train

        train(Job(self.method, self.source, self.train, self.out), resume=self.resume, console=Console())


@dataclass(frozen=True)
class EvalCommand:
    """Render a split, score it, and write metrics.json, pictures, error maps and report.html."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    split: str = "test"
    """Which split."""
    data: Path | None = None
    """Where the photographs are now, if they have moved since the training."""
    pictures: bool = True
    """Write each view and its error map."""
    last: bool = False
    """The last weights instead of those that validated best."""

    def run(self) -> None:
        """Evaluates."""
        from lumifield.checkpoint import load
        from lumifield.evaluate import evaluate

        run = load(self.folder, "last" if self.last else "best", device=_device())
        if self.data is not None and run.source is not None:
            run = replace(run, source=replace(run.source, data=self.data))
        with _progress(f"{self.split} views") as note:
            metrics = evaluate(run, self.split, save_pictures=self.pictures, progress=note)
        words = {"psnr": "dB", "ssim": "", "lpips": ""}
        scores = [f"{k} {metrics[k]:.4g} {unit}".strip() for k, unit in words.items() if metrics[k] is not None]
        print(f"{self.split}, {metrics['n_images']} views: {', '.join(scores)}")
        if metrics["lpips"] is None:
            print(f"no lpips: {metrics['lpips_reason']}")
        print(self.folder / "eval" / self.split / "report.html")


@dataclass(frozen=True)
class SynthesizeCommand:
    """Make a procedural scene with exact truth."""

    kind: Annotated[
        Annotated[StillLife, subcommand("still-life")] | Annotated["Multiscale", subcommand("multiscale")],
        OmitSubcommandPrefixes,
    ]
    out: Path
    """Folder of the scene, made here."""

    def run(self) -> None:
        """Makes the scene."""
        from lumifield.synthetic import write

        with _progress("pictures") as note:
            if isinstance(self.kind, Multiscale):
                from lumifield.synthetic.pyramid import multiscale

                multiscale(self.kind.scene, self.out)
            else:
                write(self.kind, self.out, note)
        print(self.out)


@dataclass(frozen=True)
class Multiscale:
    """The pyramid of four sizes of a Blender scene, by exact means (mip-NeRF's multicam layout)."""

    scene: Annotated[Path, arg(name="from")]
    """Folder of the Blender scene."""


@dataclass(frozen=True)
class InfoCommand:
    """Versions, devices, and which kernels are live and why."""

    def run(self) -> None:
        """Prints."""
        from lumifield import about

        print("\n".join(about.lines()))


Command = (
    Annotated[TrainCommand, subcommand("train")]
    | Annotated[EvalCommand, subcommand("eval")]
    | Annotated[SynthesizeCommand, subcommand("synthesize-data")]
    | Annotated[InfoCommand, subcommand("info")]
)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; a mistake of the user's ends it with one sentence and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        default = _from_config(given)
        parsed = tyro.cli(Command, prog="lumifield", args=given, default=default, config=(CascadeSubcommandArgs,))
        parsed.run()
    except DataError as error:
        print(f"lumifield: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("lumifield: interrupted", file=sys.stderr)
        sys.exit(130)


def _from_config(given: list[str]) -> Any:
    """The train command that `--config FILE` describes, for the command line to change; missing without one."""
    if given[:1] != ["train"] or "--config" not in given[:-1]:
        return tyro.MISSING
    file = Path(given[given.index("--config") + 1])
    plain = read_json(file)
    known = ("format", "lumifield", "method", "source", "train")
    for key in plain:
        if key not in known:
            raise DataError(file, "key", repr(key), f"one of {', '.join(known)}", "remove or correct it")
    method = dict(plain.get("method") or {"kind": "instant"})
    kind = method.pop("kind", None)
    if kind not in METHODS:
        raise DataError(file, "method kind", repr(kind), f"one of {', '.join(METHODS)}", "correct it")
    source = plain.get("source") or {}
    return TrainCommand(
        source=from_plain(Source, source, file) if "data" in source else Source(tyro.MISSING, **source),
        out=tyro.MISSING,
        method=from_plain(METHODS[kind], method, file),
        train=from_plain(Train, plain.get("train") or {}, file),
        config=file,
    )
