"""`lumifield train`."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lumifield.cli.method_choice import MethodChoice
from lumifield.data import Source
from lumifield.methods import Instant
from lumifield.training import Train


@dataclass(frozen=True)
class TrainCommand:
    """Train a radiance field on the train split of a capture."""

    source: Annotated[Source, arg(name="")]
    out: Path
    """Folder to write the run to."""
    method: MethodChoice = field(default_factory=Instant)
    train: Annotated[Train, arg(name="")] = field(default_factory=Train)
    config: Path | None = None
    """Read settings from this config.json; options on the command line take precedence."""
    resume: bool = False
    """Resume the run in --out with its settings."""
    viewer: bool = False
    """Show the training in a viewer in the browser, on 127.0.0.1."""

    def run(self) -> None:
        """Trains."""
        from lumifield.api.training import train

        with ExitStack() as stack:
            callbacks = []
            if self.viewer:
                from rich import print as print_rich

                from lumifield.viewer.training_viewer import TrainingViewer

                callbacks.append(stack.enter_context(closing(TrainingViewer(self.out, print_rich))))
            train(
                self.source,
                self.method,
                out=self.out,
                settings=self.train,
                resume=self.resume,
                callbacks=callbacks,
                quiet=False,
            )
