"""`lumifield view`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lumifield.cli import progress


@dataclass(frozen=True)
class ViewCommand:
    """Show a run in an interactive viewer in the browser, until interrupted."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run, or a portable scene (.zip)."""
    port: int = 8080
    """Port on 127.0.0.1, or the next free one if it is taken (0: any free port)."""
    chunk: int | None = None
    """Rays rendered at once (default: chosen by the device and its speed); halved if memory runs out."""

    def run(self) -> None:
        """Serves the viewer."""
        from lumifield.api.run import open_run
        from lumifield.viewer.server import Viewer

        viewer = Viewer(open_run(self.folder, chunk=self.chunk).loaded, self.port)
        try:
            with progress.status_line("waiting for a browser") as set_status:
                viewer.serve(set_status)
        finally:
            viewer.close()
