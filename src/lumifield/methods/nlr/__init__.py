"""Settings of method `nlr`: a signed distance field with image-based appearance (NLR++, Bergman et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.fields import Activation, Blending
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import check_min

if TYPE_CHECKING:
    from lumifield.data.scene import Scene
    from lumifield.methods.nlr.method import NlrMethod


SPHERE_INIT_ACTIVATIONS: tuple[Activation, ...] = ("relu", "softplus")
"""Activations that support a geometric initialization."""

Part = Literal["shape", "encoder", "blending", "decoder"]
ColorLoss = Literal["l1", "l2", "smooth-l1"]


@dataclass(frozen=True)
class Nlr:
    """Neural surface (SDF) with colors blended from the images that see it."""

    backbone: Literal["mlp", "grid"] = "mlp"
    """Signed distance field: an MLP, or a hash grid."""
    sdf_hidden_dim: int = 128
    """Width of the SDF MLP."""
    sdf_num_layers: int = 3
    """Number of hidden layers of the SDF MLP after the first."""
    sdf_activation: Activation = "sine"
    """Activation of the SDF MLP."""
    sdf_encoding: Literal["none", "nerf", "idr", "fourier"] = "none"
    """Positional encoding added to the coordinates."""
    sdf_num_frequencies: int = 6
    """Number of frequencies of the encoding."""
    sdf_frequency_std: float = 1.0
    """Standard deviation of fourier frequencies."""
    sdf_skip_layers: tuple[int, ...] = ()
    """Layers (from 0) with a skip connection from the position."""
    sdf_init: Literal["sphere", "geometric"] = "sphere"
    """Initialization: sphere (exact sphere plus a zero network), or geometric (weights that approximate a sphere;
    non-periodic activations)."""
    grid_num_levels: int = 8
    """Backbone grid: number of levels."""
    grid_log2_hashmap_size: int = 15
    """Backbone grid: log2 of the maximum number of entries per level."""
    grid_max_resolution: int = 128
    """Backbone grid: resolution of the finest level."""
    features: Literal["both", "learned", "rgb"] = "both"
    """Blended quantities: encoder features (learned), image colors (rgb, not decoded), or both with a decoder that adds
    a residual to the blended colors."""
    feature_dim: int = 16
    """Encoder feature dimension."""
    num_encoder_stages: int = 3
    """Number of ResNet stages of the encoder (1 to 5)."""
    encoder_width: int = 16
    """Width of the first encoder stage (paper: 64)."""
    num_decoder_levels: int = 2
    """Number of downsampling levels of the decoder."""
    decoder_width: int = 32
    """Width of the decoder at full resolution (paper: 64)."""
    imagenet_weights: Path | None = None
    """State dict of torchvision's ResNet-18 to initialize the encoder with."""
    blending: Blending = "learned"
    """Blending weights: learned network, ray angles (lumigraph, epipolar), or mean."""
    num_source_views: int = -1
    """Source images blended per training step (-1: all but the target)."""
    source_selection: Literal["random", "nearest"] = "random"
    """Selection of source images if not all are used."""
    patch_size: int = 64
    """Size of the square patches of a training step [pixels]."""
    supersampling: int = 2
    """Rays per pixel along each axis when rendering whole images."""
    color_loss: ColorLoss = "l1"
    """Color loss: l1, l2, or smooth-l1."""
    num_mask_rays: int = 1024
    """Rays per shape step for the mask loss."""
    num_mask_samples: int = 32
    """Samples per mask ray to find its closest approach."""
    mask_sharpness: float = 50.0
    """Initial sharpness of the silhouette [1 / radius]; the mask loss weight is 100 / sharpness."""
    mask_sharpness_interval: int = 250
    """Steps after which the sharpness doubles."""
    num_mask_sharpness_doublings: int = 3
    """Number of doublings of the sharpness."""
    eikonal_loss_weight: float = 3.0
    """Weight of the eikonal loss."""
    eikonal_loss: Literal["l1", "l2"] = "l2"
    """Norm of the eikonal loss."""
    num_eikonal_points: int = 1024
    """Points per step for the eikonal loss."""
    num_mask_only_steps: int = 300
    """Initial steps that fit the shape to silhouettes only, if there are masks (0 with a meta-learned initialization
    and in its meta-training)."""
    num_joint_steps: int = 100
    """Steps after these that train shape and appearance."""
    shape_update_interval: int = 3
    """Steps between shape updates afterwards; the others train appearance only."""
    shape_learning_rate_factor: float = 0.5
    """Learning-rate factor of the shape."""
    visibility_tolerance: float = 0.03
    """Initial depth tolerance of the occlusion test [radii of the ball]."""
    min_visibility_tolerance: float = 0.01
    """Final depth tolerance of the occlusion test, and for rendering."""
    visibility_tolerance_interval: int = 1000
    """Steps after which the tolerance halves."""
    visibility_update_interval: int = 16
    """Steps between updates of the distance grid for occlusion and closest approach."""
    frozen_parts: tuple[Part, ...] = ()
    """Parts that are not trained."""
    init_parts: tuple[Part, ...] = ("shape", "encoder", "blending", "decoder")
    """Parts that --init initializes; the others are random."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Run convolutions in bfloat16 (auto: if a short benchmark shows a speedup)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=5e-4))
    """Optimizer."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", floor=0.05))
    """Learning-rate schedule."""

    def __post_init__(self) -> None:
        check_min(
            self,
            sdf_hidden_dim=1,
            sdf_num_layers=1,
            feature_dim=1,
            num_encoder_stages=1,
            encoder_width=1,
            decoder_width=1,
            grid_num_levels=1,
            grid_log2_hashmap_size=1,
            num_mask_rays=1,
            mask_sharpness_interval=1,
            mask_sharpness=1,
            num_eikonal_points=1,
            shape_update_interval=1,
            visibility_tolerance_interval=1,
            visibility_update_interval=1,
            supersampling=1,
            sdf_num_frequencies=0,
            sdf_frequency_std=0,
            sdf_skip_layers=0,
            num_decoder_levels=0,
            num_mask_sharpness_doublings=0,
            eikonal_loss_weight=0,
            num_mask_only_steps=0,
            num_joint_steps=0,
            shape_learning_rate_factor=0,
            visibility_tolerance=0,
            min_visibility_tolerance=0,
            grid_max_resolution=2,
            num_mask_samples=2,
            num_source_views=-1,
            patch_size=4,
        )
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.num_source_views == 0:
            raise DataError("nlr", "num_source_views", "0", "at least 1, or -1 for all", "raise it")
        if self.num_encoder_stages > 5:
            raise DataError(
                "nlr", "num_encoder_stages", str(self.num_encoder_stages), "at most 5 (stages of a ResNet)", "lower it"
            )
        if max(self.sdf_skip_layers, default=1) > self.sdf_num_layers or 0 in self.sdf_skip_layers:
            raise DataError(
                "nlr",
                "sdf_skip_layers",
                str(self.sdf_skip_layers),
                f"layers from 1 to {self.sdf_num_layers}",
                "correct them",
            )
        if self.sdf_init == "geometric" and self.sdf_activation not in SPHERE_INIT_ACTIVATIONS:
            found, expected = (
                repr(self.sdf_activation),
                f"one of {', '.join(SPHERE_INIT_ACTIVATIONS)} for a geometric initialization",
            )
            raise DataError("nlr", "sdf_activation", found, expected, "use one of them, or --sdf-init sphere")
        learned: dict[Part, bool] = {
            "shape": True,
            "encoder": self.features != "rgb",
            "decoder": self.features != "rgb",
            "blending": self.blending == "learned",
        }
        if all(part in self.frozen_parts for part, there in learned.items() if there):
            raise DataError("nlr", "frozen_parts", "all parts", "at least one trained part", "drop one")
        for part in self.frozen_parts:
            if not learned[part]:
                raise DataError("nlr", "frozen_parts", repr(part), "parts that these settings have", "drop it")

    def build(self, scene: Scene) -> NlrMethod:
        """The method for a scene, with random parameters; raises `DataError` for unsuitable scenes."""
        from lumifield.methods.nlr.method import NlrMethod

        return NlrMethod(self, scene)
