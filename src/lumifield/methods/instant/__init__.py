"""Method `instant`: a feature grid, a small network, an occupancy grid and packed rays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import at_least

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.instant.method import InstantMethod


@dataclass(frozen=True)
class Instant:
    """A scene in minutes on two CPU cores, in seconds on a GPU."""

    levels: int = 8
    """Levels of the feature grid."""
    features: int = 2
    """Features a level."""
    log2_entries: int = 18
    """Largest number of corners a level, as a power of two; finer levels are hashed."""
    coarsest: int = 16
    """Cells a side of the coarsest level."""
    finest: int = 0
    """Cells a side of the finest level (0: as fine as half a pixel of the images)."""
    anti_alias: bool = True
    """Fade the levels that are finer than a pixel is where it meets the scene."""
    hidden: int = 64
    """Width of the hidden layers."""
    sampling: Literal["auto", "occupancy", "proposals"] = "auto"
    """Where to look along a ray: in cells of an occupancy grid, or where learned proposals expect matter (auto: the
    latter behind images without alpha)."""
    proposals: tuple[int, int] = (96, 48)
    """Intervals of a ray in the two rounds of proposals."""
    samples: int = 32
    """Samples of a ray behind proposals."""
    distortion: float = 0.002
    """Price of fog and floaters behind proposals."""
    occupancy_side: int = 128
    """Cells a side of the occupancy grid."""
    occupancy_every: int = 16
    """Steps between two looks at the occupancy."""
    step: float = 1.0
    """Distance between samples in occupied cells, in pixel widths at the scene (open scenes: as a factor of theirs)."""
    cone: float = 0.015
    """Growth of that distance with the distance from the camera, in unbounded scenes."""
    samples_per_step: int = 16384
    """Samples that a training step aims at; the number of rays follows."""
    carve: bool = True
    """Leave out space that the images show to be transparent, where they have alpha."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Networks in bfloat16 (auto: where a trial shows it to be faster)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=2e-2, betas=(0.9, 0.99), eps=1e-15))
    """How parameters move."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", floor=0.02, warmup_steps=20))
    """How the learning rate falls."""

    def __post_init__(self) -> None:
        at_least(1, self, "levels", "features", "log2_entries", "coarsest", "hidden", "occupancy_every")
        at_least(1, self, "samples_per_step", "proposals", "samples")
        at_least(0, self, "finest", "cone", "distortion")
        at_least(0.01, self, "step")
        if self.occupancy_side < 2 or self.occupancy_side % 2:
            found, fix = str(self.occupancy_side), "take the next even number"
            raise DataError("instant", "occupancy_side", found, "an even number from 2", fix)

    def build(self, scene: Scene) -> InstantMethod:
        """The method for a scene, with fresh parameters."""
        from lumifield.methods.instant.method import InstantMethod

        return InstantMethod(self, scene)
