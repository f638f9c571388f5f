"""One training step of `nlr` against a plain port of the published order of operations, with equal parameters and rays.

Run `python benchmarks/nlr_original_order.py RUN`; it writes nlr_original_order.json and .md. A step renders one image
from all others and trains every part; both implementations trace the same rays and evaluate as many silhouette and
eikonal samples. The port follows the published code: both fronts and the samples of every ray, soft silhouettes of
every ray, features of whole images, and visibility from a map of the surface points of each image. It shares only
the networks and the interpolation of colors. One thread, float32, interleaved; memory is the peak of a process of
one step.
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
from lumifield.methods.base import TrainingContext
from lumifield.methods.nlr.blending import normalize_weights
from lumifield.methods.nlr.method import NlrMethod
from lumifield.runs.run_folder import read_run, write_json
from lumifield.runtime.files import replacing
from lumifield.runtime.rng import Rng

THRESHOLD, MARCHES, SAMPLES, SECANTS, MASK_SAMPLES = 5e-5, 10, 100, 8, 40
SLOPES = 32768
PIECE = 100_000
"""Number of SDF evaluations of the published tracer per call."""
HIDES = 1e-4
"""Squared distance between surface points beyond which one occludes the other."""
LATER = 10_000
"""A step by which silhouettes are sharp and mask-only steps have ended."""
ROUNDS = 5


class PublishedOrder:
    """The published order of operations with the networks of a method; lengths in units of its bounding sphere."""

    def __init__(self, method: NlrMethod, scene: Scene) -> None:
        self.method, self.scene = method, scene
        self.maps = [self.surface_map(index) for index in range(len(scene))]

    def chords(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Origins and directions of the rays of an image, and their t interval in the sphere (1, -1: empty)."""
        rays = self.scene.rays(index)
        origin, direction = (rays.origins - self.method.center) / self.method.radius, rays.directions
        middle = -(origin * direction).sum(-1)
        half = 1 - (origin**2).sum(-1) + middle**2
        met, half = half > 0, half.clamp_min(0).sqrt()
        near, far = (middle - half).clamp_min(0), middle + half
        return origin, direction, torch.where(met, near, 1.0), torch.where(met, far, -1.0)

    @torch.no_grad()
    def surface_map(self, index: int) -> Tensor:
        """Surface points of the pixels of an image, (3, h, w)."""
        origin, direction, near, far = self.chords(index)
        t, _ = trace_rays(self.method.sdf, origin, direction, near, far)
        width, height = self.scene.size(index)
        return (origin + t[:, None] * direction).T.reshape(3, height, width)

    def render_image(self, index: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Colors of the pixels of an image blended from the other images, the hit mask, and the losses."""
        method, sdf = self.method, self.method.sdf
        maps = {other: self.encode_image(other) for other in range(len(self.scene)) if other != index}
        origin, direction, near, far = self.chords(index)
        t, hit = trace_rays(sdf, origin, direction, near, far)
        points = torch.where(hit[:, None], first_order_points(sdf, origin, direction, t), 0.0)
        width, height = self.scene.size(index)
        self.maps[index] = points.detach().T.reshape(3, height, width)
        features, rgb = self.blend(points, direction, maps)
        rgb = torch.where(hit[:, None], rgb, 0.5)
        every = torch.arange(len(rgb))
        rgb = method.appearance_net.image(features * hit[:, None], rgb, every, (height, width), len(rgb))
        return rgb, hit, self.losses(index, rgb, hit, (origin, direction, near, far))

    def encode_image(self, index: int) -> Tensor:
        """Features of a whole image."""
        encoder = self.method.appearance_net.encoder
        assert encoder is not None
        return encoder(self.method.sources.image(index)[None, :3])[0]

    def blend(self, points: Tensor, direction: Tensor, maps: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Blended features and colors of every pixel, from the images that have features."""
        net, weights, found, colors = self.method.appearance_net, [], [], []
        assert net.weights is not None
        for other, whole in maps.items():
            rgb, features, visible, cosine = self.sample_source_view(other, points, direction, whole)
            joined = torch.cat([rgb, features], -1) * visible[:, None]
            weights.append(net.weights(joined, direction, cosine) * visible)
            found.append(joined)
            colors.append(rgb)
        share = normalize_weights(torch.stack(weights))[..., None]
        features, rgb = ((share * torch.stack(values)).sum(0) for values in (found, colors))
        return features, rgb + 0.5 * (1 - share.sum(0))

    def sample_source_view(self, other: int, points: Tensor, direction: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        """Features of points in another image, their visibility there, and the cosine between the rays."""
        scene = self.method.center + self.method.radius * points
        width, height = self.scene.size(other)
        (xy,), (depth,) = self.scene.cameras[[other]].project(scene)
        inside = (depth > 0) & (xy >= 0).all(-1) & (xy < torch.tensor([width, height])).all(-1)
        place = 2 * xy / torch.tensor([width, height]) - 1
        image = self.method.sources.image(other)
        solid = (sample_image(image[3:], place.detach(), "nearest") >= 0.5)[:, 0]
        open_way = (sample_image(self.maps[other], place.detach()) - points.detach()).square().sum(-1) < HIDES
        cosine = (F.normalize(scene - self.scene.cameras.positions[other], dim=-1) * direction).sum(-1)
        rgb = sample_bicubic(self.method.sources.unpack_image(self.method.sources.within, other), xy)
        return rgb, sample_image(features, place), inside & solid & open_way, cosine

    def losses(self, index: int, rgb: Tensor, hit: Tensor, chords: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Color, soft silhouette and eikonal losses of all pixels."""
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


def sample_image(image: Tensor, place: Tensor, mode: str = "bilinear") -> Tensor:
    """Samples an image (c, h, w) at coordinates in [-1, 1]."""
    found = F.grid_sample(image[None], place[None, None], mode, "border", align_corners=False)
    return found[0, :, 0].T


def first_order_points(sdf: Callable[[Tensor], Tensor], origin: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """Differentiable surface points to first order (IDR, eq. 3)."""
    start = origin + t[:, None] * direction
    with torch.no_grad():
        slope = (sdf.gradient(start) * direction).sum(-1)  # type: ignore[attr-defined]
        slope = torch.where(slope < 0, slope.clamp(max=-1e-2), slope.clamp(min=1e-2))
    return start - direction * (sdf(start) / slope)[:, None]


@torch.no_grad()
def trace_rays(
    sdf: Callable[[Tensor], Tensor], origin: Tensor, direction: Tensor, near: Tensor, far: Tensor
) -> tuple[Tensor, Tensor]:
    """t and hit mask of every ray, by the tracer of IDR."""
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
    t, found = find_sign_change(sdf, origin, direction, fronts, rest)
    return torch.where(rest, t, fronts[0]), torch.where(rest, found, met & (fronts[0] < fronts[1]))


def find_sign_change(
    sdf: Callable[[Tensor], Tensor], origin: Tensor, direction: Tensor, fronts: list[Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Uniform samples between the two fronts of unconverged rays (evaluated for all), refined by false position."""
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
    """Zero crossing inside each bracket."""
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


def our_step(method: NlrMethod, scene: Scene, index: int, side: int | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of the method on all pixels of an image, or on a central patch of `side` pixels."""
    width, height = scene.size(index)
    rays, size = scene.rays(index), (height, width)
    truth = method.sources.image(index).flatten(1).T
    if side is not None:
        every = torch.arange(height * width).view(size)
        rows = every[(height - side) // 2 :, (width - side) // 2 :][:side, :side].flatten()
        rays, truth, size = rays[rows], truth[rows], (side, side)
    rng, number, white = Rng(torch.Generator().manual_seed(0)), step_of(method), torch.ones(3)
    method.before_step(number, rng)
    rendered = method(rays, TrainingContext(white, number, rng, patch_size=size))
    batch = Batch(rays, truth[:, :3], white.expand(len(rays), 3), truth[:, 3], patch_size=size)
    return rendered.rgb, method.losses(rendered, batch)


def step_of(method: NlrMethod) -> int:
    """A late step in which every part is trained and the visibility is refreshed."""
    every = math.lcm(method.settings.shape_update_interval, method.settings.visibility_update_interval)
    return LATER - LATER % every


def use_published_settings(method: NlrMethod, scene: Scene) -> NlrMethod:
    """The method with the number of rays and eikonal samples of the port, in float32."""
    pixels = int(scene.cameras.size[0].prod())
    method.settings = replace(method.settings, num_mask_rays=pixels, num_eikonal_points=SLOPES, bf16="off")
    method.appearance_net.settings = method.settings
    return method.train()


def backpropagate(method: NlrMethod, losses: dict[str, Tensor]) -> None:
    """Backpropagates the sum of the losses."""
    method.zero_grad()
    torch.stack(list(losses.values())).sum().backward()


def published_order(folder: Path) -> Callable[[], object]:
    """One step of the port."""
    method, scene = load_trained(folder)
    port = PublishedOrder(use_published_settings(method, scene), scene)
    return lambda: backpropagate(method, port.render_image(0)[2])


def same_rays(folder: Path) -> Callable[[], object]:
    """One step of `nlr` on the same rays."""
    method, scene = load_trained(folder)
    use_published_settings(method, scene)
    return lambda: backpropagate(method, our_step(method, scene, 0)[1])


def patch_step(folder: Path) -> Callable[[], object]:
    """One step of `nlr` as in `train`."""
    method, scene = load_trained(folder)
    return lambda: backpropagate(method, our_step(method, scene, 0, method.settings.patch_size)[1])


STEPS = {
    "published order": published_order,
    "nlr, the same rays": same_rays,
    "nlr, a patch as in `train`": patch_step,
}


def load_trained(folder: Path) -> tuple[NlrMethod, Scene]:
    """Method and training cameras of a run."""
    run = read_run(folder)
    assert isinstance(run.method, NlrMethod)
    return run.method.train(), run.scenes["train"].without_images()


def compare_pixels(folder: Path) -> dict[str, float]:
    """Share of equal pixels of both orders, inside the silhouette and away from its edge."""
    method, scene = load_trained(folder)
    use_published_settings(method, scene)
    with torch.no_grad():
        rgb, hit, _ = PublishedOrder(method, scene).render_image(0)
    shown, _ = our_step(method, scene, 0)
    counts = hit & (method.sources.image(0)[3].flatten() >= 0.5)
    difference = (rgb - shown.detach())[counts].abs().amax(-1)
    return {f"within_{level}": float((difference < level).float().mean()) for level in (0.001, 0.004, 0.02)}


def measure_memory(folder: Path, name: str) -> float:
    """Peak memory of a new process that takes one step [MiB]."""
    command = [sys.executable, __file__, str(folder), "--alone", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def peak_memory_of_step(folder: Path, name: str) -> float:
    """Peak memory of this process after one step [MiB]."""
    STEPS[name](folder)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_steps(folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of each step, interleaved, and the agreement of both orders."""
    # First, while this process is small: a new one begins with the peak of the one that it came from.
    peaks = {name: measure_memory(folder, name) for name in STEPS}
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
    return {"rows": rows, "pixels": compare_pixels(folder)}


def format_table(found: dict[str, Any], about: str) -> str:
    """Markdown of the result."""
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
        print(peak_memory_of_step(options.run, options.alone))
        return
    found = measure_steps(options.run)
    where = f"{describe_machine(torch.device('cpu'))}, 1 thread, commit {current_commit()}, run {options.run.name}"
    write_json(options.out / "nlr_original_order.json", {"machine": where, **found})
    with replacing(options.out / "nlr_original_order.md") as temporary:
        temporary.write_text(format_table(found, where), encoding="utf-8")
    print(format_table(found, where))


if __name__ == "__main__":
    main()
