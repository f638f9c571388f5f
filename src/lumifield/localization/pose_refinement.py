"""Camera pose of an image by iterated rendering and direct alignment, from coarse to fine.

The field is rendered with depth at the current pose, and the image is aligned with the rendered surface points. As both
poses converge, errors of the depth cancel.
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
from lumifield.localization.alignment import ImageLevel, SurfacePoints, align_pose, correlation
from lumifield.rendering.camera_paths import format_camera_path, read_camera_path
from lumifield.rendering.render import cameras_of_split, scene_of_cameras
from lumifield.rendering.view import RenderedView, render_view
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime import colormaps, distributed, image_io
from lumifield.runtime.files import check_writable, write_json

LEVEL_SIZES = (40, 80, 160, 320)
"""Longer side of the image per pyramid level, from coarse to fine [pixels]."""
ROUNDS = 3
"""Renderings per level."""
NUM_INITIAL_POSES = 5
"""Number of training cameras tried as initial poses."""
SUCCESS_THRESHOLDS = ((3.0, 1.0), (5.0, 5.0))
"""Thresholds of a localized image [hundredths of a world unit, degrees]."""
ERROR_RANGE = 0.25


@dataclass(frozen=True)
class Query:
    """An image to localize, with index `row`; if `known`, `lens` has the ground truth pose."""

    name: str
    lens: Cameras
    rgb: Float[Tensor, "h w 3"]
    row: int = 0
    known: bool = True


@dataclass(frozen=True)
class PoseEstimate:
    """Estimated pose, its initialization, and the similarity of image and rendering (at most 1)."""

    start: Float[Tensor, "3 4"]
    c2w: Float[Tensor, "3 4"]
    similarity: float
    seconds: float


def refine_and_write(settings: Pose, run: LoadedRun, progress: Progress) -> str:
    """Refines the requested poses and returns a summary."""
    if settings.image is None:
        asked = queries_of_split(run, settings.split, settings.view_index)
    else:
        asked = [query_from_file(run, settings.image, settings.focal)]
    if settings.initial_poses is not None:
        starts = read_initial_poses(run, settings.initial_poses, len(asked))
    elif settings.initial_error is not None:
        starts = [perturb_pose(run, each, *settings.initial_error, seed=settings.seed) for each in asked]
    else:
        starts = [similar_poses(run, each) for each in asked]
    out = settings.out or run.folder / "localize" / "pose"
    summary = localize(run, asked, starts, out, progress)
    if settings.image is not None:
        return str(out / "poses.json")
    before, after = (
        f"{summary[name][0]:.1f} cm, {summary[name][1]:.2f} degrees"
        for name in ("median_initial_error", "median_error")
    )
    shares = ", ".join(f"{share:.0%} {name}" for name, share in summary["success"].items())
    return f"{len(asked)} images: median {after} (from {before}); {shares}\n{out / 'poses.json'}"


def queries_of_split(run: LoadedRun, split: str, view: int | None = None) -> list[Query]:
    """Images of a split, or one of them; raises `DataError` if there are none."""
    lenses = cameras_of_split(run, split).cameras
    if view is not None and not 0 <= view < len(lenses):
        raise DataError(run.folder, "view", str(view), f"0 to {len(lenses) - 1}", f"choose a view of {split!r}")
    rows = list(range(len(lenses)))[slice(None) if view is None else slice(view, view + 1)]
    scene = load_ground_truth(run, split, slice(rows[0], rows[-1] + 1))
    return [Query(scene.names[place], lenses[[row]], scene.ground_truth(place), row) for place, row in enumerate(rows)]


def query_from_file(run: LoadedRun, image: Path, focal: float | None = None) -> Query:
    """An image from a file with a pinhole camera of `focal` [pixels] (field of view of most training images)."""
    files = read_headers([image])
    width, height = files.sizes[0]
    pixels = decode_images(files, torch.tensor([[width, height]])).pixels[:, :3].float() / 255
    if focal is None:
        training = run.scenes["train"].cameras
        focal = width * float((training.focal[:, 0] / training.size[:, 0]).median())
    lens = pinhole_cameras(torch.eye(3, 4)[None], focal, (width, height))
    return Query(image.name, lens, pixels.view(height, width, 3), known=False)


def read_initial_poses(run: LoadedRun, path: Path, count: int) -> list[Float[Tensor, "1 3 4"]]:
    """Initial poses of `count` images from a camera path; raises `DataError` for another number of cameras."""
    poses = read_camera_path(path, run.scenes["train"]).c2w
    if len(poses) != count:
        raise DataError(path, "number of cameras", str(len(poses)), str(count), "give one for each image")
    return list(poses.split(1))


def perturb_pose(
    run: LoadedRun, asked: Query, degrees: float, hundredths: float, seed: int = 0
) -> Float[Tensor, "1 3 4"]:
    """The ground truth pose, rotated by `degrees` and translated by hundredths of a world unit in random directions.

    The directions of an image do not depend on the other images.
    """
    generator = torch.Generator().manual_seed(10_000 * seed + asked.row)
    turn, shift = normalize(torch.randn(2, 3, generator=generator))
    distance = 0.01 * hundredths / run.scenes["train"].frame.scale
    return se3_retract(asked.lens.c2w[0], torch.cat([math.radians(degrees) * turn, distance * shift]))[None]


def similar_poses(run: LoadedRun, asked: Query) -> Float[Tensor, "g 3 4"]:
    """Poses of the training cameras whose renderings are most similar to the image."""
    level = ImageLevel.of(asked.lens, asked.rgb, level_scale(asked, LEVEL_SIZES[0]))
    seen = level.rgb.flatten(1).T
    poses = run.scenes["train"].cameras.c2w
    similarity = [correlation(seen, render_at_pose(run, level.camera, c2w)[1].rgb.view(-1, 3)) for c2w in poses]
    return poses[torch.tensor(similarity).argsort(descending=True)[:NUM_INITIAL_POSES]]


def localize(
    run: LoadedRun,
    asked: list[Query],
    starts: list[Float[Tensor, "g 3 4"]],
    out: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Refines the pose of each image from the best of its initial poses, and writes the results to `out`.

    `poses.json` is a camera path with errors per image; `summary.json` is also returned. Images show the image, the
    renderings at the initial and refined poses, and the error. Processes share the images; the first writes the files.
    """
    check_writable(out, folder=True)
    rank, world = distributed.join()
    own = range(rank, len(asked), world)
    entries = []
    for done, index in enumerate(own, 1):
        found = refine_pose(run, asked[index], starts[index])
        image_io.write_png(out / f"{index:03d}.png", compose_comparison(run, asked[index], found))
        entries.append(format_estimate(run, asked[index], found))
        if progress is not None:
            progress(done, len(own))
    shares = distributed.gather(entries)
    whole = [shares[index % world][index // world] for index in range(len(asked))]
    summary = summarize_errors(whole)
    if rank == 0:
        write_json(out / "poses.json", whole)
        write_json(out / "summary.json", summary)
    return summary


def refine_pose(run: LoadedRun, asked: Query, starts: Float[Tensor, "g 3 4"]) -> PoseEstimate:
    """The refined pose from the best initial pose, chosen at the coarsest level."""
    start_time = time.perf_counter()
    coarse, *finer = (ImageLevel.of(asked.lens, asked.rgb, level_scale(asked, side)) for side in LEVEL_SIZES)
    candidates = [align_at_level(run, coarse, start) for start in starts]
    best = max(range(len(candidates)), key=lambda index: candidates[index][1])
    c2w, similarity = candidates[best]
    for level in finer:
        c2w, similarity = align_at_level(run, level, c2w)
    return PoseEstimate(starts[best], c2w, similarity, time.perf_counter() - start_time)


def align_at_level(run: LoadedRun, level: ImageLevel, c2w: Float[Tensor, "3 4"]) -> tuple[Float[Tensor, "3 4"], float]:
    """Pose after several rounds of rendering and alignment at one level, and the final similarity."""
    similarity = 0.0
    for _ in range(ROUNDS):
        surface = visible_points(*render_at_pose(run, level.camera, c2w))
        projection = align_pose(surface, level, c2w)
        c2w, similarity = projection.c2w, correlation(projection.rgb[projection.within], surface.rgb[projection.within])
    return c2w, similarity


def render_at_pose(run: LoadedRun, camera: Cameras, c2w: Float[Tensor, "3 4"]) -> tuple[Scene, RenderedView]:
    """Rendering at another pose, and the scene of that camera alone."""
    scene = scene_of_cameras(run, replace(camera, c2w=c2w[None]))
    return scene, render_view(run.method, scene, 0, device=run.device, chunk=run.chunk)


def visible_points(scene: Scene, view: RenderedView) -> SurfacePoints:
    """Surface points visible in a view."""
    rays = image_rays(scene.cameras, 0, scene.near, scene.far)
    seen = view.hit_mask.flatten() & view.depth.flatten().isfinite()
    distance = view.depth.flatten() / scene.frame.scale
    points = rays.origins + distance[:, None] * rays.directions
    return SurfacePoints(points[seen], view.rgb.view(-1, 3)[seen])


def level_scale(asked: Query, side: int) -> float:
    """Scale factor that makes the longer side at most `side`, with at least 2 pixels per side."""
    shorter, longer = asked.lens.size[0].sort().values.tolist()
    return max(min(side / longer, 1.0), 2 / shorter)


def compose_comparison(run: LoadedRun, asked: Query, found: PoseEstimate) -> UInt8[Tensor, "h w 3"]:
    """Image, renderings at the initial and refined poses, and error, side by side."""
    level = ImageLevel.of(asked.lens, asked.rgb, level_scale(asked, LEVEL_SIZES[-1]))
    image = level.rgb.permute(1, 2, 0)
    before, after = (render_at_pose(run, level.camera, c2w)[1].rgb for c2w in (found.start, found.c2w))
    error = colormaps.apply_colormap((after - image).abs().mean(-1), 0.0, ERROR_RANGE, colormaps.HEAT)
    return image_io.to_uint8(torch.cat([image, before, after, error], 1))


def format_estimate(run: LoadedRun, asked: Query, found: PoseEstimate) -> dict[str, Any]:
    """Camera path entry of an image with its errors."""
    frame = run.scenes["train"].frame
    camera = json.loads(format_camera_path(replace(asked.lens, c2w=found.c2w[None]), frame))[0]
    entry = {"name": asked.name} | camera | {"similarity": found.similarity, "seconds": found.seconds}
    if asked.known:
        for name, c2w in (("initial_error", found.start), ("error", found.c2w)):
            distance, degrees = pose_error(c2w, asked.lens.c2w[0])
            entry[name] = [100 * float(distance) * frame.scale, float(degrees)]
    return entry


def summarize_errors(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Median errors over images with known poses, and the fraction localized.

    Errors are in hundredths of a world unit (centimeters if the unit is a meter) and degrees.
    """
    summary: dict[str, Any] = {"images": len(entries), "seconds": sum(entry["seconds"] for entry in entries)}
    known = [entry for entry in entries if "error" in entry]
    if not known:
        return summary
    for name in ("initial_error", "error"):
        summary[f"median_{name}"] = [median(entry[name][kind] for entry in known) for kind in (0, 1)]
    success = {
        f"within {far:g} cm and {wide:g} degrees": [e["error"][0] <= far and e["error"][1] <= wide for e in known]
        for far, wide in SUCCESS_THRESHOLDS
    }
    return summary | {"success": {name: sum(each) / len(each) for name, each in success.items()}}
