"""`lumifield export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from lumifield.cli import progress
from lumifield.export import CamerasExport, MeshExport, PointsExport, VolumeExport, WebExport, WeightsExport

ExportChoice = Annotated[
    Annotated[MeshExport, subcommand("mesh")]
    | Annotated[PointsExport, subcommand("points")]
    | Annotated[WebExport, subcommand("web")]
    | Annotated[CamerasExport, subcommand("cameras")]
    | Annotated[VolumeExport, subcommand("volume")]
    | Annotated[WeightsExport, subcommand("weights")],
    OmitSubcommandPrefixes,
]


@dataclass(frozen=True)
class ExportCommand:
    """Export a trained scene in the world coordinates of its capture."""

    kind: ExportChoice
    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run, or a portable scene (.zip)."""
    out: Path
    """Output file, whose extension selects the format, or folder."""

    def run(self) -> None:
        """Exports."""
        from lumifield.api.run import open_run
        from lumifield.runtime import distributed

        run = open_run(self.folder)
        if distributed.join()[0] > 0:
            return
        with progress.progress_bar("export") as report_progress:
            self.kind.write(run.loaded, self.out, report_progress)
        print(self.out)
