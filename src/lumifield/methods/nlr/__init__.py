"""Method `nlr`: a signed distance field whose colors are looked up in the images (NLR++, Bergman et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.fields import Activation, Blending
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import at_least

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.nlr.method import NlrMethod


ROUND_STARTS: tuple[Activation, ...] = ("relu", "softplus")
"""Activations whose weights can make the network roughly a sphere."""

Part = Literal["shape", "encoder", "blending", "decoder"]
Error = Literal["l1", "l2", "smooth-l1"]


@dataclass(frozen=True)
class Nlr:
    """Surfaces, and images blended from the images that see them."""

    backbone: Literal["mlp", "grid"] = "mlp"
    """The signed distances: a network, or a feature grid."""
    sdf_width: int = 128
    """Width of the network of distances."""
    sdf_depth: int = 3
    """Layers of that network between its first and its last one."""
    sdf_activation: Activation = "sine"
    """Activation of that network."""
    sdf_encoding: Literal["none", "nerf", "idr", "fourier"] = "none"
    """What that network sees beside the coordinates."""
    sdf_bands: int = 6
    """Frequencies of the encoding."""
    sdf_sigma: float = 1.0
    """Deviation of the frequencies of fourier."""
    sdf_skips: tuple[int, ...] = ()
    """Layers, from 0, that see the position again."""
    sdf_start: Literal["sphere", "geometric"] = "sphere"
    """An exact sphere plus what is learned, or a network whose weights make it roughly one (activations without a
    period)."""
    grid_levels: int = 8
    """Levels of the grid backbone."""
    grid_log2_entries: int = 15
    """Largest number of corners a level of the grid, as a power of two."""
    grid_finest: int = 128
    """Cells a side of the grid's finest level."""
    features: Literal["both", "learned", "rgb"] = "both"
    """What is blended: features of the encoder, colors of the images, or both, with a decoder that adds to the
    blended colors. Of colors alone nothing is decoded."""
    channels: int = 16
    """Features of the encoder."""
    encoder_stages: int = 3
    """Stages of the encoder's ResNet (1 to 5)."""
    encoder_width: int = 16
    """Width of the encoder's first stage (64 in the paper)."""
    decoder_depth: int = 2
    """Halvings of the decoder."""
    decoder_width: int = 32
    """Width of the decoder at full resolution (64 in the paper)."""
    imagenet: Path | None = None
    """A state dict of torchvision's ResNet-18 that the encoder starts from."""
    blending: Blending = "learned"
    """How sources are weighed: by a small network, by the angle between the rays (lumigraph, epipolar), or evenly."""
    sources: int = -1
    """How many images a training step blends (-1: all but the one that it learns to show)."""
    source_choice: Literal["random", "nearest"] = "random"
    """Which, where these are not all."""
    patch_size: int = 64
    """Side of the squares of pixels that a step learns to show [pixels]."""
    rays_a_side: int = 2
    """Rays through each pixel of a whole image, as many to the right as down."""
    color_error: Error = "l1"
    """How colors are compared with the images': l1, l2 (squares), or smooth-l1 (squares of what is small)."""
    mask_rays: int = 1024
    """Rays of a step of shape whose silhouette is compared with the masks."""
    mask_samples: int = 32
    """Samples that look for the place where such a ray comes closest."""
    mask_sharpness: float = 50.0
    """Sharpness of the silhouette at first [1 / unit of the ball]; its loss counts 100 / sharpness."""
    mask_period: int = 250
    """Steps after which the sharpness doubles."""
    mask_doublings: int = 3
    """How often it does."""
    eikonal: float = 3.0
    """Weight of the slopes' deviation from 1."""
    eikonal_error: Literal["l1", "l2"] = "l2"
    """Whether it counts itself or squared."""
    eikonal_points: int = 1024
    """Points at which slopes are looked at."""
    carve: int = 300
    """Steps at the beginning that learn the shape from silhouettes alone, where there are some (0 for learned starts
    and their meta-training)."""
    shape_first: int = 100
    """Steps after these that learn the shape and the appearance."""
    shape_every: int = 3
    """Afterwards each of so many steps learns the shape, the others the appearance alone."""
    shape_rate: float = 0.5
    """Learning rate of the shape as a share of the others'."""
    slack: float = 0.03
    """How far before a point the surface does not hide it from a source [radii of the ball]."""
    slack_least: float = 0.01
    """The same at the end, and when views are rendered."""
    slack_period: int = 1000
    """Steps after which the slack halves."""
    renew_every: int = 16
    """Steps between two looks at what hides what, and where rays come closest."""
    frozen: tuple[Part, ...] = ()
    """Parts that do not learn."""
    started: tuple[Part, ...] = ("shape", "encoder", "blending", "decoder")
    """Parts that --init brings along; the others start afresh."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Convolutions in bfloat16 (auto: where a trial shows it to be faster)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4))
    """How parameters move."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", floor=0.05))
    """How the learning rate falls."""

    def __post_init__(self) -> None:
        at_least(1, self, "sdf_width", "sdf_depth", "channels", "encoder_stages", "encoder_width", "decoder_width")
        at_least(1, self, "grid_levels", "grid_log2_entries", "mask_rays", "mask_period", "mask_sharpness")
        at_least(1, self, "eikonal_points", "shape_every", "slack_period", "renew_every", "rays_a_side")
        at_least(0, self, "sdf_bands", "sdf_sigma", "sdf_skips", "decoder_depth", "mask_doublings", "eikonal")
        at_least(0, self, "carve", "shape_first", "shape_rate", "slack", "slack_least")
        at_least(2, self, "grid_finest", "mask_samples")
        at_least(-1, self, "sources")
        at_least(4, self, "patch_size")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.sources == 0:
            raise DataError("nlr", "sources", "0", "at least 1, or -1 for all", "raise it")
        if self.encoder_stages > 5:
            raise DataError("nlr", "encoder_stages", str(self.encoder_stages), "at most 5, as a ResNet has", "lower it")
        if max(self.sdf_skips, default=1) > self.sdf_depth or 0 in self.sdf_skips:
            raise DataError(
                "nlr", "sdf_skips", str(self.sdf_skips), f"layers from 1 to {self.sdf_depth}", "correct them"
            )
        if self.sdf_start == "geometric" and self.sdf_activation not in ROUND_STARTS:
            found, expected = repr(self.sdf_activation), f"one of {', '.join(ROUND_STARTS)} for a geometric start"
            raise DataError("nlr", "sdf_activation", found, expected, "choose one, or the start sphere")
        learned: dict[Part, bool] = {
            "shape": True,
            "encoder": self.features != "rgb",
            "decoder": self.features != "rgb",
            "blending": self.blending == "learned",
        }
        if all(part in self.frozen for part, there in learned.items() if there):
            raise DataError("nlr", "frozen", "every part that there is", "one that learns", "leave one out")
        for part in self.frozen:
            if not learned[part]:
                raise DataError("nlr", "frozen", repr(part), "parts that the settings have", "leave it out")

    def build(self, scene: Scene) -> NlrMethod:
        """The method for a scene, with fresh parameters; raises `DataError` for scenes that it cannot learn."""
        from lumifield.methods.nlr.method import NlrMethod

        return NlrMethod(self, scene)
