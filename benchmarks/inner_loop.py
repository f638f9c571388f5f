"""Inner-loop tasks per second of `simple-nerf` and of a plain port of nerf-meta, in one run on the same rays.

Run `python benchmarks/inner_loop.py --data SCENE --out benchmarks/results`; with `--vmap-batch-size 8`, tasks are
adapted in parallel. Each task is 32 steps of plain gradient descent on 128 rays of 128 samples. The port is float32 and
shares no code with the package: a copy of the network per task, the encoding, uniform samples and products of
transmittances as published.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import Source, read_scene
from lumifield.data.scene import Scene, sample_batch
from lumifield.meta import InnerLoop
from lumifield.meta.inner_loop import adapt_clones
from lumifield.methods import SimpleNerf
from lumifield.runtime.files import write_json
from lumifield.runtime.precision import bf16_is_faster
from lumifield.runtime.rng import Rng

RAYS, SAMPLES, NEAR, FAR, RATE, STEPS = 128, 128, 2.0, 6.0, 0.5, 32


class Plain(nn.Module):
    """The published network: 20 fractional octaves, five layers of 256, color and density."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.linspace(0, 8, 20))
        widths = [120, 256, 256, 256, 256, 256]
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(256, 4))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        phase = (points[..., None] * self.frequencies).flatten(-2)
        raw = self.layers(torch.cat([phase.sin(), phase.cos()], -1))
        return torch.sigmoid(raw[..., :3]), F.softplus(raw[..., 3])


def render_rays(network: Plain, origin: Tensor, direction: Tensor) -> Tensor:
    """Colors of rays over white."""
    t = torch.linspace(NEAR, FAR, SAMPLES).expand(len(origin), SAMPLES)
    t = t + torch.rand(t.shape) * (FAR - NEAR) / SAMPLES
    rgb, density = network(origin[:, None] + t[..., None] * direction[:, None])
    delta = torch.cat([t[:, 1:] - t[:, :-1], torch.full_like(t[:, :1], 1e-3)], -1)
    alpha = 1 - torch.exp(-density * delta)
    clear = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], -1), -1)[:, :-1]
    weights = alpha * clear
    return (weights[..., None] * rgb).sum(1) + 1 - weights.sum(-1, keepdim=True)


def plain_tasks(scene: Scene, count: int, steps: int) -> None:
    """The published inner loop, one task after the other."""
    network, pixels = Plain(), sample_batch(scene, 4096, Rng(torch.Generator().manual_seed(0)))
    for _ in range(count):
        own = copy.deepcopy(network)
        optimizer = torch.optim.SGD(own.parameters(), RATE)
        for _ in range(steps):
            rows = torch.randint(4096, (RAYS,))
            seen = render_rays(own, pixels.rays.origins[rows], pixels.rays.directions[rows])
            optimizer.zero_grad()
            F.mse_loss(seen, pixels.rgb[rows]).backward()
            optimizer.step()


def our_tasks(scene: Scene, count: int, steps: int, bf16: str) -> None:
    """The inner loop of the package, on several tasks at once if there are."""
    method = SimpleNerf(num_samples=SAMPLES, bf16=bf16).build(scene)
    loop = InnerLoop(steps=steps, batch_size=RAYS)
    adapt_clones(method, [scene] * count, loop, Rng(torch.Generator().manual_seed(0)), lambda _: None)


def measure_rates(scene: Scene, num_tasks: int, steps: int, rounds: int) -> dict[str, float]:
    """Tasks of 32 steps per second of each implementation: the median over interleaved rounds."""
    work = {
        "plain": lambda: plain_tasks(scene, num_tasks, steps),
        "float32": lambda: our_tasks(scene, num_tasks, steps, "off"),
        "bfloat16": lambda: our_tasks(scene, num_tasks, steps, "on"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: num_tasks * steps / STEPS / statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vmap-batch-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    scene = read_scene(Source(given.data), "train", max_images=8)
    rates = measure_rates(scene, given.vmap_batch_size, given.steps, given.rounds)
    found = {"tasks_per_second": rates, "speedup": {name: rate / rates["plain"] for name, rate in rates.items()}}
    found |= {
        "vmap_batch_size": given.vmap_batch_size,
        "machine": describe_machine(torch.device("cpu")),
        "commit": current_commit(),
    }
    found |= {"bf16_is_faster": bf16_is_faster(torch.device("cpu"))}
    if given.out is not None:
        write_json(given.out / "inner_loop.json", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
