"""`lumifield localize`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from lumifield.cli import progress
from lumifield.localization import Baseline, Density, Pose, Select, Synthesize

LocalizeChoice = Annotated[
    Annotated[Density, subcommand("density")]
    | Annotated[Select, subcommand("select")]
    | Annotated[Synthesize, subcommand("synthesize")]
    | Annotated[Pose, subcommand("pose")]
    | Annotated[Baseline, subcommand("baseline")],
    OmitSubcommandPrefixes,
]


@dataclass(frozen=True)
class LocalizeCommand:
    """Visual localization: novel views to train pose regression on (LENS), and camera poses of images."""

    kind: LocalizeChoice
    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run."""

    def run(self) -> None:
        """Runs the chosen step."""
        from lumifield.api.run import open_run
        from lumifield.runtime import distributed

        is_first = distributed.join()[0] == 0
        with progress.progress_bar("localize", is_first) as report_progress:
            summary = self.kind.apply(open_run(self.folder).loaded, report_progress)
        if is_first:
            print(summary)
