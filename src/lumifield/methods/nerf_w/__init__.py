"""Settings of method `nerf-w`: images with varying light and transient objects (Martin-Brualla et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import check_min

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.base import Method


@dataclass(frozen=True)
class NerfW:
    """Separates a static scene from the appearance and the transient objects of each image."""

    backbone: Literal["grid", "mlp"] = "grid"
    """Static scene: the hash grid of instant, or the MLPs of the paper."""
    appearance_dim: int = 48
    """Size of the appearance embedding (0: same appearance in all images)."""
    transient_dim: int = 16
    """Backbone mlp: size of the transient embedding; backbone grid: resolution of the 2D transient map of each image
    (0: no transients)."""
    uncertainty: bool = True
    """Weigh pixel errors by a learned uncertainty; otherwise all pixels weigh the same."""
    beta_min: float = 0.03
    """Minimum uncertainty of a pixel."""
    transient_loss_weight: float = 0.01
    """Weight of the transient density loss (lambda_u)."""
    num_samples: int = 64
    """Backbone mlp: coarse samples per ray."""
    num_fine_samples: int = 128
    """Backbone mlp: additional samples of each fine pass, by the weights of the pass before."""
    num_fine_passes: int = 1
    """Backbone mlp: fine passes, each with its own network (0: one network, coarse samples only)."""
    disparity: bool = False
    """Backbone mlp: space the coarse samples linearly in 1 / t."""
    jitter: float = 1.0
    """Backbone mlp: amount of stratified jitter in training (0: none)."""
    hidden_dim: int = 256
    """Backbone mlp: width of the MLPs."""
    num_layers: int = 8
    """Backbone mlp: number of MLP layers before density."""
    num_transient_layers: int = 4
    """Backbone mlp: number of layers of the transient head."""
    num_position_frequencies: int = 15
    """Backbone mlp: number of frequencies of the positional encoding."""
    num_direction_frequencies: int = 4
    """Backbone mlp: number of frequencies of the direction encoding."""
    batch_size: int = 1024
    """Backbone mlp: rays per training step, over all processes."""
    grid_num_levels: int = 8
    """Backbone grid: number of levels."""
    grid_log2_hashmap_size: int = 18
    """Backbone grid: log2 of the maximum number of entries per level."""
    grid_max_resolution: int = 0
    """Backbone grid: resolution of the finest level (0: as in instant)."""
    grid_hidden_dim: int = 64
    """Backbone grid: width of hidden layers."""
    grid_sampling: Literal["auto", "occupancy", "proposals"] = "auto"
    """Backbone grid: sampling along rays, as in instant."""
    grid_occupancy_resolution: int = 128
    """Backbone grid: resolution of the occupancy grid."""
    grid_samples_per_step: int = 16384
    """Backbone grid: target number of samples per training step."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Run networks in bfloat16 (auto: if a short benchmark shows a speedup)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=2e-2, betas=(0.9, 0.99), eps=1e-15))
    """Optimizer; the learning rate of the mlp backbone is 1/40 of its rate."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", floor=0.02, warmup_steps=20))
    """Learning-rate schedule."""

    def __post_init__(self) -> None:
        check_min(
            self,
            appearance_dim=0,
            transient_dim=0,
            transient_loss_weight=0,
            num_fine_passes=0,
            jitter=0,
            grid_max_resolution=0,
            num_position_frequencies=0,
            num_direction_frequencies=0,
            beta_min=0.001,
            num_samples=3,
            hidden_dim=2,
            grid_occupancy_resolution=2,
            num_fine_samples=1,
            num_layers=1,
            num_transient_layers=1,
            batch_size=1,
            grid_num_levels=1,
            grid_log2_hashmap_size=1,
            grid_hidden_dim=1,
            grid_samples_per_step=1,
        )

    def build(self, scene: Scene) -> Method:
        """The method for a scene, with random parameters."""
        if self.backbone == "grid":
            from lumifield.methods.nerf_w.hash_grid_method import NerfWHashGridMethod

            return NerfWHashGridMethod(self, scene)
        from lumifield.methods.nerf_w.method import NerfWMethod

        return NerfWMethod(self, scene)
