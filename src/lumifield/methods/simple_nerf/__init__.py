"""Settings of method `simple-nerf`: the small network of learned initializations (Tancik et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import check_min

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.base import Method


@dataclass(frozen=True)
class SimpleNerf:
    """One small MLP without viewing directions, for meta-learned initializations."""

    num_samples: int = 128
    """Samples per ray."""
    sampling: Literal["stratified", "official"] = "stratified"
    """Sampling: stratified (one sample per interval), or official (linear from near to far, jittered forwards in
    training)."""
    hidden_dim: int = 256
    """Width of the MLP."""
    num_layers: int = 5
    """Number of MLP layers before density and color."""
    num_position_frequencies: int = 20
    """Number of frequencies of the positional encoding."""
    num_octaves: float = 8.0
    """Range of the frequencies in octaves."""
    density_activation: Literal["softplus", "relu"] = "softplus"
    """Activation of the density; relu is that of the paper, with which networks may start dead."""
    weight_init: Literal["uniform", "normal"] = "uniform"
    """Random initialization: uniform within 1 / sqrt(inputs), or truncated normal of that deviation with zero biases.
    """
    batch_size: int = 128
    """Rays per training step, over all processes."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Run networks in bfloat16 (auto: if a short benchmark shows a speedup)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4))
    """Optimizer."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="exponential", gamma=0.1))
    """Learning-rate schedule."""

    def __post_init__(self) -> None:
        check_min(
            self, num_samples=2, hidden_dim=1, num_layers=1, num_position_frequencies=1, batch_size=1, num_octaves=0
        )

    def build(self, scene: Scene) -> Method:
        """The method for a scene, with random parameters."""
        from lumifield.methods.simple_nerf.method import SimpleNerfMethod

        return SimpleNerfMethod(self, scene)
