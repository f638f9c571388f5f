"""What leaves a trained scene: a settings dataclass for each kind, free of torch, whose `write` imports the rest.

Everything leaves in the world frame of the photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lumifield.checkpoint import Run

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CamerasExport:
    """The cameras: transforms.json (instant-ngp, nerfstudio), a folder of COLMAP's text model, or frusta as PLY."""

    format: Literal["auto", "transforms", "colmap", "frusta"] = "auto"
    """auto: told by the ending: .json, none for a folder, .ply."""
    split: str | None = None
    """Only the cameras of this split (all)."""

    def write(self, run: Run, out: Path, progress: Progress | None = None) -> None:
        """Writes the cameras to `out`; raises `DataError` for an ending of no format or a split that is not there."""
        from lumifield.export import cameras

        cameras.write(self, run, out)


@dataclass(frozen=True)
class Weights:
    """A portable scene: network and cameras without pictures, which `render`, `export` and `view` take for a run."""

    half: bool = False
    """Parameters of 16 bits: half as large, and rounded."""

    def write(self, run: Run, out: Path, progress: Progress | None = None) -> None:
        """Writes one file (.zip) or a folder (no ending); raises `DataError` for another ending."""
        from lumifield.export import weights

        weights.write(self, run, out)
