"""Method `nerf`: a coarse and a fine network (Mildenhall et al. 2020), or one network with an occupancy grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import at_least

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.base import Method


@dataclass(frozen=True)
class Nerf:
    """The classic, as the paper describes it."""

    samples: int = 64
    """Samples of the coarse pass along each ray."""
    fine_samples: int = 128
    """Further samples where the coarse pass met matter (0: no fine network)."""
    disparity: bool = False
    """Space the coarse samples evenly in 1 / t instead of t."""
    perturb: float = 1.0
    """How far samples are moved at random within their cells while training (0: not at all, 1: everywhere)."""
    noise: float = 0.0
    """Standard deviation of the noise added to raw densities while training (the paper: 1 on images)."""
    width: int = 256
    """Width of the networks."""
    depth: int = 8
    """Layers of the networks before density."""
    position_octaves: int = 10
    """Octaves of the encoding of positions."""
    direction_octaves: int = 4
    """Octaves of the encoding of viewing directions."""
    density: Literal["softplus", "relu"] = "softplus"
    """Activation of the density; relu is the paper's, whose networks may start dead."""
    early_skip: bool = False
    """Let the position in again one layer earlier than the paper, as nerf_pl does."""
    ndc_viewdirs: bool = False
    """Color by the direction in normalized device coordinates instead of the scene's, as nerf_pl does."""
    batch: int = 1024
    """Rays of a training step, over all processes."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Networks in bfloat16 (auto: where a trial shows it to be faster)."""
    occupancy: bool = False
    """Skip empty space with an occupancy grid: one network, evenly spaced samples in occupied cells alone."""
    occupancy_side: int = 64
    """Cells a side of the occupancy grid."""
    occupancy_samples: int = 512
    """Places from near to far at which the occupancy grid is asked."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4))
    """How parameters move."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="exponential", gamma=0.1, warmup_steps=100))
    """How the learning rate falls."""

    def __post_init__(self) -> None:
        at_least(3, self, "samples")
        at_least(2, self, "width")
        at_least(1, self, "depth", "batch", "occupancy_side", "occupancy_samples")
        at_least(0, self, "fine_samples", "perturb", "noise", "position_octaves", "direction_octaves")
        if self.occupancy and self.noise:
            fix = "leave out one of the two"
            raise DataError("nerf", "noise", f"{self.noise} beside an occupancy grid", "0 with occupancy", fix)

    def build(self, scene: Scene) -> Method:
        """The method for a scene, with fresh parameters."""
        if self.occupancy:
            from lumifield.methods.nerf.occupied import OccupiedNerf

            return OccupiedNerf(self, scene)
        from lumifield.methods.nerf.method import NerfMethod

        return NerfMethod(self, scene)
