"""Settings of feature pre-training for `nlr` on image pairs with optical flow, free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lumifield.methods.nlr import Nlr
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import check_min

NETWORKS = (
    "features",
    "feature_dim",
    "num_encoder_stages",
    "encoder_width",
    "num_decoder_levels",
    "decoder_width",
    "imagenet_weights",
)
"""Settings of `nlr` that determine its networks."""


@dataclass(frozen=True)
class Pretrain:
    """Data, duration and networks of feature pre-training."""

    data: Path
    """Folder of image pairs with ground truth flow, in the layout of FlyingChairs or FlyingChairs2."""
    held_out: Path | None = None
    """Folder of held-out pairs to score at the end."""
    steps: int | None = None
    """Number of training steps."""
    minutes: float | None = None
    """Training time in minutes of wall clock (15 if neither steps nor minutes is set)."""
    seed: int = 0
    """Seed of all random numbers of the run."""
    batch_size: int = 2
    """Pairs per step."""
    crop_size: int = 128
    """Size of the square crops of the target image [pixels]."""
    autoencode: bool = True
    """Also reconstruct the first image from its own features."""
    random_tones: bool = True
    """Randomize the gamma and tint of each pair, for robustness to lighting."""
    features: Literal["both", "learned"] = "both"
    """Decoder input: encoder features, or features and the colors that it corrects."""
    feature_dim: int = Nlr.feature_dim
    """Encoder feature dimension."""
    num_encoder_stages: int = Nlr.num_encoder_stages
    """Number of ResNet stages of the encoder (1 to 5)."""
    encoder_width: int = Nlr.encoder_width
    """Width of the first encoder stage."""
    num_decoder_levels: int = Nlr.num_decoder_levels
    """Number of downsampling levels of the decoder."""
    decoder_width: int = Nlr.decoder_width
    """Width of the decoder at full resolution."""
    imagenet_weights: Path | None = None
    """State dict of torchvision's ResNet-18 to initialize the encoder with."""
    save_every: int = 500
    """Steps between checkpoints (0: only at the end)."""
    half: bool = False
    """Store parameters in fp16."""
    device: str = "auto"
    """Device to train on: cpu, cuda or mps (auto: cuda if available, else cpu)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=1e-3))
    """Optimizer."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", floor=0.05))
    """Learning-rate schedule."""

    def __post_init__(self) -> None:
        check_min(self, steps=0, minutes=0, save_every=0, batch_size=1, crop_size=8)

    @property
    def method(self) -> Nlr:
        """`nlr` settings with these networks, initialized from them only."""
        return Nlr(**{name: getattr(self, name) for name in NETWORKS}, init_parts=("encoder", "decoder"))
