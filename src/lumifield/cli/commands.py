"""The commands: one dataclass each. Nothing here imports torch before a command runs."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from lumifield.cli import progress
from lumifield.cli.synthesize import SynthesizeCommand
from lumifield.data import Source
from lumifield.errors import DataError
from lumifield.export import CamerasExport, Mesh, Points, Volume, Web, Weights
from lumifield.localization import Baseline, Density, Pose, Select, Synthesize
from lumifield.meta import Adapt, MetaTrain
from lumifield.methods import Instant, MipNerf, Nerf, NerfW, Nlr, SimpleNerf
from lumifield.pretraining import Pretrain
from lumifield.training import Train

if TYPE_CHECKING:
    from lumifield.rendering.render import Still
    from lumifield.runs.run_folder import Run

MethodChoice = Annotated[
    Annotated[Instant, subcommand("instant")]
    | Annotated[MipNerf, subcommand("mip-nerf")]
    | Annotated[Nerf, subcommand("nerf")]
    | Annotated[NerfW, subcommand("nerf-w")]
    | Annotated[Nlr, subcommand("nlr")]
    | Annotated[SimpleNerf, subcommand("simple-nerf")],
    OmitSubcommandPrefixes,
]
ExportChoice = Annotated[
    Annotated[Mesh, subcommand("mesh")]
    | Annotated[Points, subcommand("points")]
    | Annotated[Web, subcommand("web")]
    | Annotated[CamerasExport, subcommand("cameras")]
    | Annotated[Volume, subcommand("volume")]
    | Annotated[Weights, subcommand("weights")],
    OmitSubcommandPrefixes,
]
LocalizeChoice = Annotated[
    Annotated[Density, subcommand("density")]
    | Annotated[Select, subcommand("select")]
    | Annotated[Synthesize, subcommand("synthesize")]
    | Annotated[Pose, subcommand("pose")]
    | Annotated[Baseline, subcommand("baseline")],
    OmitSubcommandPrefixes,
]


@dataclass(frozen=True)
class TrainCommand:
    """Learn a scene from its train split."""

    source: Annotated[Source, arg(name="")]
    out: Path
    """Folder of the run, made here."""
    method: MethodChoice = field(default_factory=Instant)
    train: Annotated[Train, arg(name="")] = field(default_factory=Train)
    config: Path | None = None
    """A run's config.json or a recipe: settings that the command line does not give."""
    resume: bool = False
    """Go on where the run in --out was stopped, with its settings."""
    view: bool = False
    """Show the training in the browser, on 127.0.0.1."""

    def run(self) -> None:
        """Trains."""
        from rich.console import Console

        from lumifield.training.job import Job, train

        job, console = Job(self.method, self.source, self.train, self.out), Console()
        with ExitStack() as stack:
            listeners = []
            if self.view:
                from lumifield.viewer.server import LiveView

                listeners.append(stack.enter_context(closing(LiveView(self.out, console.print))))
            train(job, resume=self.resume, console=console, listeners=listeners)


@dataclass(frozen=True)
class MetaTrainCommand:
    """Learn a start for all scenes of a kind, which training then begins with (train --init)."""

    source: Annotated[Source, arg(name="")]
    out: Path
    """Folder of the run, made here."""
    method: MethodChoice = field(default_factory=SimpleNerf)
    meta: Annotated[MetaTrain, arg(name="")] = field(default_factory=MetaTrain)
    config: Path | None = None
    """A meta-trained run's config.json: settings that the command line does not give."""
    resume: bool = False
    """Go on where the run in --out was stopped, with its settings."""

    def run(self) -> None:
        """Learns."""
        from rich.console import Console

        from lumifield.meta.run import MetaJob, meta_train

        meta_train(MetaJob(self.method, self.source, self.meta, self.out), resume=self.resume, console=Console())


@dataclass(frozen=True)
class PretrainFeaturesCommand:
    """Learn nlr's features from pairs of images with known flow (train nlr --init, --started encoder decoder)."""

    pretrain: Annotated[Pretrain, arg(name="")]
    out: Path
    """Folder of the run, made here."""

    def run(self) -> None:
        """Learns."""
        from rich.console import Console

        from lumifield.pretraining.pretrain import pretrain

        scores = pretrain(self.pretrain, self.out, Console())
        print(*(f"{name} {value:.2f} dB" for name, value in scores.items()), self.out, sep="\n")


@dataclass(frozen=True)
class EvalCommand:
    """Render a split, score it, and write metrics.json and .csv, images, error maps and report.html."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run."""
    split: str = "test"
    """Which split."""
    data: Path | None = None
    """Where the images are now, if they have moved since the training."""
    images: bool = True
    """Write each view and its error map."""
    last: bool = False
    """The last weights instead of those that validated best."""
    downscale: int | None = None
    """Read the images at 1/K of their width and height (as for the training); another size is written apart."""
    appearance: str | None = None
    """What views wear: fitted to left halves, while right halves are scored (usual where images have embeddings);
    affine, a color curve of each, in the same way; mean (usual elsewhere) or nearest of the training's images, or
    the name of one."""
    right_half: bool = False
    """Score right halves alone, whatever views wear."""
    masks: Path | None = None
    """Folder of masks that are named as the images: what is black in them does not count."""
    chunk: int | None = None
    """Rays rendered at once (as many as suit the device); halved when memory runs out."""
    adapt: Annotated[Adapt, arg(name="")] = field(default_factory=Adapt)

    def run(self) -> None:
        """Evaluates."""
        from lumifield.evaluation import evaluate
        from lumifield.meta import scores

        run, first = _opened(self.folder, "last" if self.last else "best", self.chunk)
        changes = {"data": self.data, "downscale": self.downscale, "masks": self.masks}
        changes = {name: value for name, value in changes.items() if value is not None}
        if run.source is not None:
            run = replace(run, source=replace(run.source, **changes))
        scoring = evaluate.Scoring.of(run, self.appearance, right_half=self.right_half)
        if "meta" in run.config:
            scores.refuse_appearance(run, scoring)
            with progress.counted("adaptations", first) as note:
                metrics = scores.evaluate(run, self.split, self.adapt, save_images=self.images, progress=note)
        else:
            if self.adapt != Adapt():
                scores.refuse_adaptation(run)
            with progress.counted(f"{self.split} views", first) as note:
                metrics = evaluate.evaluate(run, self.split, scoring=scoring, save_images=self.images, progress=note)
        if first:
            report = evaluate.folder_of(run, self.split, scoring) / "report.html"
            print(*evaluate.told(metrics, scoring), report, sep="\n")


@dataclass(frozen=True)
class RenderCommand:
    """Render a camera path to a video, or one view of a split to images with its time and PSNR."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run, or a portable scene."""
    out: Path | None = None
    """A .mp4 or .gif file, or a folder of PNG files (with --view: a folder, by default RUN/views/SPLIT)."""
    path: str = "orbit"
    """spiral, orbit, spheric, interpolate, tour (interpolate, with frames of the images' sizes), test, or a JSON
    file of cameras."""
    frames: int = 120
    """Frames of the path."""
    size: tuple[int, int] | None = None
    """Width and height of the frames or the view (those of the images)."""
    channels: str = "rgb"
    """Of rgb, depth, bands (of depth), normal and opacity, for nerf-w also static, transient, combined and uncertainty,
    for nlr blended and sources, separated by commas: panels side by side."""
    normals: Literal["density", "depth"] = "density"
    """What normals are read from."""
    appearance: tuple[str, ...] = ()
    """Images of the training whose appearance frames wear, from the first to the last along the path, or mean (the
    mean of all); interpolate and tour lead through them where they are several. A start that is meta-trained on
    images adapts to them."""
    depth_format: Literal["npy", "pfm", "bytes"] | None = None
    """Write each frame's distance in world units beside the video, too."""
    fps: int = 30
    """Frames a second."""
    view: int | None = None
    """Render this one view of --split instead of a path."""
    split: str = "test"
    """The split of --view."""
    chunk: int | None = None
    """Rays rendered at once (as many as suit the device); halved when memory runs out."""

    def run(self) -> None:
        """Renders."""
        from lumifield.rendering import render

        run, first = _opened(self.folder, "best", self.chunk)
        if "meta" in run.config and self.appearance:
            from lumifield.meta import interpolate

            run = interpolate.adapted_to(run, self.appearance)
        look = render.Look(render.named_channels(self.channels), self.normals, self.appearance)
        if self.view is not None:
            if first:
                print(_told(render.view(run, self.split, self.view, self.out, size=self.size, look=look)))
            return
        if self.out is None:
            raise DataError("--out", "output", "missing", "a .mp4 or .gif file or a folder", "name one")
        cameras = render.path_cameras(run, self.path, self.frames, self.size, through=self.appearance)
        with progress.counted("frames", first) as note:
            render.render_path(
                run,
                cameras,
                self.out,
                look=look,
                fps=self.fps,
                depth_format=self.depth_format,
                progress=note,
            )
        if first:
            print(self.out)


@dataclass(frozen=True)
class ExportCommand:
    """Take a trained scene elsewhere, in the world frame of its images."""

    kind: ExportChoice
    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run, or a portable scene."""
    out: Path
    """The file, whose ending says its format, or the folder."""

    def run(self) -> None:
        """Exports."""
        run, first = _opened(self.folder, "best", None)
        if not first:
            return
        with progress.counted(type(self.kind).__name__.lower()) as note:
            self.kind.write(run, self.out, note)
        print(self.out)


@dataclass(frozen=True)
class LocalizeCommand:
    """Visual localization: images that nobody took, for what learns to tell poses from images (LENS)."""

    kind: LocalizeChoice
    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run."""

    def run(self) -> None:
        """Does the step."""
        run, first = _opened(self.folder, "best", None)
        with progress.counted(type(self.kind).__name__.lower(), first) as note:
            said = self.kind.apply(run, note)
        if first:
            print(said)


@dataclass(frozen=True)
class ViewCommand:
    """Show a run in the browser, until interrupted."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run, or a portable scene."""
    port: int = 8080
    """Port on 127.0.0.1; where it is taken, the next free one."""
    chunk: int | None = None
    """Rays rendered at once (as many as suit the device and its speed); halved when memory runs out."""

    def run(self) -> None:
        """Serves."""
        from lumifield.viewer.server import Viewer

        run, _ = _opened(self.folder, "best", self.chunk)
        viewer = Viewer(run, self.port)
        try:
            with progress.changing("nobody looks yet") as say:
                viewer.serve(say)
        finally:
            viewer.close()


@dataclass(frozen=True)
class DownloadCommand:
    """Fetch a published data set; without a name: list the sets, their terms and their scenes."""

    name: Annotated[Positional[str | None], arg(metavar="NAME")] = None
    """Name of the set."""
    out: Path | None = None
    """Folder that gets a folder for each scene."""
    scenes: tuple[str, ...] = ()
    """Only these scenes."""

    def run(self) -> None:
        """Downloads, or lists."""
        from lumifield import download

        if self.name is None:
            print("\n".join(download.listing()))
            return
        download.named(self.name)
        if self.out is None:
            raise DataError("--out", "output", "missing", "a folder", "name one")
        with progress.transfers() as note:
            folders = download.download(self.name, self.out, self.scenes, progress=note)
        print("\n".join(map(str, folders)))


@dataclass(frozen=True)
class BenchCommand:
    """Measure speed beside a textbook NeRF step, and the seconds to each quality, in one run."""

    name: Positional[Literal["cpu", "gpu"]]
    source: Annotated[Source, arg(name="")]
    minutes: float = 5.0
    """Length of the training."""
    seed: int = 0
    """Seed of every random number."""
    out: Path = Path("benchmarks/results")
    """Where NAME.json and NAME.md go."""

    def run(self) -> None:
        """Measures."""
        from lumifield.bench import compare

        print(compare.markdown(compare.compare(self.source, self.minutes, self.seed, self.out, self.name)))


@dataclass(frozen=True)
class InfoCommand:
    """Versions, devices, and which kernels are live and why."""

    def run(self) -> None:
        """Prints."""
        from lumifield.cli import info

        print("\n".join(info.lines()))


Command = (
    Annotated[TrainCommand, subcommand("train")]
    | Annotated[MetaTrainCommand, subcommand("meta-train")]
    | Annotated[PretrainFeaturesCommand, subcommand("pretrain-features")]
    | Annotated[EvalCommand, subcommand("eval")]
    | Annotated[RenderCommand, subcommand("render")]
    | Annotated[ExportCommand, subcommand("export")]
    | Annotated[LocalizeCommand, subcommand("localize")]
    | Annotated[ViewCommand, subcommand("view")]
    | Annotated[SynthesizeCommand, subcommand("synthesize-data")]
    | Annotated[DownloadCommand, subcommand("download")]
    | Annotated[BenchCommand, subcommand("bench")]
    | Annotated[InfoCommand, subcommand("info")]
)


def _opened(path: Path, which: Literal["best", "last"], chunk: int | None) -> tuple[Run, bool]:
    """A run on the device of this process, and whether this is the first process."""
    import torch

    from lumifield.runs.run_folder import load
    from lumifield.runtime import distributed

    if chunk is not None and chunk < 1:
        raise DataError("--chunk", "rays at once", str(chunk), "1 or more", "raise it")
    rank, _ = distributed.join()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load(path, which, device=device, chunk=chunk), rank == 0


def _told(still: Still) -> str:
    against = "no image to compare with" if still.psnr is None else f"psnr {still.psnr:.2f} dB"
    return f"{still.seconds:.2f} s, {against}: {', '.join(map(str, still.files))}"
