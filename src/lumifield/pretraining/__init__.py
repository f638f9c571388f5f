"""Pre-training of `nlr`'s encoder and decoder on pairs of images: the settings (free of torch); `run.py` does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lumifield.methods.nlr import Nlr
from lumifield.optim import Optimizer, Schedule
from lumifield.runtime.config import at_least

NETWORKS = ("features", "channels", "encoder_stages", "encoder_width", "decoder_depth", "decoder_width", "imagenet")
"""What the networks of `nlr` depend on."""


@dataclass(frozen=True)
class Pretrain:
    """What features are learned from, and for how long."""

    data: Path
    """Folder of pairs of images with the true flow between them, as FlyingChairs and FlyingChairs2 have them."""
    held_out: Path | None = None
    """Folder of other pairs, which are scored at the end and never learned from."""
    steps: int | None = None
    """Length of the run in steps."""
    minutes: float | None = None
    """Length of the run in minutes of wall clock; 15 where neither is given."""
    seed: int = 0
    """Seed of every random number of the run."""
    batch: int = 2
    """Pairs of a step."""
    crop: int = 128
    """Side of the squares of the second image that a step learns to show [pixels]."""
    autoencode: bool = True
    """Learn to show the first image from its own features, too."""
    tones: bool = True
    """Show each pair in tones of its own, dark to bright, so that images lit otherwise than these are known, too."""
    features: Literal["both", "learned"] = "both"
    """What the decoder makes an image of: features of the encoder, or these and the colors that it adds to."""
    channels: int = Nlr.channels
    """Features of the encoder."""
    encoder_stages: int = Nlr.encoder_stages
    """Stages of the encoder's ResNet (1 to 5)."""
    encoder_width: int = Nlr.encoder_width
    """Width of the encoder's first stage."""
    decoder_depth: int = Nlr.decoder_depth
    """Halvings of the decoder."""
    decoder_width: int = Nlr.decoder_width
    """Width of the decoder at full resolution."""
    imagenet: Path | None = None
    """A state dict of torchvision's ResNet-18 that the encoder starts from."""
    half: bool = False
    """Leave parameters of 16 bits: half as large, and rounded."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps (auto: cuda where there is one, else cpu)."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(kind="adam", lr=1e-3))
    """How parameters move."""
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", floor=0.05))
    """How the learning rate falls."""

    def __post_init__(self) -> None:
        at_least(0, self, "steps", "minutes")
        at_least(1, self, "batch")
        at_least(8, self, "crop")

    @property
    def method(self) -> Nlr:
        """The method whose networks these are, which starts from them alone."""
        return Nlr(**{name: getattr(self, name) for name in NETWORKS}, started=("encoder", "decoder"))
