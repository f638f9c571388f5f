"""`lumifield meta-train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lumifield.cli.method_choice import MethodChoice
from lumifield.data import Source
from lumifield.meta import MetaTrain
from lumifield.methods import SimpleNerf


@dataclass(frozen=True)
class MetaTrainCommand:
    """Meta-learn an initialization over many scenes of a category, for train --init."""

    source: Annotated[Source, arg(name="")]
    out: Path
    """Folder to write the run to."""
    method: MethodChoice = field(default_factory=SimpleNerf)
    meta: Annotated[MetaTrain, arg(name="")] = field(default_factory=MetaTrain)
    config: Path | None = None
    """Read settings from this config.json; options on the command line take precedence."""
    resume: bool = False
    """Resume the run in --out with its settings."""

    def run(self) -> None:
        """Meta-trains."""
        from lumifield.api.training import meta_train

        meta_train(self.source, self.method, out=self.out, settings=self.meta, resume=self.resume, quiet=False)
