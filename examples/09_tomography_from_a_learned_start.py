"""A slice of a body from few of its projections, from a start that Reptile learns (Tancik et al. 2021, section 4.2).

Bodies are ellipses at random. A task is one of them: its projections along some directions, by which a network learns
its density.
"""

import math
from itertools import pairwise

import torch
import tyro
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lumifield.meta.outer_loop import Parameters, gradient_descent, reptile
from lumifield.optim import Optimizer
from lumifield.optim.optimizers import build_optimizer
from lumifield.runtime.image_metrics import psnr

ELLIPSES, FREQUENCIES, DEVIATION = 6, 256, 30.0
RATE, INNER_STEPS, DIRECTIONS = 10.0, 12, 20


class Slice(nn.Module):
    """Density in [0, 1] at places of the unit square, through random Fourier features (Tancik et al. 2020)."""

    waves: Tensor

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("waves", DEVIATION * torch.randn(2, FREQUENCIES, generator=generator))
        widths = [2 * FREQUENCIES, width, width, width, width]
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1), nn.Sigmoid())

    def forward(self, places: Tensor) -> Tensor:
        phase = places @ self.waves
        return self.layers(torch.cat([phase.sin(), phase.cos()], -1))[..., 0]


def main(steps: int = 1000, size: int = 64, width: int = 256, views: int = 6, seed: int = 0) -> None:
    """Learns a start, and prints how well it and a fresh one know a new body from `views` projections."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network, axis = Slice(width, generator), torch.arange(size) / size
    start, places = dict(network.named_parameters()), torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    fresh = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    optimizer = build_optimizer(Optimizer(kind="adam", lr=5e-5), [{"params": list(start.values())}])

    def loss(parameters: Parameters, seen: tuple[Tensor, Tensor]) -> Tensor:
        angles, sums = seen
        return (projected(functional_call(network, parameters, (places,)), angles) - sums).square().mean()

    def learned(parameters: Parameters, seen: tuple[Tensor, Tensor], count: int) -> Parameters:
        return gradient_descent(loss, parameters, [seen] * count, RATE, second_order=False)

    for _ in range(steps):
        angles, truth = math.pi * torch.rand(DIRECTIONS, generator=generator), body(places, generator)
        seen = angles, projected(truth, angles)
        reptile(start, [seen], lambda task: [learned(start, task, INNER_STEPS)], optimizer, tasks=1)
    angles, truth = math.pi * torch.arange(views) / views, body(places, generator)
    seen = angles, projected(truth, angles)
    for name, parameters in (("learned", start), ("fresh", fresh)):
        for count in (0, 50, 1000):
            known = functional_call(network, learned(parameters, seen, count), (places,))
            print(f"{name} start, {count} steps: {psnr(float((known - truth).detach().square().mean())):.2f} dB")


def body(places: Tensor, generator: torch.Generator) -> Tensor:
    """Ellipses of random place, form and density, one over the other, within a larger one."""

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    density = torch.zeros(places.shape[:2])
    for number in range(ELLIPSES):
        reach, size = (0.05, (0.3, 0.45)) if number == 0 else (0.2, (0.04, 0.16))
        offset = places - 0.5 - torch.tensor([between(-reach, reach), between(-reach, reach)])
        turn, along, across = between(0, math.pi), between(*size), between(*size)
        x = offset @ torch.tensor([math.cos(turn), math.sin(turn)]) / along
        y = offset @ torch.tensor([-math.sin(turn), math.cos(turn)]) / across
        density = torch.where(x.square() + y.square() < 1, between(0.2, 1.0), density)
    return density


def projected(density: Tensor, angles: Tensor) -> Tensor:
    """Means of a density along the lines of each direction: it is turned by each angle, and its rows are averaged."""
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turns = torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], 1)
    grid = F.affine_grid(turns, [len(angles), 1, *density.shape], align_corners=False)
    turned = F.grid_sample(density.expand(len(angles), 1, -1, -1), grid, align_corners=False)
    return turned[:, 0].mean(1)


if __name__ == "__main__":
    tyro.cli(main)
