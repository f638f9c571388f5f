"""`lumifield eval`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lumifield.cli import progress
from lumifield.meta import Adapt


@dataclass(frozen=True)
class EvalCommand:
    """Render a split, score it against ground truth, and write metrics.json, metrics.csv and report.html."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run."""
    split: str = "test"
    """Split to evaluate: train, val or test."""
    data: Path | None = None
    """Folder of the capture, if it has moved since training."""
    save_images: bool = True
    """Write each rendered view and its error map."""
    checkpoint: Literal["best", "last"] = "best"
    """Weights to evaluate: best validation PSNR, or last step."""
    downscale: int | None = None
    """Divide image width and height by this factor (as for training); other sizes are written to their own folder."""
    appearance: str | None = None
    """Appearance of each view: fitted (embedding fitted to the left half, right half scored; default for methods with
    appearance embeddings), affine (color transform fitted the same way), mean (default otherwise), nearest (embedding
    of the nearest training view), or the name of a training image."""
    right_half: bool = False
    """Score only the right half of each image, for any appearance."""
    masks: Path | None = None
    """Folder of masks named like the images; black pixels are not scored."""
    lpips: bool = False
    """Download the weights of LPIPS if they are not on this machine (244 MB from download.pytorch.org)."""
    chunk: int | None = None
    """Rays rendered at once (default: chosen by the device); halved if memory runs out."""
    adapt: Annotated[Adapt, arg(name="")] = field(default_factory=Adapt)

    def run(self) -> None:
        """Evaluates."""
        from lumifield.api.run import open_run
        from lumifield.runtime import distributed

        is_first = distributed.join()[0] == 0
        run = open_run(self.folder, checkpoint=self.checkpoint, chunk=self.chunk)
        with progress.progress_bar(f"{self.split} views", is_first) as report_progress:
            metrics = run.evaluate(
                self.split,
                data=self.data,
                downscale=self.downscale,
                masks=self.masks,
                appearance=self.appearance,
                right_half=self.right_half,
                save_images=self.save_images,
                lpips=self.lpips,
                adapt=None if self.adapt == Adapt() else self.adapt,
                progress=report_progress,
            )
        if is_first:
            print(*metrics.lines, metrics.report, sep="\n")
