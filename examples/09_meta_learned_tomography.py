"""Computed tomography from few projections with a Reptile initialization (Tancik et al. 2021, section 4.2).

A task is a random phantom of ellipses: a network fits its density to projections along some directions.
"""

import math
from itertools import pairwise

import torch
import tyro
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import lumifield as lf

ELLIPSES, FREQUENCIES, DEVIATION = 6, 256, 30.0
RATE, INNER_STEPS, DIRECTIONS = 10.0, 12, 20


class Slice(nn.Module):
    """Density in [0, 1] at points of the unit square, from random Fourier features (Tancik et al. 2020)."""

    waves: Tensor

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("waves", DEVIATION * torch.randn(2, FREQUENCIES, generator=generator))
        widths = [2 * FREQUENCIES, width, width, width, width]
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1), nn.Sigmoid())

    def forward(self, points: Tensor) -> Tensor:
        phase = points @ self.waves
        return self.layers(torch.cat([phase.sin(), phase.cos()], -1))[..., 0]


def main(steps: int = 1000, size: int = 64, width: int = 256, views: int = 6, seed: int = 0) -> None:
    """Fits a new phantom to `views` projections, from a meta-learned and from a random initialization."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network, axis = Slice(width, generator), torch.arange(size) / size
    start, points = dict(network.named_parameters()), torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    random = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    optimizer = lf.build_optimizer(lf.Optimizer(kind="adam", lr=5e-5), [{"params": list(start.values())}])

    def loss(parameters: dict[str, Tensor], projections: tuple[Tensor, Tensor]) -> Tensor:
        angles, sums = projections
        return (project(functional_call(network, parameters, (points,)), angles) - sums).square().mean()

    def adapt(parameters: dict[str, Tensor], projections: tuple[Tensor, Tensor], count: int) -> dict[str, Tensor]:
        return lf.gradient_descent(loss, parameters, [projections] * count, RATE, second_order=False)

    for _ in range(steps):
        angles, density = math.pi * torch.rand(DIRECTIONS, generator=generator), phantom(points, generator)
        projections = angles, project(density, angles)
        lf.reptile(start, [projections], lambda task: [adapt(start, task, INNER_STEPS)], optimizer, tasks=1)
    angles, density = math.pi * torch.arange(views) / views, phantom(points, generator)
    projections = angles, project(density, angles)
    for name, parameters in (("meta-learned", start), ("random", random)):
        for count in (0, 50, 1000):
            fitted = functional_call(network, adapt(parameters, projections, count), (points,))
            print(f"{name} initialization, {count} steps: {psnr((fitted - density).square().mean()):.2f} dB")


def psnr(error: Tensor) -> float:
    """Peak signal-to-noise ratio of a mean squared error [dB]."""
    return -10 * math.log10(float(error.detach()))


def phantom(points: Tensor, generator: torch.Generator) -> Tensor:
    """Random ellipses of constant density inside a larger one."""

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    density = torch.zeros(points.shape[:2])
    for number in range(ELLIPSES):
        reach, size = (0.05, (0.3, 0.45)) if number == 0 else (0.2, (0.04, 0.16))
        offset = points - 0.5 - torch.tensor([between(-reach, reach), between(-reach, reach)])
        turn, along, across = between(0, math.pi), between(*size), between(*size)
        x = offset @ torch.tensor([math.cos(turn), math.sin(turn)]) / along
        y = offset @ torch.tensor([-math.sin(turn), math.cos(turn)]) / across
        density = torch.where(x.square() + y.square() < 1, between(0.2, 1.0), density)
    return density


def project(density: Tensor, angles: Tensor) -> Tensor:
    """Mean density along parallel lines for each angle."""
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turns = torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], 1)
    grid = F.affine_grid(turns, [len(angles), 1, *density.shape], align_corners=False)
    turned = F.grid_sample(density.expand(len(angles), 1, -1, -1), grid, align_corners=False)
    return turned[:, 0].mean(1)


if __name__ == "__main__":
    tyro.cli(main)
