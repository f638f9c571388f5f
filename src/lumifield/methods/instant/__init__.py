"""Settings of method `instant`: hash grid, small networks, and few samples per ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import check_min

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.instant.method import InstantMethod


@dataclass(frozen=True)
class Instant:
    """Hash grid with two small networks; trains in minutes on two CPU cores."""

    num_levels: int = 8
    """Number of hash grid levels."""
    features_per_level: int = 2
    """Features per level."""
    log2_hashmap_size: int = 18
    """Log2 of the maximum number of entries per level; finer levels are hashed."""
    base_resolution: int = 16
    """Resolution of the coarsest level."""
    max_resolution: int = 0
    """Resolution of the finest level (0: half the width of a pixel, at most 2048, or 512 if images have no alpha)."""
    anti_alias: bool = True
    """Down-weight levels that are finer than a pixel at the sample."""
    hidden_dim: int = 64
    """Width of hidden layers."""
    sampling: Literal["auto", "occupancy", "proposals"] = "auto"
    """Sampling along rays: in occupied cells of an occupancy grid, or by learned proposals (auto: proposals if images
    have no alpha)."""
    num_proposal_samples: tuple[int, int] = (96, 48)
    """Intervals per ray in the two rounds of proposals."""
    num_samples: int = 32
    """Samples per ray after proposals."""
    distortion_loss_weight: float = 0.002
    """Weight of the distortion loss against fog and floaters, with proposals."""
    occupancy_resolution: int = 128
    """Resolution of the occupancy grid."""
    occupancy_update_interval: int = 16
    """Steps between updates of the occupancy grid."""
    step_size: float = 1.0
    """Step size in occupied cells, in pixel widths at the scene (unbounded scenes: relative to the default)."""
    cone_angle: float = 0.015
    """Increase of the step size per distance from the camera, in unbounded scenes."""
    samples_per_step: int = 16384
    """Target number of samples per training step; the number of rays adapts."""
    space_carving: bool = True
    """Leave out space that image silhouettes exclude, if images have alpha."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Run networks in bfloat16 (auto: if a short benchmark shows a speedup)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=2e-2, betas=(0.9, 0.99), eps=1e-15))
    """Optimizer."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", floor=0.02, warmup_steps=20))
    """Learning-rate schedule."""

    def __post_init__(self) -> None:
        check_min(
            self,
            num_levels=1,
            features_per_level=1,
            log2_hashmap_size=1,
            base_resolution=1,
            hidden_dim=1,
            occupancy_update_interval=1,
            samples_per_step=1,
            num_proposal_samples=1,
            num_samples=1,
            max_resolution=0,
            cone_angle=0,
            distortion_loss_weight=0,
            step_size=0.01,
        )
        if self.occupancy_resolution < 2 or self.occupancy_resolution % 2:
            found, fix = str(self.occupancy_resolution), "use the next even number"
            raise DataError("instant", "occupancy_resolution", found, "an even number of at least 2", fix)

    def build(self, scene: Scene) -> InstantMethod:
        """The method for a scene, with random parameters."""
        from lumifield.methods.instant.method import InstantMethod

        return InstantMethod(self, scene)
