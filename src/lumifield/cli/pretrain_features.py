"""`lumifield pretrain-features`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lumifield.pretraining import Pretrain


@dataclass(frozen=True)
class PretrainFeaturesCommand:
    """Pre-train the image features of nlr on image pairs with known optical flow, for train nlr --init."""

    pretrain_features: Annotated[Pretrain, arg(name="")]
    out: Path
    """Folder to write the run to."""
    resume: bool = False
    """Resume the run in --out with its settings."""

    def run(self) -> None:
        """Pre-trains."""
        from rich.console import Console

        from lumifield.pretraining.train_features import pretrain_features

        scores = pretrain_features(self.pretrain_features, self.out, resume=self.resume, console=Console())
        print(*(f"{name} {value:.2f} dB" for name, value in scores.items()), self.out, sep="\n")
