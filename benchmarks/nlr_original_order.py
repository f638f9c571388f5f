"""One training step of `nlr` beside a plain port of the published order of work, on one run's parameters and rays.

Run `python benchmarks/nlr_original_order.py RUN`; it writes nlr_original_order.json and .md. A step shows one
image from all others and learns everything; both trace the same rays, compare as many silhouettes and look at as
many slopes. The port goes about it as the published code does: both fronts and the samples of every ray, soft
silhouettes of every ray, images encoded whole, and what hides what from a map of each image's surface points.
It shares the networks alone, and how colors lie between pixels. One thread, float32, all in turn; memory is the most
that a process of its own had, from its start to the end of a step.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data.scene import Batch, Scene
from lumifield.geometry.image_sampling import sample_bicubic
from lumifield.methods.base import RenderContext
from lumifield.methods.nlr.blending import normalize_weights
from lumifield.methods.nlr.method import NlrMethod
from lumifield.runs.run_folder import read_run
from lumifield.runtime.files import replacing, write_json
from lumifield.runtime.rng import Rng

THRESHOLD, MARCHES, SAMPLES, SECANTS, MASK_SAMPLES = 5e-5, 10, 100, 8, 40
SLOPES = 32768
PIECE = 100_000
"""Points that the samples of the published tracer ask for at once."""
HIDES = 1e-4
"""Squared distance between surface points from which on one hides the other."""
LATER = 10_000
"""A step by which silhouettes are sharp and nothing is carved any more."""
ROUNDS = 5


class Port:
    """The published order of work on the networks of a method; lengths are those of its ball."""

    def __init__(self, method: NlrMethod, scene: Scene) -> None:
        self.method, self.scene = method, scene
        self.maps = [self.surface_map(index) for index in range(len(scene))]

    def chords(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Origins and directions of an image's rays, and where they enter and leave the ball (1, -1: never)."""
        rays = self.scene.rays(index)
        origin, direction = (rays.origins - self.method.center) / self.method.radius, rays.directions
        middle = -(origin * direction).sum(-1)
        half = 1 - (origin**2).sum(-1) + middle**2
        met, half = half > 0, half.clamp_min(0).sqrt()
        near, far = (middle - half).clamp_min(0), middle + half
        return origin, direction, torch.where(met, near, 1.0), torch.where(met, far, -1.0)

    @torch.no_grad()
    def surface_map(self, index: int) -> Tensor:
        """The surface points of an image's pixels, (3, h, w)."""
        origin, direction, near, far = self.chords(index)
        t, _ = traced(self.method.sdf, origin, direction, near, far)
        width, height = self.scene.size(index)
        return (origin + t[:, None] * direction).T.reshape(3, height, width)

    def shown(self, index: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Colors of an image's pixels as the others show them, which rays meet the surface, and the losses."""
        method, sdf = self.method, self.method.sdf
        maps = {other: self.encoded(other) for other in range(len(self.scene)) if other != index}
        origin, direction, near, far = self.chords(index)
        t, hit = traced(sdf, origin, direction, near, far)
        points = torch.where(hit[:, None], first_order(sdf, origin, direction, t), 0.0)
        width, height = self.scene.size(index)
        self.maps[index] = points.detach().T.reshape(3, height, width)
        features, rgb = self.blended(points, direction, maps)
        rgb = torch.where(hit[:, None], rgb, 0.5)
        every = torch.arange(len(rgb))
        rgb = method.appearance_net.image(features * hit[:, None], rgb, every, (height, width), len(rgb))
        return rgb, hit, self.losses(index, rgb, hit, (origin, direction, near, far))

    def encoded(self, index: int) -> Tensor:
        """The features of a whole image."""
        encoder = self.method.appearance_net.encoder
        assert encoder is not None
        return encoder(self.method.sources.image(index)[None, :3])[0]

    def blended(self, points: Tensor, direction: Tensor, maps: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Features and colors of every pixel, from the images that have features."""
        net, weights, found, colors = self.method.appearance_net, [], [], []
        assert net.weights is not None
        for other, whole in maps.items():
            rgb, features, visible, cosine = self.reprojected(other, points, direction, whole)
            joined = torch.cat([rgb, features], -1) * visible[:, None]
            weights.append(net.weights(joined, direction, cosine) * visible)
            found.append(joined)
            colors.append(rgb)
        share = normalize_weights(torch.stack(weights))[..., None]
        features, rgb = ((share * torch.stack(values)).sum(0) for values in (found, colors))
        return features, rgb + 0.5 * (1 - share.sum(0))

    def reprojected(self, other: int, points: Tensor, direction: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        """What another image shows of points, whether it sees them, and the cosine between the rays."""
        scene = self.method.center + self.method.radius * points
        width, height = self.scene.size(other)
        (xy,), (depth,) = self.scene.cameras[[other]].project(scene)
        inside = (depth > 0) & (xy >= 0).all(-1) & (xy < torch.tensor([width, height])).all(-1)
        place = 2 * xy / torch.tensor([width, height]) - 1
        image = self.method.sources.image(other)
        solid = (looked_up(image[3:], place.detach(), "nearest") >= 0.5)[:, 0]
        open_way = (looked_up(self.maps[other], place.detach()) - points.detach()).square().sum(-1) < HIDES
        cosine = (F.normalize(scene - self.scene.cameras.positions[other], dim=-1) * direction).sum(-1)
        rgb = sample_bicubic(self.method.sources.unpack_image(self.method.sources.within, other), xy)
        return rgb, looked_up(features, place), inside & solid & open_way, cosine

    def losses(self, index: int, rgb: Tensor, hit: Tensor, chords: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Colors, the soft silhouettes of all pixels, and the slopes."""
        method, (origin, direction, near, far) = self.method, chords
        truth = method.sources.image(index).flatten(1).T
        solid = truth[:, 3] >= 0.5
        counts = (hit & solid)[:, None]
        with torch.no_grad():
            t = near[:, None] + torch.linspace(0, 1, MASK_SAMPLES) * (far - near)[:, None]
            values = method.sdf((origin[:, None] + t[..., None] * direction[:, None]).view(-1, 3)).view_as(t)
            t = t.gather(1, values.argmin(-1, keepdim=True))
        sharpness, met = method.sharpness(step_of(method)), near < far
        distance = method.sdf(origin + t * direction)
        mask = F.binary_cross_entropy_with_logits(-sharpness * distance, solid.float(), reduction="none")
        slope = method.sdf.gradient(2 * torch.rand(SLOPES, 3) - 1).norm(dim=-1)
        return {
            "rgb": ((rgb - truth[:, :3]).abs() * counts).sum() / 3 / counts.sum().clamp_min(1),
            "silhouette": 100 / sharpness * (mask * met).sum() / solid.sum().clamp_min(1),
            "eikonal": method.settings.eikonal_loss_weight * (slope - 1).square().mean(),
        }


def looked_up(image: Tensor, place: Tensor, mode: str = "bilinear") -> Tensor:
    """An image (c, h, w) at places in [-1, 1]."""
    found = F.grid_sample(image[None], place[None, None], mode, "border", align_corners=False)
    return found[0, :, 0].T


def first_order(sdf: Callable[[Tensor], Tensor], origin: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """The points of all rays, which move with the field to first order."""
    start = origin + t[:, None] * direction
    with torch.no_grad():
        slope = (sdf.gradient(start) * direction).sum(-1)  # type: ignore[attr-defined]
        slope = torch.where(slope < 0, slope.clamp(max=-1e-2), slope.clamp(min=1e-2))
    return start - direction * (sdf(start) / slope)[:, None]


@torch.no_grad()
def traced(
    sdf: Callable[[Tensor], Tensor], origin: Tensor, direction: Tensor, near: Tensor, far: Tensor
) -> tuple[Tensor, Tensor]:
    """The t of every ray, and whether it meets the surface: IDR's tracer."""
    met = near < far
    fronts, going, values = [near, far], [met, met], [torch.zeros_like(near), torch.zeros_like(near)]

    def ask(end: int, rows: Tensor) -> None:
        values[end][rows] = sdf((origin + fronts[end][:, None] * direction)[rows])

    ask(0, met)
    ask(1, met)
    for _ in range(MARCHES):
        for end, sign in enumerate((1.0, -1.0)):
            going[end] = going[end] & (values[end] > THRESHOLD)
            step = torch.where(going[end], sign * values[end], 0.0)
            fronts[end] = fronts[end] + step
            ask(end, going[end])
            passed = going[end] & (values[end] < 0)
            fronts[end] = torch.where(passed, fronts[end] - step / 2, fronts[end])
            ask(end, passed)
        going = [rows & (fronts[0] < fronts[1]) for rows in going]
    rest = going[0] & (values[0] > THRESHOLD)
    t, found = sampled(sdf, origin, direction, fronts, rest)
    return torch.where(rest, t, fronts[0]), torch.where(rest, found, met & (fronts[0] < fronts[1]))


def sampled(
    sdf: Callable[[Tensor], Tensor], origin: Tensor, direction: Tensor, fronts: list[Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Samples between the fronts of rays that are not decided (points are made for all), and false position."""
    near, far = fronts
    t = near[:, None] + torch.linspace(0, 1, SAMPLES) * (far - near)[:, None]
    points = origin[:, None] + t[..., None] * direction[:, None]
    values = torch.full_like(t, 1.0)
    asked = points[rows].view(-1, 3)
    pieces = [sdf(asked[first : first + PIECE]) for first in range(0, len(asked), PIECE)]
    if pieces:
        values[rows] = torch.cat(pieces).view(-1, SAMPLES)
    inside = values < 0
    found = inside.any(-1) & rows
    index = torch.where(found, inside.int().argmax(-1), values.argmin(-1))[:, None]
    before = (index - 1).clamp_min(0)
    low, high = t.gather(1, before)[:, 0], t.gather(1, index)[:, 0]
    above, below = values.gather(1, before)[:, 0], values.gather(1, index)[:, 0]
    return torch.where(found, false_position(sdf, origin, direction, (low, high, above, below), found), high), found


def false_position(
    sdf: Callable[[Tensor], Tensor], origin: Tensor, direction: Tensor, bracket: tuple[Tensor, ...], rows: Tensor
) -> Tensor:
    """Where brackets of the rows hold a zero."""
    low, high, above, below = (values[rows] for values in bracket)
    origin, direction = origin[rows], direction[rows]
    t = high
    for _ in range(SECANTS):
        gap = below - above
        t = torch.where(gap == 0, high, low - above * (high - low) / gap)
        value = sdf(origin + t[:, None] * direction)
        within = value <= 0
        low, above = torch.where(within, low, t), torch.where(within, above, value)
        high, below = torch.where(within, t, high), torch.where(within, value, below)
    return bracket[1].index_put((rows,), t)


def ours(method: NlrMethod, scene: Scene, index: int, side: int | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """A step of the method on all pixels of an image, or on a square of `side` in its middle."""
    width, height = scene.size(index)
    rays, size = scene.rays(index), (height, width)
    truth = method.sources.image(index).flatten(1).T
    if side is not None:
        every = torch.arange(height * width).view(size)
        rows = every[(height - side) // 2 :, (width - side) // 2 :][:side, :side].flatten()
        rays, truth, size = rays[rows], truth[rows], (side, side)
    rng, number, white = Rng(torch.Generator().manual_seed(0)), step_of(method), torch.ones(3)
    method.before_step(number, rng)
    rendered = method(rays, RenderContext(white, number, rng, patch_size=size))
    batch = Batch(rays, truth[:, :3], white.expand(len(rays), 3), truth[:, 3], patch_size=size)
    return rendered.rgb, method.losses(rendered, batch)


def step_of(method: NlrMethod) -> int:
    """A late step that learns everything and looks anew at what hides what."""
    every = math.lcm(method.settings.shape_update_interval, method.settings.visibility_update_interval)
    return LATER - LATER % every


def equalized(method: NlrMethod, scene: Scene) -> NlrMethod:
    """The method with as many rays and slopes as the port, in float32."""
    pixels = int(scene.cameras.size[0].prod())
    method.settings = replace(method.settings, num_mask_rays=pixels, num_eikonal_points=SLOPES, bf16="off")
    method.appearance_net.settings = method.settings
    return method.train()


def learned(method: NlrMethod, losses: dict[str, Tensor]) -> None:
    """The way back."""
    method.zero_grad()
    torch.stack(list(losses.values())).sum().backward()


def published_order(folder: Path) -> Callable[[], object]:
    """A step of the port."""
    method, scene = trained(folder)
    port = Port(equalized(method, scene), scene)
    return lambda: learned(method, port.shown(0)[2])


def same_rays(folder: Path) -> Callable[[], object]:
    """A step of ours on as many rays."""
    method, scene = trained(folder)
    equalized(method, scene)
    return lambda: learned(method, ours(method, scene, 0)[1])


def square(folder: Path) -> Callable[[], object]:
    """A step of ours as `train` takes it."""
    method, scene = trained(folder)
    return lambda: learned(method, ours(method, scene, 0, method.settings.patch_size)[1])


STEPS = {
    "published order": published_order,
    "nlr, the same rays": same_rays,
    "nlr, a patch as in `train`": square,
}


def trained(folder: Path) -> tuple[NlrMethod, Scene]:
    """The method of a run and the cameras of its images."""
    run = read_run(folder)
    assert isinstance(run.method, NlrMethod)
    return run.method.train(), run.scenes["train"].without_images()


def agreement(folder: Path) -> dict[str, float]:
    """The share of pixels within the silhouette and off the surface's rim that both orders show the same."""
    method, scene = trained(folder)
    equalized(method, scene)
    with torch.no_grad():
        rgb, hit, _ = Port(method, scene).shown(0)
    shown, _ = ours(method, scene, 0)
    counts = hit & (method.sources.image(0)[3].flatten() >= 0.5)
    difference = (rgb - shown.detach())[counts].abs().amax(-1)
    return {f"within_{level}": float((difference < level).float().mean()) for level in (0.001, 0.004, 0.02)}


def memory(folder: Path, name: str) -> float:
    """The most memory that a process has which takes a step [MiB]."""
    command = [sys.executable, __file__, str(folder), "--alone", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def alone(folder: Path, name: str) -> float:
    """This process's peak after one step [MiB]."""
    STEPS[name](folder)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(folder: Path) -> dict[str, Any]:
    """Seconds of each step, in turn, their memory, and how far both orders agree."""
    # First, while this process is small: a new one begins with the peak of the one that it came from.
    peaks = {name: memory(folder, name) for name in STEPS}
    todo = {name: made(folder) for name, made in STEPS.items()}
    chosen: dict[str, list[float]] = {name: [] for name in todo}
    for number in range(ROUNDS + 1):
        for name, step in todo.items():
            begun = time.perf_counter()
            step()
            if number:
                chosen[name].append(time.perf_counter() - begun)
    first = next(iter(chosen.values()))
    rows = [
        {
            "step": name,
            "seconds": float(np.median(seconds)),
            "ratio": float(np.median(np.array(first) / np.array(seconds))),
            "mib": peaks[name],
        }
        for name, seconds in chosen.items()
    ]
    return {"rows": rows, "pixels": agreement(folder)}


def table(found: dict[str, Any], about: str) -> str:
    """The result as Markdown."""
    lines = [
        f"| {row['step']} | {row['seconds']:.2f} | {row['ratio']:.1f} | {row['mib']:.0f} |" for row in found["rows"]
    ]
    same = ", ".join(f"{share:.1%} {name.replace('_', ' ')}" for name, share in found["pixels"].items())
    head = ["| step | seconds | speedup | memory [MiB] |", "| --- |" + " ---: |" * 3]
    return "\n".join([about, "", *head, *lines, "", f"Pixels of both orders: {same}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.alone:
        print(alone(options.run, options.alone))
        return
    found = measured(options.run)
    where = f"{describe_machine(torch.device('cpu'))}, 1 thread, commit {current_commit()}, run {options.run.name}"
    write_json(options.out / "nlr_original_order.json", {"machine": where, **found})
    with replacing(options.out / "nlr_original_order.md") as temporary:
        temporary.write_text(table(found, where), encoding="utf-8")
    print(table(found, where))


if __name__ == "__main__":
    main()
