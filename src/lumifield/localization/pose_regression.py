"""A pose regression network to measure the benefit of synthetic views.

After PoseNet (Kendall, Grimes and Cipolla 2015), with learned weights of position and orientation errors (Kendall and
Cipolla 2017) and the 6D rotation representation (Zhou et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import Scene
from lumifield.evaluation.evaluate import load_ground_truth
from lumifield.geometry.poses import normalize, pose_error
from lumifield.localization import Baseline, Progress, Regressor
from lumifield.rendering.camera_paths import format_camera_path
from lumifield.runs.run_folder import LoadedRun
from lumifield.runtime import distributed
from lumifield.runtime.config import to_plain
from lumifield.runtime.files import check_writable, replacing, write_json
from lumifield.runtime.rng import Rng

WIDTHS = (16, 32, 64, 96)
HIDDEN = 128
INITIAL_LOG_VARIANCES = (0.0, -3.0)
"""Initial log variances of position and orientation."""


@dataclass(frozen=True)
class Examples:
    """Normalized images of one size and their poses in world coordinates."""

    images: Float[Tensor, "n 3 h w"]
    c2w: Float[Tensor, "n 3 4"]

    @staticmethod
    def of(scene: Scene, size: tuple[int, int]) -> Examples:
        """The images of a scene, resized to (width, height)."""
        size_within = [
            F.interpolate(
                scene.ground_truth(index).permute(2, 0, 1)[None], size[::-1], mode="bilinear", antialias=True
            )[0]
            for index in range(len(scene))
        ]
        images = torch.stack(size_within)
        flat = images.flatten(1)
        off = images - flat.mean(1)[:, None, None, None]
        return Examples(
            off / flat.std(1).clamp_min(1e-3)[:, None, None, None], scene.frame.poses_to_world(scene.cameras.c2w)
        )


class PoseRegressor(nn.Module):
    """Strided convolutions and a hidden layer; poses are relative to the mean of the training poses."""

    def __init__(self, settings: Regressor, training: Examples) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.ReLU()]
        with torch.no_grad():
            places = nn.Sequential(*layers)(training.images[:1]).numel()
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(places, HIDDEN),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(HIDDEN, 9),
        )
        positions = training.c2w[:, :, 3]
        self.mean_position = positions.mean(0)
        self.reach = (positions - self.mean_position).square().sum(-1).mean().sqrt().clamp_min(1e-9)
        self.axes = training.c2w[:, :, :2].mean(0)
        self.weights = nn.Parameter(torch.tensor(INITIAL_LOG_VARIANCES))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 4"]:
        """Poses in world coordinates."""
        out = self.layers(images)
        positions = self.mean_position + self.reach * out[:, :3]
        return torch.cat([rotations(self.axes + out[:, 3:].view(-1, 3, 2)), positions[..., None]], -1)

    def loss(self, found: Float[Tensor, "n 3 4"], c2w: Float[Tensor, "n 3 4"]) -> Tensor:
        """Position error (in units of the camera spread) and orientation error with learned weights."""
        off = (found - c2w) / found.new_tensor([1, 1, 1, float(self.reach)])
        position, orientation = off[..., 3].norm(dim=-1).mean(), off[..., :3].flatten(1).norm(dim=-1).mean()
        errors = torch.stack([position, orientation])
        return (errors * torch.exp(-self.weights) + self.weights).sum()


def rotations(axes: Float[Tensor, "n 3 2"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices from pairs of axes by Gram-Schmidt (Zhou et al. 2019)."""
    x = normalize(axes[..., 0])
    y = axes[..., 1] - (axes[..., 1] * x).sum(-1, keepdim=True) * x
    y = normalize(y)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def train_regressor(settings: Regressor, real: Examples, synthetic: Examples | None, seed: int) -> PoseRegressor:
    """Trains a network; half of each batch is synthetic, if there are synthetic views."""
    rng = Rng(torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PoseRegressor(settings, real)
        optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
        for _ in range(settings.steps):
            images, c2w = batch(settings, real, synthetic, rng)
            optimizer.zero_grad()
            network.loss(network(images), c2w).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def batch(
    settings: Regressor, real: Examples, synthetic: Examples | None, rng: Rng
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 4"]]:
    """Random images with noise, and their poses."""
    shares = [(real, settings.batch_size)]
    if synthetic is not None:
        shares = [(real, settings.batch_size - settings.batch_size // 2), (synthetic, settings.batch_size // 2)]
    rows = [(kind, rng.integers(count, len(kind.c2w))) for kind, count in shares]
    images = torch.cat([kind.images[own] for kind, own in rows])
    noise = rng.normal(len(images), images[0].numel()).view(images.shape)
    return images + settings.noise_std * noise, torch.cat([kind.c2w[own] for kind, own in rows])


@torch.no_grad()
def errors(network: PoseRegressor, examples: Examples) -> Float[Tensor, "2 n"]:
    """Position and orientation error of each image [hundredths of a world unit, degrees]."""
    distance, degrees = pose_error(network(examples.images), examples.c2w)
    return torch.stack([100 * distance, degrees])


def measure(settings: Baseline, run: LoadedRun, progress: Progress) -> str:
    """Compares training without and with synthetic views and returns a summary."""
    training, evaluated = load_ground_truth(run, "train"), load_ground_truth(run, settings.split)
    synthetic = None if settings.synthetic is None else sequence(settings.synthetic)
    out = settings.out or run.folder / "localize" / "baseline"
    result = compare(settings, training, evaluated, synthetic, out, progress)
    summary = f"{len(evaluated)} images: median {result['without'][0]:.1f} cm, {result['without'][1]:.2f} degrees"
    if synthetic is not None:
        summary += (
            f"; with {len(synthetic)} synthetic views {result['with'][0]:.1f} cm, {result['with'][1]:.2f} degrees"
        )
    return f"{summary}\n{out / 'baseline.json'}"


def sequence(folder: Path) -> Scene:
    """Images of a synthetic sequence, or of the train split of another scene."""
    capture = data.open_capture(Source(folder))
    return capture.read("synthesis" if "synthesis" in capture.splits else "train")


def compare(
    settings: Baseline,
    training: Scene,
    evaluated: Scene,
    synthetic: Scene | None,
    out: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Median errors after training without and with synthetic views.

    Writes `baseline.json`, which is also returned, and `poses.json`: poses predicted by the first network trained on
    all images, an initialization for pose refinement. Processes share the networks.
    """
    check_writable(out, folder=True)
    size = size_within(training, settings.network.image_size)
    training_examples, queries = Examples.of(training, size), Examples.of(evaluated, size)
    kinds = [None] if synthetic is None else [None, Examples.of(synthetic, size)]
    rank, world = distributed.join()
    jobs = [(seed, kind) for seed in settings.seeds for kind in kinds]
    own = range(rank, len(jobs), world)
    entries: list[dict[str, Any]] = []
    for index in own:
        seed, kind = jobs[index]
        network = train_regressor(settings.network, training_examples, kind, seed)
        median = errors(network, queries).median(1).values.tolist()
        entries.append({"seed": seed, "synthetic": 0 if kind is None else len(kind.c2w), "median_error": median})
        if index == len(kinds) - 1:
            write_poses(out / "poses.json", network, queries, evaluated)
        if progress is not None:
            progress(len(entries), len(own))
    shares = distributed.gather(entries)
    rows = [shares[index % world][index // world] for index in range(len(jobs))]
    about = {"split": settings.split, "images": len(evaluated), "training": len(training)}
    result = about | {"network": to_plain(settings.network), "rows": rows} | relative_reduction(rows)
    if rank == 0:
        write_json(out / "baseline.json", result)
    return result


def relative_reduction(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of the median errors without and with synthetic views, and the relative reduction."""
    without = [row["median_error"] for row in rows if row["synthetic"] == 0]
    within = [row["median_error"] for row in rows if row["synthetic"] > 0]
    means = {"without": [mean(column) for column in zip(*without, strict=True)]}
    if not within:
        return means
    means["with"] = [mean(column) for column in zip(*within, strict=True)]
    return means | {"drop": [1 - after / before for before, after in zip(*means.values(), strict=True)]}


@torch.no_grad()
def write_poses(path: Path, network: PoseRegressor, queries: Examples, scene: Scene) -> None:
    """Writes the predicted poses of a scene as a camera path."""
    cameras = replace(scene.cameras, c2w=scene.frame.poses_to_scene(network(queries.images)))
    with replacing(path) as temporary:
        temporary.write_text(format_camera_path(cameras, scene.frame), encoding="utf-8")


def size_within(scene: Scene, side: int) -> tuple[int, int]:
    """Image size with the longer side at `side` [pixels]."""
    width, height = scene.size(0)
    scale = side / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)
