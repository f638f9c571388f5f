"""Where an image was taken from: its pose refined until the field, rendered from there, looks the same.

From coarse to fine, the field is rendered at the present pose with its depth, and the image is aligned with the
points that were met. As the two poses meet, errors of that depth lose their effect.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lumifield.data.image_files import decode_images, read_headers
from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.evaluation.evaluate import load_ground_truth
from lumifield.geometry.cameras import Cameras, pinhole_cameras
from lumifield.geometry.poses import normalize, pose_error, se3_retract
from lumifield.geometry.rays import image_rays
from lumifield.localization import Pose, Progress
from lumifield.localization.alignment import Level, Matter, aligned, alike
from lumifield.rendering.camera_paths import format_camera_path, read_camera_path
from lumifield.rendering.render import cameras_of_split, scene_of_cameras
from lumifield.rendering.view import RenderedView, render_view
from lumifield.runs.run_folder import LoadedRun, write_json
from lumifield.runtime import colormaps, distributed, image_io
from lumifield.runtime.files import check_writable

SIDES = (40, 80, 160, 320)
"""Longer side of the image and of what it is compared with, from coarse to fine [pixels]."""
ROUNDS = 3
"""Renderings of each size."""
STARTS = 5
"""How many training cameras are tried where nothing is known of the pose."""
SUCCESSES = ((3.0, 1.0), (5.0, 5.0))
"""Errors within which a pose counts as found [hundredths of the world's unit, degrees]."""
ERROR_RANGE = 0.25


@dataclass(frozen=True)
class Query:
    """An image whose pose is looked for, the `row`-th of its kind; where `known`, `lens` stands at the true one."""

    name: str
    lens: Cameras
    rgb: Float[Tensor, "h w 3"]
    row: int = 0
    known: bool = True


@dataclass(frozen=True)
class Found:
    """The pose of an image, where it was refined from, and how alike image and rendering are (at most 1)."""

    start: Float[Tensor, "3 4"]
    c2w: Float[Tensor, "3 4"]
    likeness: float
    seconds: float


def find(settings: Pose, run: LoadedRun, progress: Progress) -> str:
    """Refines the poses that are asked for, and says how well that went."""
    if settings.image is None:
        asked = of_split(run, settings.split, settings.view_index)
    else:
        asked = [of_file(run, settings.image, settings.focal)]
    if settings.initial_poses is not None:
        starts = from_file(run, settings.initial_poses, len(asked))
    elif settings.initial_error is not None:
        starts = [off_the_truth(run, each, *settings.initial_error, seed=settings.seed) for each in asked]
    else:
        starts = [lookalikes(run, each) for each in asked]
    out = settings.out or run.folder / "localize" / "pose"
    summary = localize(run, asked, starts, out, progress)
    if settings.image is not None:
        return str(out / "poses.json")
    before, after = (
        f"{summary[name][0]:.1f} cm, {summary[name][1]:.2f} degrees" for name in ("median_start_error", "median_error")
    )
    shares = ", ".join(f"{share:.0%} {name}" for name, share in summary["success"].items())
    return f"{len(asked)} images: median {after} (from {before}); {shares}\n{out / 'poses.json'}"


def of_split(run: LoadedRun, split: str, view: int | None = None) -> list[Query]:
    """The images of a split (or one of them) of the run's data; raises `DataError` where there are none."""
    lenses = cameras_of_split(run, split).cameras
    if view is not None and not 0 <= view < len(lenses):
        raise DataError(run.folder, "view", str(view), f"0 to {len(lenses) - 1}", f"choose a view of {split!r}")
    rows = list(range(len(lenses)))[slice(None) if view is None else slice(view, view + 1)]
    scene = load_ground_truth(run, split, slice(rows[0], rows[-1] + 1))
    return [Query(scene.names[place], lenses[[row]], scene.ground_truth(place), row) for place, row in enumerate(rows)]


def of_file(run: LoadedRun, image: Path, focal: float | None = None) -> Query:
    """An image from a file, by a pinhole of `focal` [pixels]; without it, as wide as most training images."""
    files = read_headers([image])
    width, height = files.sizes[0]
    pixels = decode_images(files, torch.tensor([[width, height]])).pixels[:, :3].float() / 255
    if focal is None:
        training = run.scenes["train"].cameras
        focal = width * float((training.focal[:, 0] / training.size[:, 0]).median())
    lens = pinhole_cameras(torch.eye(3, 4)[None], focal, (width, height))
    return Query(image.name, lens, pixels.view(height, width, 3), known=False)


def from_file(run: LoadedRun, path: Path, count: int) -> list[Float[Tensor, "1 3 4"]]:
    """A start for each of `count` images, from a camera path; raises `DataError` for another number of cameras."""
    poses = read_camera_path(path, run.scenes["train"]).c2w
    if len(poses) != count:
        raise DataError(path, "number of cameras", str(len(poses)), str(count), "give one for each image")
    return list(poses.split(1))


def off_the_truth(
    run: LoadedRun, asked: Query, degrees: float, hundredths: float, seed: int = 0
) -> Float[Tensor, "1 3 4"]:
    """The true pose turned by `degrees` and shifted by hundredths of the world's unit, in random directions.

    An image has its own directions, whichever others are asked for.
    """
    generator = torch.Generator().manual_seed(10_000 * seed + asked.row)
    turn, shift = normalize(torch.randn(2, 3, generator=generator))
    distance = 0.01 * hundredths / run.scenes["train"].frame.scale
    return se3_retract(asked.lens.c2w[0], torch.cat([math.radians(degrees) * turn, distance * shift]))[None]


def lookalikes(run: LoadedRun, asked: Query) -> Float[Tensor, "g 3 4"]:
    """The poses of the training cameras from which the field looks most like the image."""
    level = Level.of(asked.lens, asked.rgb, scale_to(asked, SIDES[0]))
    seen = level.rgb.flatten(1).T
    poses = run.scenes["train"].cameras.c2w
    likeness = [alike(seen, look(run, level.camera, c2w)[1].rgb.view(-1, 3)) for c2w in poses]
    return poses[torch.tensor(likeness).argsort(descending=True)[:STARTS]]


def localize(
    run: LoadedRun,
    asked: list[Query],
    starts: list[Float[Tensor, "g 3 4"]],
    out: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Refines the pose of each image, from the best of its starts, and writes what it finds to the folder `out`.

    `poses.json` is a camera path that says how each image went; `summary.json` is returned, too. Images show
    the image, the renderings at its start and at its pose, and the error of the latter. Several processes share
    the images, and the first writes the files of all.
    """
    check_writable(out, folder=True)
    rank, world = distributed.join()
    own = range(rank, len(asked), world)
    entries = []
    for done, index in enumerate(own, 1):
        found = refined(run, asked[index], starts[index])
        image_io.write_png(out / f"{index:03d}.png", panels(run, asked[index], found))
        entries.append(told(run, asked[index], found))
        if progress is not None:
            progress(done, len(own))
    shares = distributed.gather(entries)
    whole = [shares[index % world][index // world] for index in range(len(asked))]
    summary = summed_up(whole)
    if rank == 0:
        write_json(out / "poses.json", whole)
        write_json(out / "summary.json", summary)
    return summary


def refined(run: LoadedRun, asked: Query, starts: Float[Tensor, "g 3 4"]) -> Found:
    """The pose that the best of the starts leads to; the coarsest size decides which that is."""
    begun = time.perf_counter()
    coarse, *finer = (Level.of(asked.lens, asked.rgb, scale_to(asked, side)) for side in SIDES)
    tried = [settled(run, coarse, start) for start in starts]
    best = max(range(len(tried)), key=lambda index: tried[index][1])
    c2w, likeness = tried[best]
    for level in finer:
        c2w, likeness = settled(run, level, c2w)
    return Found(starts[best], c2w, likeness, time.perf_counter() - begun)


def settled(run: LoadedRun, level: Level, c2w: Float[Tensor, "3 4"]) -> tuple[Float[Tensor, "3 4"], float]:
    """The pose after some rounds of rendering and alignment at one size, and how alike both look."""
    likeness = 0.0
    for _ in range(ROUNDS):
        matter = met(*look(run, level.camera, c2w))
        sight = aligned(matter, level, c2w)
        c2w, likeness = sight.c2w, alike(sight.rgb[sight.within], matter.rgb[sight.within])
    return c2w, likeness


def look(run: LoadedRun, camera: Cameras, c2w: Float[Tensor, "3 4"]) -> tuple[Scene, RenderedView]:
    """What the field looks like through a camera at another pose, and the scene of that camera alone."""
    scene = scene_of_cameras(run, replace(camera, c2w=c2w[None]))
    return scene, render_view(run.method, scene, 0, device=run.device, chunk=run.chunk)


def met(scene: Scene, view: RenderedView) -> Matter:
    """The matter that is seen in a view."""
    rays = image_rays(scene.cameras, 0, scene.near, scene.far)
    seen = view.hit_mask.flatten() & view.depth.flatten().isfinite()
    distance = view.depth.flatten() / scene.frame.scale
    points = rays.origins + distance[:, None] * rays.directions
    return Matter(points[seen], view.rgb.view(-1, 3)[seen])


def scale_to(asked: Query, side: int) -> float:
    """What the sides of an image are multiplied by to make the longer one at most `side`, none less than 2."""
    shorter, longer = asked.lens.size[0].sort().values.tolist()
    return max(min(side / longer, 1.0), 2 / shorter)


def panels(run: LoadedRun, asked: Query, found: Found) -> UInt8[Tensor, "h w 3"]:
    """Side by side: the image, the renderings at its start and at its pose, and the error of the latter."""
    level = Level.of(asked.lens, asked.rgb, scale_to(asked, SIDES[-1]))
    photograph = level.rgb.permute(1, 2, 0)
    before, after = (look(run, level.camera, c2w)[1].rgb for c2w in (found.start, found.c2w))
    error = colormaps.apply_colormap((after - photograph).abs().mean(-1), 0.0, ERROR_RANGE, colormaps.HEAT)
    return image_io.to_uint8(torch.cat([photograph, before, after, error], 1))


def told(run: LoadedRun, asked: Query, found: Found) -> dict[str, Any]:
    """An image's camera in the world, as a camera path holds it, and how it was found."""
    frame = run.scenes["train"].frame
    camera = json.loads(format_camera_path(replace(asked.lens, c2w=found.c2w[None]), frame))[0]
    entry = {"name": asked.name} | camera | {"likeness": found.likeness, "seconds": found.seconds}
    if asked.known:
        for name, c2w in (("start_error", found.start), ("error", found.c2w)):
            distance, degrees = pose_error(c2w, asked.lens.c2w[0])
            entry[name] = [100 * float(distance) * frame.scale, float(degrees)]
    return entry


def summed_up(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the images whose pose is known, and the share of them that was found.

    Errors are in hundredths of the world's unit (centimeters where that is the meter) and degrees.
    """
    summary: dict[str, Any] = {"photographs": len(entries), "seconds": sum(entry["seconds"] for entry in entries)}
    known = [entry for entry in entries if "error" in entry]
    if not known:
        return summary
    for name in ("start_error", "error"):
        summary[f"median_{name}"] = [median(entry[name][kind] for entry in known) for kind in (0, 1)]
    success = {
        f"within {far:g} cm and {wide:g} degrees": [e["error"][0] <= far and e["error"][1] <= wide for e in known]
        for far, wide in SUCCESSES
    }
    return summary | {"success": {name: sum(each) / len(each) for name, each in success.items()}}
