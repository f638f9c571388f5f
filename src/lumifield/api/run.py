"""A trained run: novel views, evaluation, density queries and exports."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumifield.api.capture import Camera, scene_cameras, world_cameras
from lumifield.errors import DataError
from lumifield.evaluation.metrics import Metrics
from lumifield.export import CamerasExport, MeshExport, PointsExport, VolumeExport, WebExport, WeightsExport
from lumifield.export.world_field import WorldField
from lumifield.meta import Adapt
from lumifield.methods import Settings
from lumifield.rendering import appearance, render
from lumifield.rendering.view import Normals, render_view
from lumifield.runs.driver import select_device
from lumifield.runs.run_folder import LoadedRun, read_run
from lumifield.runtime import image_io

Progress = Callable[[int, int], None]
PathLike = str | os.PathLike[str]
QUERY_CHUNK = 65536


@dataclass(frozen=True, eq=False)
class RenderedImage:
    """A rendered view as numpy arrays.

    `rgb` in [0, 1]; `depth` along the ray [world units]; `opacity` in [0, 1]; `normal` in world axes, if requested;
    `channels` holds outputs that only some methods have; `seconds` is the rendering time.
    """

    rgb: Float[np.ndarray, "h w 3"]
    depth: Float[np.ndarray, "h w"]
    opacity: Float[np.ndarray, "h w"]
    seconds: float
    normal: Float[np.ndarray, "h w 3"] | None = None
    channels: dict[str, Float[np.ndarray, "h w c"]] = field(default_factory=dict)

    def save(self, path: PathLike) -> Path:
        """Writes `rgb` as a PNG file of 8 bits."""
        image_io.write_png(Path(path), image_io.to_uint8(torch.from_numpy(self.rgb)))
        return Path(path)


class Run:
    """A trained run, loaded from its folder or from a portable scene when first used."""

    def __init__(self, load: Callable[[], LoadedRun]) -> None:
        self._load = load

    @cached_property
    def loaded(self) -> LoadedRun:
        """The trained method with its cameras, in scene coordinates as torch tensors."""
        return self._load()

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.loaded.folder

    @property
    def method(self) -> Settings:
        """Settings of the trained method."""
        return self.loaded.method.settings

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits whose cameras the run knows."""
        return tuple(split for split, scene in self.loaded.scenes.items() if len(scene) > 0)

    def cameras(self, split: str = "train") -> tuple[Camera, ...]:
        """Cameras of a split in world coordinates; raises `DataError` if the run has no such split."""
        return world_cameras(render.cameras_of_split(self.loaded, split))

    def render(
        self,
        camera: Camera,
        *,
        size: tuple[int, int] | None = None,
        appearance_of: str | None = None,
        normals: Literal["density", "depth"] | None = None,
        channels: Sequence[str] = (),
    ) -> RenderedImage:
        """Renders the view of a camera.

        `size` is width and height; `appearance_of` names a training image whose appearance embedding is used
        (`nerf-w`); `normals` adds normals from the density or the depth; `channels` names more outputs of the method.
        """
        run = self.loaded
        camera = camera if size is None else camera.resized(*size)
        scene = render.scene_of_cameras(run, scene_cameras([camera], run.scenes["train"].frame))
        if camera.bounds is not None:
            near, far = torch.tensor([camera.bounds]).unbind(-1)
            scene = replace(scene, near=near, far=far)
        view = render_view(
            run.method,
            scene,
            0,
            device=run.device,
            chunk=run.chunk,
            normals=None if normals is None else Normals.for_training_scene(run.scenes["train"], normals),
            appearance_embedding=None if appearance_of is None else appearance.embedding_of(run, appearance_of),
            channels=tuple(channels),
        )
        return RenderedImage(
            rgb=view.rgb.clamp(0, 1).numpy(),
            depth=view.depth.numpy(),
            opacity=view.opacity.numpy(),
            seconds=view.seconds,
            normal=None if view.normal is None else view.normal.numpy(),
            channels={name: values.numpy() for name, values in view.channels.items()},
        )

    def render_path(
        self,
        out: PathLike,
        path: str | PathLike | Sequence[Camera] = "orbit",
        *,
        num_frames: int = 120,
        size: tuple[int, int] | None = None,
        options: render.RenderOptions | None = None,
        fps: int = 30,
        depth_format: Literal["npy", "pfm", "bytes"] | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Renders a camera path to a video (.mp4, .gif) or to a folder of PNG files.

        `path` is spiral, orbit, spheric, interpolate, tour, test, a JSON file of cameras, or a sequence of cameras.
        """
        run, options, out = self.loaded, options or render.RenderOptions(), Path(out)
        if isinstance(path, str | os.PathLike):
            through = options.appearance
            cameras = render.make_path_cameras(run, os.fspath(path), num_frames, size, through=through)
        else:
            views = [camera if size is None else camera.resized(*size) for camera in path]
            cameras = scene_cameras(views, run.scenes["train"].frame)
        render.render_camera_path(
            run, cameras, out, options=options, fps=fps, depth_format=depth_format, progress=progress
        )
        return out

    def adapted_to(self, images: Sequence[str]) -> Run:
        """A meta-learned initialization adapted to training images by name; other runs are returned as they are."""
        if self.loaded.config.training != "meta":
            return self
        from lumifield.meta import adapted_mixture

        adapted = adapted_mixture.mix_adapted_clones(self.loaded, tuple(images))
        return Run(lambda: adapted)

    @overload
    def query(self, points: np.ndarray, directions: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]: ...

    @overload
    def query(self, points: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    @torch.no_grad()
    def query(self, points: Any, directions: Any = None) -> tuple[Any, Any]:
        """Density [1 / world unit] and RGB in [0, 1] at world points, as numpy arrays or tensors like `points`.

        RGB is seen along `directions` (unit vectors in world axes); without them it is the mean over the six axes.
        """
        world_field = WorldField(self.loaded)
        where = torch.as_tensor(points, dtype=torch.float32).cpu()
        towards = None if directions is None else torch.as_tensor(directions, dtype=torch.float32).cpu()
        density, rgb = [torch.empty(0)], [torch.empty(0, 3)]
        for rows in torch.arange(len(where)).split(QUERY_CHUNK):
            density.append(world_field.density(where[rows]))
            rgb.append(world_field.colors(where[rows], None if towards is None else towards[rows]))
        found = torch.cat(density), torch.cat(rgb)
        if isinstance(points, Tensor):
            return found[0].to(points.device), found[1].to(points.device)
        return found[0].numpy(), found[1].numpy()

    def evaluate(
        self,
        split: str = "test",
        *,
        data: PathLike | None = None,
        downscale: int | None = None,
        masks: PathLike | None = None,
        appearance: str | None = None,
        right_half: bool = False,
        save_images: bool = True,
        lpips: bool = False,
        adapt: Adapt | None = None,
        progress: Progress | None = None,
    ) -> Metrics:
        """Renders a split, scores it and writes metrics.json, metrics.csv, images, error maps and report.html.

        `data` is where the images are now; `downscale` and `masks` replace those of the training; `appearance` is
        fitted, affine, mean, nearest or the name of a training image. LPIPS is scored if its weights are on the
        machine; `lpips` downloads them. A meta-learned initialization is adapted to each scene of the split first, as
        `adapt` says. Raises `DataError` if the images are not found.
        """
        from lumifield.evaluation import evaluate
        from lumifield.evaluation.protocol import Scoring
        from lumifield.meta import few_shot_evaluation

        changes = {"data": as_path(data), "downscale": downscale, "masks": as_path(masks)}
        run = self.loaded
        if run.source is not None:
            changes = {name: value for name, value in changes.items() if value is not None}
            run = replace(run, source=replace(run.source, **changes))
        scoring = Scoring.of(run, appearance, right_half=right_half)
        if run.config.training == "meta":
            few_shot_evaluation.forbid_appearance(run, scoring)
            adapt = adapt or Adapt()
            return few_shot_evaluation.evaluate_few_shot(run, split, adapt, save_images=save_images, progress=progress)
        if adapt is not None:
            few_shot_evaluation.forbid_adaptation(run)
        return evaluate.evaluate(
            run, split, scoring=scoring, save_images=save_images, download_lpips=lpips, progress=progress
        )

    def export_mesh(self, out: PathLike, settings: MeshExport | None = None, **options: Any) -> Path:
        """Writes the surface as .glb, .ply, .obj, .dae or .stl; `options` are fields of `MeshExport`."""
        from lumifield.export import MeshExport

        return self._export(settings or MeshExport(**options), out)

    def export_points(self, out: PathLike, settings: PointsExport | None = None, **options: Any) -> Path:
        """Writes a colored point cloud with normals (.ply); `options` are fields of `PointsExport`."""
        from lumifield.export import PointsExport

        return self._export(settings or PointsExport(**options), out)

    def export_web(self, out: PathLike, settings: WebExport | None = None, **options: Any) -> Path:
        """Writes one self-contained HTML page; `options` are fields of `WebExport`."""
        from lumifield.export import WebExport

        return self._export(settings or WebExport(**options), out)

    def export_cameras(self, out: PathLike, settings: CamerasExport | None = None, **options: Any) -> Path:
        """Writes cameras as transforms.json, a COLMAP model or frusta; `options` are fields of `CamerasExport`."""
        from lumifield.export import CamerasExport

        return self._export(settings or CamerasExport(**options), out)

    def export_volume(self, out: PathLike, settings: VolumeExport | None = None, **options: Any) -> Path:
        """Writes a grid of density and color (.vol, .raw, .npz); `options` are fields of `VolumeExport`."""
        from lumifield.export import VolumeExport

        return self._export(settings or VolumeExport(**options), out)

    def export_weights(self, out: PathLike, settings: WeightsExport | None = None, **options: Any) -> Path:
        """Writes a portable scene (.zip or a folder); `options` are fields of `WeightsExport`."""
        from lumifield.export import WeightsExport

        return self._export(settings or WeightsExport(**options), out)

    def _export(self, settings: Any, out: PathLike) -> Path:
        settings.write(self.loaded, Path(out))
        return Path(out)


def load_run(
    path: PathLike,
    *,
    checkpoint: Literal["best", "last"] = "best",
    device: str = "auto",
    chunk: int | None = None,
) -> Run:
    """Loads a run folder or a portable scene (.zip).

    `chunk` is the number of rays rendered at once. Raises `DataError` if `path` is not a run or is damaged.
    """
    run = open_run(path, checkpoint=checkpoint, device=device, chunk=chunk)
    _ = run.loaded
    return run


def open_run(
    path: PathLike, *, checkpoint: Literal["best", "last"] = "best", device: str = "auto", chunk: int | None = None
) -> Run:
    """A run that is loaded when first used."""
    if chunk is not None and chunk < 1:
        raise DataError("--chunk", "rays per chunk", str(chunk), "1 or more", "raise it")
    return Run(lambda: read_run(Path(path), checkpoint, device=select_device(device), chunk=chunk))


def as_path(path: PathLike | None) -> Path | None:
    """A `Path`, or None."""
    return None if path is None else Path(path)
