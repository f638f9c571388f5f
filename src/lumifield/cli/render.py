"""`lumifield render`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from lumifield.cli import progress
from lumifield.errors import DataError

if TYPE_CHECKING:
    from lumifield.rendering.render import ViewFiles


@dataclass(frozen=True)
class RenderCommand:
    """Render a camera path to a video, or one view of a split to images."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run, or a portable scene (.zip)."""
    out: Path | None = None
    """Output: a .mp4 or .gif file, or a folder of PNG files (with --view-index: a folder, default RUN/views/SPLIT)."""
    path: str = "orbit"
    """Camera path: spiral, orbit, spheric, interpolate, tour (interpolate, with frames of the images' sizes), test, or
    a JSON file of cameras."""
    num_frames: int = 120
    """Number of frames of the path."""
    size: tuple[int, int] | None = None
    """Width and height of the frames or the view (default: those of the images) [pixels]."""
    channels: str = "rgb"
    """Outputs side by side, separated by commas: rgb, depth, bands (of depth), normal, opacity; for nerf-w also static,
    transient, combined, uncertainty; for nlr also blended, sources."""
    normals: Literal["density", "depth"] = "density"
    """Compute normals from the density or from the depth."""
    appearance: tuple[str, ...] = ()
    """Appearance embeddings of these training images, interpolated along the path, or mean (default); with several,
    interpolate and tour pass through their cameras. A meta-learned initialization is adapted to them."""
    depth_format: Literal["npy", "pfm", "bytes"] | None = None
    """Also write the depth of each frame [world units] in this format."""
    fps: int = 30
    """Frames per second."""
    view_index: int | None = None
    """Render this view of --split instead of a path."""
    split: str = "test"
    """Split of --view-index."""
    chunk: int | None = None
    """Rays rendered at once (default: chosen by the device); halved if memory runs out."""

    def run(self) -> None:
        """Renders."""
        from lumifield.api.run import open_run
        from lumifield.rendering import render
        from lumifield.runtime import distributed

        is_first = distributed.join()[0] == 0
        run = open_run(self.folder, chunk=self.chunk)
        if self.appearance:
            run = run.adapted_to(self.appearance)
        options = render.RenderOptions(render.parse_channels(self.channels), self.normals, self.appearance)
        if self.view_index is not None:
            if is_first:
                loaded = run.loaded
                print(
                    describe_view(
                        render.render_split_view(
                            loaded, self.split, self.view_index, self.out, size=self.size, options=options
                        )
                    )
                )
            return
        if self.out is None:
            raise DataError("--out", "output", "nothing", "a .mp4 or .gif file, or a folder", "add --out")
        with progress.progress_bar("frames", is_first) as report_progress:
            run.render_path(
                self.out,
                self.path,
                num_frames=self.num_frames,
                size=self.size,
                options=options,
                fps=self.fps,
                depth_format=self.depth_format,
                progress=report_progress,
            )
        if is_first:
            print(self.out)


def describe_view(still: ViewFiles) -> str:
    """Rendering time, PSNR and files of one view."""
    psnr = "no ground truth image" if still.psnr is None else f"psnr {still.psnr:.2f} dB"
    return f"{still.seconds:.2f} s, {psnr}: {', '.join(map(str, still.files))}"
