"""`localize synthesize`: novel views of the static scene as a sequence."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lumifield import data
from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.localization import Progress, Synthesize
from lumifield.localization.lens.select import nearest_cameras, novel_views_file
from lumifield.localization.lens.sequence_files import Cambridge, Layout, SevenScenes, write_hloc
from lumifield.rendering.camera_paths import read_camera_path
from lumifield.rendering.render import scene_of_cameras, with_image_size
from lumifield.rendering.view import render_view
from lumifield.runtime import distributed
from lumifield.runtime.config import read_json
from lumifield.runtime.files import check_writable, write_json
from lumifield.runtime.rng import Rng

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

SEQUENCE_RECORD = "synthesis.json"
# Minimum near bound of a novel view relative to that of the nearest training image.
MIN_NEAR_FRACTION = 0.1


def write_sequence(settings: Synthesize, run: LoadedRun, progress: Progress) -> str:
    """Renders the views without an image, shared by all processes; the first writes the lists."""
    out = run.folder / "localize" / "sequence" if settings.out is None else settings.out
    check_writable(out, folder=True)
    layout = select_layout(settings, run, out)
    scene, nearest_images = novel_view_scene(settings, run, layout)
    embeddings = select_embeddings(settings, run, nearest_images)
    record = {"sequence": layout.folder, "fingerprint": hash_inputs(run, scene, embeddings)}
    check_record(out, record)
    missing = [index for index in range(len(scene)) if not (out / layout.name(index)).is_file()]
    rank, world = distributed.join()
    # No process writes before all have listed the missing images.
    distributed.gather(None)
    if rank == 0:
        write_json(out / SEQUENCE_RECORD, record)
    own = missing[rank::world]
    for done, index in enumerate(own, 1):
        embedding = None if embeddings is None else embeddings[index]
        view = render_view(
            run.method, scene, index, device=run.device, chunk=settings.chunk, appearance_embedding=embedding
        )
        layout.save(out, scene, index, view)
        progress(done, len(own))
    distributed.gather(None)
    if rank == 0:
        write_hloc(out, scene, layout)
        layout.write_lists(out, scene)
    reader_options = layout.reader_options(scene)
    return f"{len(scene)} views: {out}" + (f" (to be read with {reader_options})" if reader_options else "")


def select_layout(settings: Synthesize, run: LoadedRun, out: Path) -> Layout:
    """Cambridge format for Cambridge data, 7-Scenes for all other data."""
    if run.source is None:
        return SevenScenes()
    folder = run.source.data if settings.data is None else settings.data
    if (data.detect_format(folder) if run.source.format == "auto" else run.source.format) != "cambridge":
        return SevenScenes()
    if out.resolve() == folder.resolve():
        found, expected = "the folder of the images, whose model would be replaced", "another folder"
        raise DataError(out, "output", found, expected, "choose another --out, and copy its content afterwards")
    return Cambridge(folder / "reconstruction.nvm")


def novel_view_scene(settings: Synthesize, run: LoadedRun, layout: Layout) -> tuple[Scene, Tensor]:
    """The novel views without images, and the index of the nearest training image of each.

    If that image is at distance d, rays run from d before its near bound to d behind its far bound.
    """
    train = run.scenes["train"]
    cameras = read_camera_path(novel_views_file(run) if settings.views is None else settings.views, train)
    cameras = layout.with_supported_intrinsics(
        cameras if settings.size is None else with_image_size(cameras, settings.size)
    )
    scene = scene_of_cameras(run, cameras)
    away, row = map(torch.from_numpy, nearest_cameras(cameras.positions.numpy(), train.cameras.positions.numpy()))
    scene = replace(scene, names=tuple(layout.name(index) for index in range(len(scene))))
    if scene.ndc is None:
        near, far, away = train.near[row], train.far[row], away.float()
        scene = replace(scene, near=torch.maximum(near - away, MIN_NEAR_FRACTION * near), far=far + away)
    return scene, row


def select_embeddings(settings: Synthesize, run: LoadedRun, nearest_images: Tensor) -> Float[Tensor, "n e"] | None:
    """Appearance embedding of each view; None for methods without embeddings."""
    table = run.method.appearance_embeddings
    if table is None:
        if settings.appearance is not None:
            found, expected = repr(settings.appearance), "none, as the method has no embeddings"
            raise DataError("--appearance", "appearance", found, expected, "drop it")
        return None
    table, names = table.detach().cpu(), run.scenes["train"].names
    match settings.appearance:
        case None | "mixed":
            rng = Rng(torch.Generator().manual_seed(settings.seed))
            pair = rng.integers(2 * len(nearest_images), len(table)).view(-1, 2)
            return torch.lerp(table[pair[:, 0]], table[pair[:, 1]], rng.uniform(len(nearest_images), 1))
        case "nearest":
            return table[nearest_images]
        case "mean":
            return table.mean(0).expand(len(nearest_images), -1)
        case name if name in names:
            return table[names.index(name)].expand(len(nearest_images), -1)
        case name:
            expected = f"mixed, nearest, mean, or a training image like {names[0]}"
            raise DataError("--appearance", "appearance", repr(name), expected, "choose one of these")


def hash_inputs(run: LoadedRun, scene: Scene, embeddings: Tensor | None) -> str:
    """Hash of everything that the images depend on."""
    cameras = scene.cameras
    digest = hashlib.sha256()
    for part in (cameras.c2w, cameras.focal, cameras.size, embeddings, *run.method.state_dict().values()):
        if part is not None:
            digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_record(out: Path, record: dict[str, str]) -> None:
    """Raises `DataError` if the folder holds a sequence of other views, weights or appearances."""
    file = out / SEQUENCE_RECORD
    known = file.is_file() and read_json(file) == record
    if not known and (file.is_file() or (out / record["sequence"]).exists()):
        found, expected = "a sequence of other views, weights or appearances", "the same or none"
        raise DataError(out, "sequence", found, expected, "choose another --out, or remove it")
