"""Rendering of camera paths to videos and image folders, and of single views to images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.rendering import appearance, camera_paths
from lumifield.rendering.video import CODECS, remove_frames_beyond, write_frames
from lumifield.rendering.view import Normals, NormalSource, RenderedView, render_view, view_psnr
from lumifield.runtime import colormaps, distributed, image_io
from lumifield.runtime.files import check_output, writing

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

Channel = Literal[
    "rgb",
    "depth",
    "bands",
    "normal",
    "opacity",
    "static",
    "transient",
    "combined",
    "uncertainty",
    "blended",
    "sources",
]
DepthFormat = Literal["npy", "pfm", "bytes"]
Progress = Callable[[int, int], None]

METHOD_PREFIX = "own."
COMMON_CHANNELS = ("rgb", "depth", "bands", "normal", "opacity")
DEPTH_WRITERS = {"npy": image_io.write_npy, "pfm": image_io.write_pfm, "bytes": image_io.write_bytes}
MAX_DEPTH_SAMPLES = 4096
MAX_UNCERTAINTY = 0.5
"""Uncertainty that is shown at full brightness."""


@dataclass(frozen=True)
class ViewFiles:
    """Image files of one view, rendering time [s], and PSNR if there is a ground truth image."""

    files: tuple[Path, ...]
    seconds: float
    psnr: float | None


@dataclass(frozen=True)
class RenderOptions:
    """Channels to render side by side, source of normals, and names of images whose appearance is used.

    The appearance is interpolated along the path (default: mean of all images).
    """

    channels: Sequence[Channel] = ("rgb",)
    normals: NormalSource = "density"
    appearance: Sequence[str] = ()


def make_path_cameras(
    run: LoadedRun, path: str | Path, frames: int, size: tuple[int, int] | None = None, *, through: Sequence[str] = ()
) -> Cameras:
    """Cameras of a path: spiral, orbit, spheric, interpolate, tour, test, or a JSON file.

    `size` is width and height. `interpolate` and `tour` pass through the training images named by `through`, or else
    the test cameras (training cameras if there are none). `test` and files have one frame per camera. Raises
    `DataError` for an unknown path.
    """
    if frames < 1:
        raise DataError(run.folder, "number of frames", str(frames), "1 or more", "raise --num-frames")
    train = run.scenes["train"]
    match str(path):
        case "spiral":
            cameras = camera_paths.spiral_path(train, frames)
        case "orbit":
            cameras = camera_paths.orbit_path(train, frames)
        case "spheric":
            cameras = camera_paths.spheric_path(train, frames)
        case "interpolate":
            cameras = camera_paths.interpolate_cameras(select_waypoints(run, through), frames)
        case "tour":
            cameras = camera_paths.tour_path(select_waypoints(run, through), frames)
        case "test":
            cameras = cameras_of_split(run, "test").cameras
        case name if name.endswith(".json"):
            cameras = camera_paths.read_camera_path(Path(path), train)
        case name:
            expected = "spiral, orbit, spheric, interpolate, tour, test or a .json file"
            raise DataError(name, "camera path", repr(name), expected, "choose one of these")
    return cameras if size is None else with_image_size(cameras, size)


def select_waypoints(run: LoadedRun, through: Sequence[str]) -> Cameras:
    """Cameras that a path passes through: those of two or more named images, else of the test or train split."""
    train, test = run.scenes["train"], run.scenes.get("test")
    named = [appearance.image_index(run, name) for name in through if name != "mean"]
    return train.cameras[named] if len(named) > 1 else (test or train).cameras


def with_image_size(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """Cameras with image size `size` (width, height) and the same vertical field of view."""
    target = torch.tensor(size).expand_as(cameras.size)
    ratio = target / cameras.size
    return replace(cameras, focal=cameras.focal * ratio[:, 1:], center=cameras.center * ratio, size=target.clone())


def scene_of_cameras(run: LoadedRun, cameras: Cameras) -> Scene:
    """The training scene seen by other cameras, with near and far interpolated from the nearest views."""
    train = run.scenes["train"].without_images()
    shares = camera_paths.inverse_distance_weights(cameras.positions, train.cameras.positions)
    return replace(
        train,
        cameras=cameras,
        names=tuple(f"{index:04d}" for index in range(len(cameras))),
        near=shares @ train.near,
        far=shares @ train.far,
    )


def cameras_of_split(run: LoadedRun, split: str) -> Scene:
    """Cameras of a split; raises `DataError` if the run has none."""
    scene = run.scenes.get(split)
    if scene is None or len(scene) == 0:
        known = ", ".join(name for name, other in run.scenes.items() if len(other) > 0)
        raise DataError(run.folder, f"split {split!r}", "no cameras", f"one of {known}", "choose one of these")
    return scene


def parse_channels(listed: str) -> tuple[Channel, ...]:
    """Channels of a comma-separated list; raises `DataError` for an unknown one."""
    names = listed.split(",")
    for name in names:
        if name not in get_args(Channel):
            raise DataError("--channels", "channel", repr(name), f"one of {', '.join(get_args(Channel))}", "correct it")
    return tuple(names)  # type: ignore[return-value]


def render_camera_path(
    run: LoadedRun,
    cameras: Cameras,
    out: Path,
    *,
    options: RenderOptions = RenderOptions(),
    fps: int = 30,
    depth_format: DepthFormat | None = None,
    progress: Progress | None = None,
) -> None:
    """Renders a path to a video (.mp4, .gif), or to a folder of PNG files if `out` has no extension.

    Channels are side by side. Depth is colored over one range for the whole video, the 2nd to 98th percentile, and
    fades with opacity, as do normals n in world axes, shown as 0.5 + 0.5 n. With `depth_format`, OUT_depth/0000.npy
    etc. hold the distance along each ray [world units], 0 where opacity is at most 0.5. Several processes share the
    frames, and the first encodes them. Raises `DataError` for an unknown extension, an unwritable path, or an unknown
    channel or appearance.
    """
    check_output(out, ("", *CODECS), ".mp4, .gif, or none for a folder of PNG files")
    rank, world = distributed.join()
    channels = options.channels
    shown = render_distributed(run, scene_of_cameras(run, cameras), options, progress)
    raw = out.with_name(f"{out.stem}_depth")
    if depth_format is not None:
        shown = write_raw_depth(shown, raw, depth_format)
    canvas = int(cameras.size[:, 0].max()), int(cameras.size[:, 1].max())
    if world == 1 and "depth" not in channels:
        write_frames(out, (compose_panels(view, channels, canvas) for _, view in shown), fps)
    else:
        with shared_temporary_folder(out.parent) as folder:
            spool_views(shown, folder)
            distributed.gather(None)
            if rank == 0:
                files = [folder / f"{index}.npz" for index in range(len(cameras))]
                span = depth_range(files) if "depth" in channels else (0.0, 1.0)
                write_frames(
                    out, (compose_panels(load_spooled_view(file), channels, canvas, span) for file in files), fps
                )
    if rank == 0 and depth_format is not None:
        remove_frames_beyond(raw, len(cameras), f".{depth_format}")


def render_split_view(
    run: LoadedRun,
    split: str,
    index: int,
    out: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    options: RenderOptions = RenderOptions(),
) -> ViewFiles:
    """Renders one view of a split to color, depth, normal and opacity images in `out` (default RUN/views/SPLIT).

    `size` is width and height, with the same vertical field of view. With an appearance it also writes the channels of
    the method.
    """
    scene = cameras_of_split(run, split)
    if not 0 <= index < len(scene):
        raise DataError(run.folder, "view", str(index), f"0 to {len(scene) - 1}", f"choose a view of {split!r}")
    scene = scene if size is None else replace(scene, cameras=with_image_size(scene.cameras, size))
    embeddings = appearance.interpolate_embeddings(run, options.appearance[:1], 1)
    view = render_view(
        run.method,
        scene,
        index,
        device=run.device,
        chunk=run.chunk,
        normals=Normals.for_training_scene(run.scenes["train"], options.normals),
        appearance_embedding=None if embeddings is None else embeddings[0],
        channels=() if embeddings is None else run.method.traits.channels,
    )
    out = run.folder / "views" / split if out is None else out
    span = colormaps.quantile_range(view.depth[view.hit_mask])
    images = {
        "rgb": image_io.to_uint8(view.rgb),
        "depth": view.depth_image(*span),
        "normal": view.normal_image(),
        "opacity": image_io.to_uint8(view.opacity),
        **{name: channel_image(view, name) for name in view.channels},
    }
    files = {channel: out / f"{index:03d}_{channel}.png" for channel in images}
    for channel, pixels in images.items():
        image_io.write_png(files[channel], pixels)
    return ViewFiles(tuple(files.values()), view.seconds, _psnr(run, view, split, index))


def render_distributed(
    run: LoadedRun, scene: Scene, options: RenderOptions, progress: Progress | None
) -> Iterator[tuple[int, RenderedView]]:
    """Views of this process with their frame index."""
    rank, world = distributed.join()
    own = range(rank, len(scene), world)
    normals = Normals.for_training_scene(run.scenes["train"], options.normals) if "normal" in options.channels else None
    embeddings = appearance.interpolate_embeddings(run, options.appearance, len(scene))
    channels = method_channels(run, options.channels)
    for done, index in enumerate(own, 1):
        yield (
            index,
            render_view(
                run.method,
                scene,
                index,
                device=run.device,
                chunk=run.chunk,
                normals=normals,
                appearance_embedding=None if embeddings is None else embeddings[index],
                channels=channels,
            ),
        )
        if progress is not None:
            progress(done, len(own))


def method_channels(run: LoadedRun, channels: Sequence[Channel]) -> tuple[str, ...]:
    """Channels that only some methods have; raises `DataError` if this one has not."""
    own = tuple(channel for channel in channels if channel not in COMMON_CHANNELS)
    for channel in own:
        if channel not in run.method.traits.channels:
            found, expected = (
                f"{channel!r}, which this method does not have",
                ", ".join((*COMMON_CHANNELS, *run.method.traits.channels)),
            )
            raise DataError(run.folder, "channel", found, expected, "choose one of these")
    return own


def write_raw_depth(
    shown: Iterable[tuple[int, RenderedView]], folder: Path, depth_format: DepthFormat
) -> Iterator[tuple[int, RenderedView]]:
    """Passes views through, writing the depth of each to `folder`."""
    for index, view in shown:
        DEPTH_WRITERS[depth_format](folder / f"{index:04d}.{depth_format}", view.measured_depth)
        yield index, view


@contextmanager
def shared_temporary_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder visible to all processes, removed when the first one leaves."""
    if distributed.join()[0] > 0:
        yield Path(distributed.gather(None)[0])
        return
    with tempfile.TemporaryDirectory(prefix=".lumifield-", dir=parent) as folder:
        distributed.gather(folder)
        yield Path(folder)


def spool_views(shown: Iterable[tuple[int, RenderedView]], folder: Path) -> None:
    """Writes views to disk, in 8 bits except depth and normals."""
    for index, view in shown:
        file = folder / f"{index}.npz"
        kept = {"rgb": image_io.to_uint8(view.rgb), "opacity": image_io.to_uint8(view.opacity), "depth": view.depth}
        if view.normal is not None:
            kept["normal"] = view.normal
        kept |= {f"{METHOD_PREFIX}{name}": values for name, values in view.channels.items()}
        with writing(file):
            np.savez(file, allow_pickle=False, **{name: values.numpy() for name, values in kept.items()})


def depth_range(files: Iterable[Path]) -> tuple[float, float]:
    """Depth range over all spooled views [world units]."""
    depths = []
    for view in map(load_spooled_view, files):
        # The same fraction of the pixels of every frame is used, so that quantiles are those of the whole video.
        stride = max(view.depth.numel() // MAX_DEPTH_SAMPLES, 1)
        depths.append(view.depth.flatten()[::stride][view.hit_mask.flatten()[::stride]])
    return colormaps.quantile_range(torch.cat(depths))


def load_spooled_view(file: Path) -> RenderedView:
    """A view written by `spool_views`."""
    with np.load(file) as arrays:
        kept = {name: torch.from_numpy(values) for name, values in arrays.items()}
    rgb, opacity = kept["rgb"].float() / 255, kept["opacity"].float() / 255
    own = {name.removeprefix(METHOD_PREFIX): values for name, values in kept.items() if name.startswith(METHOD_PREFIX)}
    return RenderedView(rgb, kept["depth"], opacity, 0.0, kept.get("normal"), own)


def compose_panels(
    view: RenderedView, channels: Sequence[Channel], canvas: tuple[int, int], span: tuple[float, float] = (0.0, 1.0)
) -> UInt8[Tensor, "h w 3"]:
    """Channels side by side, each centered on a black canvas (width, height)."""
    shown = []
    for channel in channels:
        match channel:
            case "rgb":
                pixels = image_io.to_uint8(view.rgb)
            case "depth":
                pixels = view.depth_image(*span)
            case "bands":
                pixels = view.bands_image()
            case "normal":
                pixels = view.normal_image()
            case "opacity":
                pixels = image_io.to_uint8(view.opacity)[..., None].expand(-1, -1, 3)
            case own:
                pixels = channel_image(view, own)
        height, width = pixels.shape[:2]
        panel = pixels.new_zeros(canvas[1], canvas[0], 3)
        top, left = (canvas[1] - height) // 2, (canvas[0] - width) // 2
        panel[top : top + height, left : left + width] = pixels
        shown.append(panel)
    return torch.cat(shown, 1)


def channel_image(view: RenderedView, channel: str) -> UInt8[Tensor, "h w 3"]:
    """A channel of the method as image: colors unchanged, scalars from black at 0 to bright at `MAX_UNCERTAINTY`."""
    values = view.channels[channel]
    if values.shape[-1] == 1:
        values = colormaps.apply_colormap(values[..., 0], 0.0, MAX_UNCERTAINTY, colormaps.HEAT)
    return image_io.to_uint8(values)


def _psnr(run: LoadedRun, view: RenderedView, split: str, index: int) -> float | None:
    """PSNR against ground truth; None if there is none of this size."""
    try:
        scene = run.capture.read(split, rows=slice(index, index + 1))
    except DataError:
        return None
    return view_psnr(view, scene, 0) if scene.size(0) == view.rgb.shape[1::-1] else None
