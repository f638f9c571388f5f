"""Camera paths to videos and image folders with raw depth beside them, and single views."""

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

from lumifield import data
from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.rendering import appearance, camera_paths
from lumifield.rendering.video import CODECS, drop_beyond, write_frames
from lumifield.rendering.view import Normals, NormalSource, View, render_view, view_psnr
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

OWN = "own."
COMMON = ("rgb", "depth", "bands", "normal", "opacity")
DEPTH_WRITERS = {"npy": image_io.write_npy, "pfm": image_io.write_pfm, "bytes": image_io.write_bytes}
VOTERS = 4096
UNCERTAIN = 0.5
"""Uncertainty from which on an image of it is brightest: half of the way from black to white."""


@dataclass(frozen=True)
class Still:
    """The images written of one view, the seconds its rendering took, and its PSNR where there is an image."""

    files: tuple[Path, ...]
    seconds: float
    psnr: float | None


@dataclass(frozen=True)
class Look:
    """What frames show: panels, what normals are read from, and the images whose appearance they wear.

    The appearance leads from one image's to the next, evenly along the path (none: the mean of all).
    """

    channels: Sequence[Channel] = ("rgb",)
    normals: NormalSource = "density"
    appearance: Sequence[str] = ()


def path_cameras(
    run: LoadedRun, path: str | Path, frames: int, size: tuple[int, int] | None = None, *, through: Sequence[str] = ()
) -> Cameras:
    """The cameras of a path: spiral, orbit, spheric, interpolate, tour, test, or a JSON file.

    `size` is width and height. `interpolate` leads through the images of the training that `through` names, or
    else the test cameras (the training cameras where there are none), and so does `tour`, with frames of their sizes.
    `test` and files have as many frames as cameras. Raises `DataError` for a path that is none of these.
    """
    if frames < 1:
        raise DataError(run.folder, "number of frames", str(frames), "1 or more", "ask for more frames")
    train = run.scenes["train"]
    match str(path):
        case "spiral":
            cameras = camera_paths.spiral(train, frames)
        case "orbit":
            cameras = camera_paths.orbit(train, frames)
        case "spheric":
            cameras = camera_paths.spheric(train, frames)
        case "interpolate":
            cameras = camera_paths.interpolate(waypoints(run, through), frames)
        case "tour":
            cameras = camera_paths.tour(waypoints(run, through), frames)
        case "test":
            cameras = split_scene(run, "test").cameras
        case name if name.endswith(".json"):
            cameras = camera_paths.from_json(Path(path), train)
        case name:
            expected = "spiral, orbit, spheric, interpolate, tour, test or a .json file"
            raise DataError(name, "camera path", repr(name), expected, "choose one of these")
    return cameras if size is None else framed(cameras, size)


def waypoints(run: LoadedRun, through: Sequence[str]) -> Cameras:
    """The cameras that a way leads through: those of two or more named images, else of the test or train split."""
    train, test = run.scenes["train"], run.scenes.get("test")
    named = [appearance.photograph(run, name) for name in through if name != "mean"]
    return train.cameras[named] if len(named) > 1 else (test or train).cameras


def framed(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """The cameras with images of `size` (width, height) and the same vertical angle of view."""
    target = torch.tensor(size).expand_as(cameras.size)
    ratio = target / cameras.size
    return replace(cameras, focal=cameras.focal * ratio[:, 1:], center=cameras.center * ratio, size=target.clone())


def path_scene(run: LoadedRun, cameras: Cameras) -> Scene:
    """The space of the training scene seen through other cameras, with the bounds of the images about each."""
    train = run.scenes["train"].without_images()
    shares = camera_paths.shares_of_neighbors(cameras.positions, train.cameras.positions)
    return replace(
        train,
        cameras=cameras,
        names=tuple(f"{index:04d}" for index in range(len(cameras))),
        near=shares @ train.near,
        far=shares @ train.far,
    )


def split_scene(run: LoadedRun, split: str) -> Scene:
    """The cameras of a split; raises `DataError` where the run has none."""
    scene = run.scenes.get(split)
    if scene is None or len(scene) == 0:
        known = ", ".join(name for name, other in run.scenes.items() if len(other) > 0)
        raise DataError(run.folder, f"split {split!r}", "empty", f"one of {known}", "choose one of these")
    return scene


def named_channels(listed: str) -> tuple[Channel, ...]:
    """The channels whose names are listed with commas between them; raises `DataError` for an unknown one."""
    names = listed.split(",")
    for name in names:
        if name not in get_args(Channel):
            raise DataError("--channels", "channel", repr(name), f"one of {', '.join(get_args(Channel))}", "correct it")
    return tuple(names)  # type: ignore[return-value]


def render_path(
    run: LoadedRun,
    cameras: Cameras,
    out: Path,
    *,
    look: Look = Look(),
    fps: int = 30,
    depth_format: DepthFormat | None = None,
    progress: Progress | None = None,
) -> None:
    """Renders a path to OUT.mp4, OUT.gif, or a folder of PNG files where `out` has no ending.

    The channels of the look stand side by side. Depth has one range of colors for the whole video, the 2nd to the 98th
    percentile of all frames, and fades with the opacity. Normals n are in world axes; 0.5 + 0.5 n is shown, and fades,
    too. With `depth_format`, OUT_depth/0000.npy and so on hold the distance from the camera along
    each ray [world units], 0 where the opacity is at most one half. Frames go to the disk one by one; several processes
    share them, and the first puts them together. Raises `DataError` for an unknown ending, a place that cannot be
    written to, a channel that the method does not have, and an appearance that is no image's.
    """
    check_output(out, ("", *CODECS), ".mp4, .gif, or none for a folder of PNG files")
    rank, world = distributed.join()
    channels = look.channels
    shown = shared_views(run, path_scene(run, cameras), look, progress)
    raw = out.with_name(f"{out.stem}_depth")
    if depth_format is not None:
        shown = with_raw_depth(shown, raw, depth_format)
    canvas = int(cameras.size[:, 0].max()), int(cameras.size[:, 1].max())
    if world == 1 and "depth" not in channels:
        write_frames(out, (panels(seen, channels, canvas) for _, seen in shown), fps)
    else:
        with common_folder(out.parent) as folder:
            spool(shown, folder)
            distributed.gather(None)
            if rank == 0:
                files = [folder / f"{index}.npz" for index in range(len(cameras))]
                span = depth_range(files) if "depth" in channels else (0.0, 1.0)
                write_frames(out, (panels(load(file), channels, canvas, span) for file in files), fps)
    if rank == 0 and depth_format is not None:
        drop_beyond(raw, len(cameras), f".{depth_format}")


def view(
    run: LoadedRun,
    split: str,
    index: int,
    out: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    look: Look = Look(),
) -> Still:
    """Renders one view of a split to color, depth, normal and opacity images in `out` (RUN/views/SPLIT).

    `size` is its width and height, with the same vertical angle of view (those of the image). In the appearance of
    an image it has images of the method's own channels, too.
    """
    scene = split_scene(run, split)
    if not 0 <= index < len(scene):
        raise DataError(run.folder, "view", str(index), f"0 to {len(scene) - 1}", f"choose a view of {split!r}")
    scene = scene if size is None else replace(scene, cameras=framed(scene.cameras, size))
    worn = appearance.along(run, look.appearance[:1], 1)
    seen = render_view(
        run.method,
        scene,
        index,
        device=run.device,
        chunk=run.chunk,
        normals=Normals.learned_from(run.scenes["train"], look.normals),
        appearance_embedding=None if worn is None else worn[0],
        channels=() if worn is None else run.method.channels,
    )
    out = run.folder / "views" / split if out is None else out
    span = colormaps.quantile_range(seen.depth[seen.solid])
    images = {
        "rgb": image_io.to_uint8(seen.rgb),
        "depth": seen.depth_image(*span),
        "normal": seen.normal_image(),
        "opacity": image_io.to_uint8(seen.opacity),
        **{name: channel_image(seen, name) for name in seen.channels},
    }
    files = {channel: out / f"{index:03d}_{channel}.png" for channel in images}
    for channel, pixels in images.items():
        image_io.write_png(files[channel], pixels)
    return Still(tuple(files.values()), seen.seconds, _psnr(run, seen, split, index))


def shared_views(run: LoadedRun, scene: Scene, look: Look, progress: Progress | None) -> Iterator[tuple[int, View]]:
    """This process's share of the views, each with its place in the film."""
    rank, world = distributed.join()
    own = range(rank, len(scene), world)
    normals = Normals.learned_from(run.scenes["train"], look.normals) if "normal" in look.channels else None
    worn = appearance.along(run, look.appearance, len(scene))
    channels = own_channels(run, look.channels)
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
                appearance_embedding=None if worn is None else worn[index],
                channels=channels,
            ),
        )
        if progress is not None:
            progress(done, len(own))


def own_channels(run: LoadedRun, asked: Sequence[Channel]) -> tuple[str, ...]:
    """Those channels that only some methods have; raises `DataError` where this one has not."""
    own = tuple(channel for channel in asked if channel not in COMMON)
    for channel in own:
        if channel not in run.method.channels:
            found, expected = f"{channel!r}, which the method does not have", ", ".join((*COMMON, *run.method.channels))
            raise DataError(run.folder, "channel", found, expected, "choose one of these")
    return own


def with_raw_depth(
    shown: Iterable[tuple[int, View]], folder: Path, depth_format: DepthFormat
) -> Iterator[tuple[int, View]]:
    """The same views; each one's depth is written to `folder` on the way."""
    for index, seen in shown:
        DEPTH_WRITERS[depth_format](folder / f"{index:04d}.{depth_format}", seen.measured_depth)
        yield index, seen


@contextmanager
def common_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder that all processes see; it goes when the first one leaves."""
    if distributed.join()[0] > 0:
        yield Path(distributed.gather(None)[0])
        return
    with tempfile.TemporaryDirectory(prefix=".lumifield-", dir=parent) as folder:
        distributed.gather(folder)
        yield Path(folder)


def spool(shown: Iterable[tuple[int, View]], folder: Path) -> None:
    """Writes views to the disk, in 8 bit but for depth and normals."""
    for index, seen in shown:
        file = folder / f"{index}.npz"
        kept = {"rgb": image_io.to_uint8(seen.rgb), "opacity": image_io.to_uint8(seen.opacity), "depth": seen.depth}
        if seen.normal is not None:
            kept["normal"] = seen.normal
        kept |= {f"{OWN}{name}": values for name, values in seen.channels.items()}
        with writing(file):
            np.savez(file, allow_pickle=False, **{name: values.numpy() for name, values in kept.items()})


def depth_range(files: Iterable[Path]) -> tuple[float, float]:
    """The range of depth over all spooled views [world units]."""
    depths = []
    for seen in map(load, files):
        # The same share of all pixels votes in every frame, so that the quantiles are those of the whole video.
        stride = max(seen.depth.numel() // VOTERS, 1)
        depths.append(seen.depth.flatten()[::stride][seen.solid.flatten()[::stride]])
    return colormaps.quantile_range(torch.cat(depths))


def load(file: Path) -> View:
    """A view that `spool` wrote."""
    with np.load(file) as arrays:
        kept = {name: torch.from_numpy(values) for name, values in arrays.items()}
    rgb, opacity = kept["rgb"].float() / 255, kept["opacity"].float() / 255
    own = {name.removeprefix(OWN): values for name, values in kept.items() if name.startswith(OWN)}
    return View(rgb, kept["depth"], opacity, 0.0, kept.get("normal"), own)


def panels(
    seen: View, channels: Sequence[Channel], canvas: tuple[int, int], span: tuple[float, float] = (0.0, 1.0)
) -> UInt8[Tensor, "h w 3"]:
    """The channels side by side, each in the middle of a black canvas (width, height)."""
    shown = []
    for channel in channels:
        match channel:
            case "rgb":
                pixels = image_io.to_uint8(seen.rgb)
            case "depth":
                pixels = seen.depth_image(*span)
            case "bands":
                pixels = seen.bands_image()
            case "normal":
                pixels = seen.normal_image()
            case "opacity":
                pixels = image_io.to_uint8(seen.opacity)[..., None].expand(-1, -1, 3)
            case own:
                pixels = channel_image(seen, own)
        height, width = pixels.shape[:2]
        panel = pixels.new_zeros(canvas[1], canvas[0], 3)
        top, left = (canvas[1] - height) // 2, (canvas[0] - width) // 2
        panel[top : top + height, left : left + width] = pixels
        shown.append(panel)
    return torch.cat(shown, 1)


def channel_image(seen: View, channel: str) -> UInt8[Tensor, "h w 3"]:
    """A channel of the method as an image: colors as they are, numbers from black at 0 to bright at `UNCERTAIN`."""
    values = seen.channels[channel]
    if values.shape[-1] == 1:
        values = colormaps.apply_colormap(values[..., 0], 0.0, UNCERTAIN, colormaps.HEAT)
    return image_io.to_uint8(values)


def _psnr(run: LoadedRun, seen: View, split: str, index: int) -> float | None:
    """PSNR against the image; None where there is none at hand, or none of this size."""
    if run.source is None:
        return None
    try:
        scene = data.read(run.source, split, rows=slice(index, index + 1))
    except DataError:
        return None
    return view_psnr(seen, scene, 0) if scene.size(0) == seen.rgb.shape[1::-1] else None
