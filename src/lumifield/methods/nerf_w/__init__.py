"""Method `nerf-w`: images that differ in light and in what passed by (Martin-Brualla et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import at_least

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.base import Method


@dataclass(frozen=True)
class NerfW:
    """Tells a lasting scene from the light of each image and from what passed before it."""

    backbone: Literal["grid", "mlp"] = "grid"
    """What holds the scene: the feature grid of `instant`, or the paper's networks."""
    appearance: int = 48
    """Numbers of an image's embedding that colors depend on (0: all images have the same light)."""
    transient: int = 16
    """Backbone mlp: numbers of an image's embedding that passing matter depends on; backbone grid: cells a side of
    the veil before each image (0: nothing passes)."""
    uncertainty: bool = True
    """Trust pixels less where passing matter is uncertain of their color; else all errors count the same."""
    beta_min: float = 0.03
    """Least uncertainty of a pixel."""
    lambda_u: float = 0.01
    """Price of the mean density of passing matter."""
    samples: int = 64
    """Backbone mlp: samples of the coarse pass along each ray."""
    fine_samples: int = 128
    """Backbone mlp: further samples of each fine pass, where the pass before it met matter."""
    fine_levels: int = 1
    """Backbone mlp: fine passes, each with a network of its own (0: one network, of the coarse samples)."""
    disparity: bool = False
    """Backbone mlp: space the coarse samples evenly in 1 / t instead of t."""
    perturb: float = 1.0
    """Backbone mlp: how far samples are moved at random within their cells while training (0: not at all)."""
    width: int = 256
    """Backbone mlp: width of the networks."""
    depth: int = 8
    """Backbone mlp: layers of the networks before density."""
    transient_depth: int = 4
    """Backbone mlp: layers of passing matter before its density."""
    position_octaves: int = 15
    """Backbone mlp: octaves of the encoding of positions."""
    direction_octaves: int = 4
    """Backbone mlp: octaves of the encoding of viewing directions."""
    batch: int = 1024
    """Backbone mlp: rays of a training step, over all processes."""
    grid_levels: int = 8
    """Backbone grid: levels."""
    grid_log2_entries: int = 18
    """Backbone grid: largest number of corners a level, as a power of two."""
    grid_finest: int = 0
    """Backbone grid: cells a side of the finest level (0: as fine as half a pixel of the images)."""
    grid_hidden: int = 64
    """Backbone grid: width of the hidden layers."""
    grid_sampling: Literal["auto", "occupancy", "proposals"] = "auto"
    """Backbone grid: where to look along a ray, as `sampling` of instant."""
    grid_occupancy_side: int = 128
    """Backbone grid: cells a side of the occupancy grid."""
    grid_samples_per_step: int = 16384
    """Backbone grid: samples that a training step aims at; the number of rays follows."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Networks in bfloat16 (auto: where a trial shows it to be faster)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=2e-2, betas=(0.9, 0.99), eps=1e-15))
    """How parameters move; the rate of the mlp's is a fortieth of it."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", floor=0.02, warmup_steps=20))
    """How the learning rate falls."""

    def __post_init__(self) -> None:
        at_least(0, self, "appearance", "transient", "lambda_u", "fine_levels", "perturb", "grid_finest")
        at_least(0, self, "position_octaves", "direction_octaves")
        at_least(1e-3, self, "beta_min")
        at_least(3, self, "samples")
        at_least(2, self, "width", "grid_occupancy_side")
        at_least(1, self, "fine_samples", "depth", "transient_depth", "batch")
        at_least(1, self, "grid_levels", "grid_log2_entries", "grid_hidden", "grid_samples_per_step")

    def build(self, scene: Scene) -> Method:
        """The method for a scene, with fresh parameters."""
        if self.backbone == "grid":
            from lumifield.methods.nerf_w.grid import NerfWGrid

            return NerfWGrid(self, scene)
        from lumifield.methods.nerf_w.method import NerfWMethod

        return NerfWMethod(self, scene)
