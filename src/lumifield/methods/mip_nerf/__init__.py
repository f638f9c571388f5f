"""Settings of method `mip-nerf`: conical frustums, one network for all passes (Barron et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import check_min

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.mip_nerf.method import MipNerfMethod


@dataclass(frozen=True)
class MipNerf:
    """Anti-aliased NeRF: integrated positional encoding over cones, for images of any resolution."""

    backbone: Literal["mlp", "grid"] = "mlp"
    """Field: the MLP of the paper, or a hash grid whose fine levels are down-weighted for wide cones."""
    num_samples: int = 128
    """Intervals per ray and pass."""
    num_passes: int = 2
    """Number of passes, each resampled by the weights of the one before."""
    ray_shape: Literal["auto", "cone", "cylinder"] = "auto"
    """Shape of a pixel: cone, or cylinder (auto: cylinder in normalized device coordinates)."""
    disparity: bool = False
    """Space the edges of the first pass linearly in 1 / t."""
    jitter: bool = True
    """Randomize edges in training."""
    stop_gradient: bool = True
    """Stop gradients from a pass to the one before through its edges."""
    resample_padding: float = 0.01
    """Added to the blurred weights before resampling."""
    coarse_loss_weight: float = 0.1
    """Loss weight of all passes but the last."""
    integrated_encoding: bool = True
    """Use the integrated positional encoding; otherwise encode interval midpoints."""
    num_position_frequencies: int = 16
    """Number of frequencies of the positional encoding, one per octave."""
    min_position_octave: int = 0
    """First octave of the positional encoding."""
    viewdirs: bool = True
    """Condition color on the viewing direction."""
    num_direction_frequencies: int = 4
    """Number of frequencies of the direction encoding, one per octave."""
    min_direction_octave: int = 0
    """First octave of the direction encoding."""
    hidden_dim: int = 256
    """Width of the MLP."""
    num_layers: int = 8
    """Number of MLP layers before density."""
    early_skip: bool = False
    """Place the skip connection one layer earlier than the release, as mipnerf-pytorch does."""
    density_activation: Literal["softplus", "relu"] = "softplus"
    """Activation of the density."""
    density_bias: float = -1.0
    """Added to raw densities."""
    density_noise_std: float = 0.0
    """Standard deviation of noise added to raw densities in training (paper: 1 for real images)."""
    rgb_padding: float = 0.001
    """Colors range over [-padding, 1 + padding], so that black and white can be reached."""
    grid_num_levels: int = 8
    """Backbone grid: number of levels."""
    grid_features_per_level: int = 4
    """Backbone grid: features per level."""
    grid_log2_hashmap_size: int = 18
    """Backbone grid: log2 of the maximum number of entries per level."""
    grid_base_resolution: int = 16
    """Backbone grid: resolution of the coarsest level."""
    grid_max_resolution: int = 0
    """Backbone grid: resolution of the finest level (0: half the width of a pixel, at most 2048)."""
    grid_hidden_dim: int = 64
    """Backbone grid: width of hidden layers."""
    batch_size: int = 1024
    """Rays per training step, over all processes."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Run networks in bfloat16 (auto: if a short benchmark shows a speedup)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4))
    """Optimizer."""
    schedule: Schedule = field(
        default_factory=lambda: Schedule(kind="exponential", gamma=0.01, warmup_steps=100, warmup="sine")
    )
    """Learning-rate schedule."""

    def __post_init__(self) -> None:
        check_min(
            self,
            hidden_dim=2,
            num_samples=1,
            num_passes=1,
            num_layers=1,
            num_position_frequencies=1,
            batch_size=1,
            grid_num_levels=1,
            grid_features_per_level=1,
            grid_log2_hashmap_size=1,
            grid_base_resolution=1,
            grid_hidden_dim=1,
            density_noise_std=0,
            num_direction_frequencies=0,
            coarse_loss_weight=0,
            resample_padding=0,
            rgb_padding=0,
            grid_max_resolution=0,
        )

    def build(self, scene: Scene) -> MipNerfMethod:
        """The method for a scene, with random parameters."""
        from lumifield.methods.mip_nerf.method import MipNerfMethod

        return MipNerfMethod(self, scene)
