"""Method `simple-nerf`: the one small network that learned initializations are made for (Tancik et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import at_least

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.base import Method


@dataclass(frozen=True)
class SimpleNerf:
    """One network without viewing directions, as learned initializations take it."""

    samples: int = 128
    """Samples along each ray."""
    sampling: Literal["stratified", "official"] = "stratified"
    """stratified: one sample in each of equal parts of the ray, at random or in its middle; official: evenly from near
    to far, moved forwards alone while training."""
    width: int = 256
    """Width of the network."""
    depth: int = 5
    """Layers of the network before density and color."""
    frequencies: int = 20
    """Frequencies of the encoding of positions."""
    octaves: float = 8.0
    """How many octaves the frequencies are spread over, evenly."""
    density: Literal["softplus", "relu"] = "softplus"
    """Activation of the density; relu is the paper's, whose networks may start dead."""
    start: Literal["uniform", "normal"] = "uniform"
    """Fresh weights and biases uniform within 1 / sqrt(inputs), or normal of that deviation, with biases of zero."""
    batch: int = 128
    """Rays of a training step, over all processes."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Network in bfloat16 (auto: where a trial shows it to be faster)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4))
    """How parameters move."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="exponential", gamma=0.1))
    """How the learning rate falls."""

    def __post_init__(self) -> None:
        at_least(2, self, "samples")
        at_least(1, self, "width", "depth", "frequencies", "batch")
        at_least(0, self, "octaves")

    def build(self, scene: Scene) -> Method:
        """The method for a scene, with fresh parameters."""
        from lumifield.methods.simple_nerf.method import SimpleNerfMethod

        return SimpleNerfMethod(self, scene)
