"""`lumifield download`: published datasets by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lumifield.cli import progress
from lumifield.errors import DataError


@dataclass(frozen=True)
class DownloadCommand:
    """Download a published dataset; without a name, list the datasets with their terms and scenes."""

    name: Annotated[Positional[str | None], arg(metavar="NAME")] = None
    """Name of the dataset."""
    out: Path | None = None
    """Folder to write one folder per scene to."""
    scenes: tuple[str, ...] = ()
    """Only these scenes (default: all)."""

    def run(self) -> None:
        """Downloads the scenes, or lists the datasets."""
        from lumifield import download

        if self.name is None:
            print("\n".join(download.list_datasets()))
            return
        download.find_dataset(self.name)
        if self.out is None:
            raise DataError("--out", "output", "nothing", "a folder", "add --out")
        with progress.transfer_bars() as report_progress:
            folders = download.download_dataset(self.name, self.out, self.scenes, progress=report_progress)
        print("\n".join(map(str, folders)))
