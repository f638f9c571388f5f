"""Settings of method `nerf`: coarse and fine network (Mildenhall et al. 2020), or a single one with occupancy grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import check_min

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.base import Method


@dataclass(frozen=True)
class Nerf:
    """The original NeRF with coarse and fine networks."""

    num_samples: int = 64
    """Coarse samples per ray."""
    num_fine_samples: int = 128
    """Additional fine samples per ray, by the coarse weights (0: no fine network)."""
    disparity: bool = False
    """Space the coarse samples linearly in 1 / t."""
    jitter: float = 1.0
    """Amount of stratified jitter in training (0: none, 1: full strata)."""
    density_noise_std: float = 0.0
    """Standard deviation of noise added to raw densities in training (paper: 1 for real images)."""
    hidden_dim: int = 256
    """Width of the MLPs."""
    num_layers: int = 8
    """Number of MLP layers before density."""
    num_position_frequencies: int = 10
    """Number of frequencies of the positional encoding."""
    num_direction_frequencies: int = 4
    """Number of frequencies of the direction encoding."""
    density_activation: Literal["softplus", "relu"] = "softplus"
    """Activation of the density; relu is that of the paper, with which networks may start dead."""
    early_skip: bool = False
    """Place the skip connection one layer earlier than the paper, as nerf_pl does."""
    ndc_viewdirs: bool = False
    """Condition color on the direction in normalized device coordinates, as nerf_pl does."""
    batch_size: int = 1024
    """Rays per training step, over all processes."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Run networks in bfloat16 (auto: if a short benchmark shows a speedup)."""
    occupancy: bool = False
    """Skip empty space with an occupancy grid: one network, uniform samples in occupied cells."""
    occupancy_resolution: int = 64
    """Resolution of the occupancy grid."""
    num_occupancy_samples: int = 512
    """Steps per ray through the occupancy grid, from near to far."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4))
    """Optimizer."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="exponential", gamma=0.1, warmup_steps=100))
    """Learning-rate schedule."""

    def __post_init__(self) -> None:
        check_min(
            self,
            num_samples=3,
            hidden_dim=2,
            num_layers=1,
            batch_size=1,
            occupancy_resolution=1,
            num_occupancy_samples=1,
            num_fine_samples=0,
            jitter=0,
            density_noise_std=0,
            num_position_frequencies=0,
            num_direction_frequencies=0,
        )
        if self.occupancy and self.density_noise_std:
            fix = "drop one of the two"
            raise DataError(
                "nerf", "density_noise_std", f"{self.density_noise_std} with an occupancy grid", "0 with occupancy", fix
            )

    def build(self, scene: Scene) -> Method:
        """The method for a scene, with random parameters."""
        if self.occupancy:
            from lumifield.methods.nerf.occupancy_nerf import OccupancyNerf

            return OccupancyNerf(self, scene)
        from lumifield.methods.nerf.method import NerfMethod

        return NerfMethod(self, scene)
