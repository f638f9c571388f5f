"""The union of all commands. Nothing here imports torch before a command runs."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import subcommand

from lumifield.cli.bench import BenchCommand
from lumifield.cli.download import DownloadCommand
from lumifield.cli.evaluate import EvalCommand
from lumifield.cli.export import ExportCommand
from lumifield.cli.info import InfoCommand
from lumifield.cli.localize import LocalizeCommand
from lumifield.cli.meta_train import MetaTrainCommand
from lumifield.cli.pretrain_features import PretrainFeaturesCommand
from lumifield.cli.render import RenderCommand
from lumifield.cli.synthesize import SynthesizeCommand
from lumifield.cli.train import TrainCommand
from lumifield.cli.view import ViewCommand

Command = (
    Annotated[TrainCommand, subcommand("train")]
    | Annotated[MetaTrainCommand, subcommand("meta-train")]
    | Annotated[PretrainFeaturesCommand, subcommand("pretrain-features")]
    | Annotated[EvalCommand, subcommand("eval")]
    | Annotated[RenderCommand, subcommand("render")]
    | Annotated[ExportCommand, subcommand("export")]
    | Annotated[LocalizeCommand, subcommand("localize")]
    | Annotated[ViewCommand, subcommand("view")]
    | Annotated[SynthesizeCommand, subcommand("synthesize-data")]
    | Annotated[DownloadCommand, subcommand("download")]
    | Annotated[BenchCommand, subcommand("bench")]
    | Annotated[InfoCommand, subcommand("info")]
)
