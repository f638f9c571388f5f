"""Views for visual localisation (LENS): the settings of each step, free of torch, whose `apply` imports the rest.

Lengths are in world units. What is not given follows from the `spread` of the training cameras: the median distance
from their middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.core.settings import at_least
from lumifield.errors import DataError

if TYPE_CHECKING:
    from lumifield.checkpoint import Run

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Density:
    """Where matter is between the cameras: density in cubic cells (.npz), those that hold matter as points (.ply)."""

    out: Path | None = None
    """The .npz file; the points lie beside it (RUN/localize/density.npz)."""
    cells: int = 1_000_000
    """About so many cells."""
    margin: float | None = None
    """By how much the box exceeds the bounds of the training cameras (a quarter of their spread)."""
    level: float | None = None
    """Density of matter [1 / world unit] (such that a tenth of the spread stops half of the light)."""

    def __post_init__(self) -> None:
        at_least(1, self, "cells")
        at_least(0, self, "margin", "level")

    def apply(self, run: Run, progress: Progress) -> str:
        """Writes both files and says what is in them; raises `DataError` for bounds without a volume."""
        from lumifield.localize import density

        return density.write(self, run, progress)


@dataclass(frozen=True)
class Select:
    """New views in free space near the training cameras, as a camera path (.json) and frusta beside it (.ply)."""

    density: Path | None = None
    """The file of `localize density` (RUN/localize/density.npz)."""
    out: Path | None = None
    """The .json file, which `render --path` reads, too; the frusta lie beside it (RUN/localize/views.json)."""
    places: Literal["grid", "path"] = "grid"
    """Where views may be: at the nodes of a grid, or round the training cameras."""
    count: int = 1000
    """How many views."""
    spacing: float | None = None
    """Distance of neighbouring nodes of the grid, which then has at most `count` views (as wide as leaves `count`)."""
    clearance: float | None = None
    """Least distance from matter (a tenth of the spread)."""
    reach: float | None = None
    """Largest distance from the nearest training camera (a quarter of the spread)."""
    distance: float | None = None
    """How far views are at most displaced at random, from their node or camera (grid: not at all; path: the reach)."""
    angle: float = 9.0
    """Range of the random turn about each axis of the camera, from minus to plus half of it [degrees]."""
    seed: int = 0
    """Seed of the random numbers."""

    def __post_init__(self) -> None:
        at_least(1, self, "count")
        at_least(0, self, "clearance", "reach", "distance", "angle")
        if self.spacing is not None:
            at_least(1e-9, self, "spacing")
            if self.places == "path":
                raise DataError("select", "spacing", f"{self.spacing:g}", "none without a grid", "drop it")

    def apply(self, run: Run, progress: Progress) -> str:
        """Writes both files; raises `DataError` where there is too little free space, or none within the bounds."""
        from lumifield.localize import select

        return select.write(self, run, progress)


@dataclass(frozen=True)
class Synthesize:
    """Pictures of new views as a sequence for the reader of the photographs; what passed by is not in them.

    Data in Cambridge layout gets `seq_synthesis`, all other a sequence of 7-Scenes with poses and depth. Where some
    pictures are there already, the others are added.
    """

    views: Path | None = None
    """The file of `localize select`, or any camera path (RUN/localize/views.json)."""
    out: Path | None = None
    """Folder of the sequence (RUN/localize/sequence)."""
    appearance: str | None = None
    """`mixed` from those of two random training photographs, that of the `nearest` one, their `mean`, or that of the
    photograph named (mixed; none for methods without embeddings)."""
    seed: int = 0
    """Seed of mixed appearances."""
    size: tuple[int, int] | None = None
    """Width and height of the pictures (those of the training)."""
    data: Path | None = None
    """Where the photographs are now, if they have moved since the training."""
    chunk: int | None = None
    """Rays rendered at once (as many as suit the device); halved when memory runs out."""

    def __post_init__(self) -> None:
        at_least(1, self, "size", "chunk")

    def apply(self, run: Run, progress: Progress) -> str:
        """Writes the sequence; raises `DataError` for unknown looks, or a folder that holds another sequence."""
        from lumifield.localize import synthesize

        return synthesize.write(self, run, progress)
