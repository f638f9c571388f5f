"""Method `mip-nerf`: cones in the place of rays, one network for all passes (Barron et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import at_least

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.mip_nerf.method import MipNerfMethod


@dataclass(frozen=True)
class MipNerf:
    """Sees through pixels instead of points: right at every size of the images."""

    backbone: Literal["mlp", "grid"] = "mlp"
    """What holds the scene: the paper's network, or a feature grid whose fine levels fade where the cone is wide."""
    samples: int = 128
    """Intervals of a ray in each pass."""
    levels: int = 2
    """Passes, each along the intervals where the one before met matter."""
    ray_shape: Literal["auto", "cone", "cylinder"] = "auto"
    """What a pixel sees: cones from the camera, or cylinders (auto: cylinders in normalized device coordinates)."""
    disparity: bool = False
    """Space the edges of the first pass evenly in 1 / t instead of t."""
    jitter: bool = True
    """Move edges at random while training."""
    stop_gradient: bool = True
    """Let no gradient flow from a pass through its edges into the pass before."""
    resample_padding: float = 0.01
    """Added to the blurred weights before intervals are drawn by them."""
    coarse_weight: float = 0.1
    """Weight of the loss of all passes but the last."""
    integrated: bool = True
    """Let features that are finer than the cone fade (the integrated encoding); else all see the middles alone."""
    octaves: tuple[int, int] = (0, 16)
    """The first octave of the encoding of positions, and the one after the last."""
    viewdirs: bool = True
    """Color by the viewing direction, too."""
    direction_octaves: tuple[int, int] = (0, 4)
    """The first octave of the encoding of viewing directions, and the one after the last."""
    width: int = 256
    """Width of the network."""
    depth: int = 8
    """Layers of the network before density."""
    early_skip: bool = False
    """Let the position in again one layer earlier than the release, as mipnerf-pytorch does."""
    density: Literal["softplus", "relu"] = "softplus"
    """Activation of the density."""
    density_bias: float = -1.0
    """Added to raw densities."""
    noise: float = 0.0
    """Standard deviation of the noise added to raw densities while training (the paper: 1 on images)."""
    rgb_padding: float = 0.001
    """By how much colors may leave 0 to 1, so that black and white can be reached."""
    grid_levels: int = 8
    """Backbone grid: levels."""
    grid_features: int = 4
    """Backbone grid: features a level."""
    grid_log2_entries: int = 18
    """Backbone grid: largest number of corners a level, as a power of two."""
    grid_coarsest: int = 16
    """Backbone grid: cells a side of the coarsest level."""
    grid_finest: int = 0
    """Backbone grid: cells a side of the finest level (0: as fine as half a pixel of the images)."""
    grid_hidden: int = 64
    """Backbone grid: width of the hidden layers."""
    batch: int = 1024
    """Rays of a training step, over all processes."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Networks in bfloat16 (auto: where a trial shows it to be faster)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4))
    """How parameters move."""
    schedule: Schedule = field(
        default_factory=lambda: Schedule(kind="exponential", gamma=0.01, warmup_steps=100, warmup="sine")
    )
    """How the learning rate falls."""

    def __post_init__(self) -> None:
        at_least(2, self, "width")
        at_least(1, self, "samples", "levels", "depth", "batch")
        at_least(1, self, "grid_levels", "grid_features", "grid_log2_entries", "grid_coarsest", "grid_hidden")
        at_least(0, self, "noise", "coarse_weight", "resample_padding", "rgb_padding", "grid_finest")
        self._check_octaves("octaves", 1)
        self._check_octaves("direction_octaves", 0)

    def _check_octaves(self, name: str, least: int) -> None:
        first, end = getattr(self, name)
        if end - first < least:
            found, expected = f"{first} {end}", f"two numbers that rise by {least} or more"
            raise DataError("mip-nerf", name, found, expected, "name the first octave and the one after the last")

    def build(self, scene: Scene) -> MipNerfMethod:
        """The method for a scene, with fresh parameters."""
        from lumifield.methods.mip_nerf.method import MipNerfMethod

        return MipNerfMethod(self, scene)
