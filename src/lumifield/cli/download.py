"""`lumifield download`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lumifield.cli import progress
from lumifield.errors import DataError


@dataclass(frozen=True)
class DownloadCommand:
    """Download a published data set; without a name, list the data sets with their terms and scenes."""

    name: Annotated[Positional[str | None], arg(metavar="NAME")] = None
    """Name of the data set."""
    out: Path | None = None
    """Folder to write one folder per scene to."""
    scenes: tuple[str, ...] = ()
    """Only these scenes (default: all)."""

    def run(self) -> None:
        """Downloads, or lists."""
        from lumifield import download

        if self.name is None:
            print("\n".join(download.listing()))
            return
        download.named(self.name)
        if self.out is None:
            raise DataError("--out", "output", "nothing", "a folder", "add --out")
        with progress.transfer_bars() as report_progress:
            folders = download.download(self.name, self.out, self.scenes, progress=report_progress)
        print("\n".join(map(str, folders)))
