"""Images of a kind by a network of sines, in few steps: MAML or Reptile on plain tensors (Tancik et al. 2021, 4.1).

`reptile` and `maml` know parameters and what to do with them, no scenes: here a task is one image.
"""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.func import functional_call

from lumifield.meta.outer_loop import Parameters, gradient_descent, maml, reptile
from lumifield.optim import Optimizer
from lumifield.optim.optimizers import build_optimizer
from lumifield.runtime.image_metrics import psnr

FREQUENCY = 200.0
RATE, STEPS, IMAGES = 1e-2, 2, 3


class Siren(nn.Module):
    """Colors at places of the unit square, through four layers of sines (Sitzmann et al. 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = [2, width, width, width]
        self.layers = nn.ModuleList([nn.Linear(count, width) for count in inputs])
        self.color = nn.Linear(width, 3)
        for layer in (*self.layers, self.color):
            count = layer.in_features
            bound = 1 / count if count == 2 else math.sqrt(6 / count) / FREQUENCY
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)

    def forward(self, places: Tensor) -> Tensor:
        h = places
        for layer in self.layers:
            h = torch.sin(FREQUENCY * layer(h))
        return self.color(h) + 0.5


def main(
    images: Path = Path("runs/example/still-life/train"),
    steps: int = 2000,
    size: int = 64,
    width: int = 256,
    algorithm: Literal["maml", "reptile"] = "maml",
    rate: float = 1e-5,
) -> None:
    """Learns a start for the PNG files of a folder but the last, and shows how fast it learns that one."""
    files = sorted(images.glob("*.png"))
    shown = torch.stack([pixels(file, size) for file in files])
    network, axis = Siren(width), torch.arange(size) / size
    places = torch.cartesian_prod(axis, axis)
    start = dict(network.named_parameters())
    optimizer = build_optimizer(Optimizer(kind="adam", lr=rate), [{"params": list(start.values())}])
    generator = torch.Generator().manual_seed(0)

    def loss(parameters: Parameters, image: Tensor) -> Tensor:
        return (functional_call(network, parameters, (places,)) - image).square().mean()

    def learned(parameters: Parameters, image: Tensor, count: int = STEPS, *, second_order: bool = False) -> Parameters:
        return gradient_descent(loss, parameters, [image] * count, RATE, second_order=second_order)

    for _ in range(steps):
        tasks = list(shown[torch.randint(len(shown) - 1, (IMAGES,), generator=generator)])
        if algorithm == "maml":
            maml(start, tasks, lambda s, t: loss(learned(s, t, second_order=True), t), optimizer, tasks=IMAGES)
        else:
            reptile(start, tasks, lambda task: [learned(start, task)], optimizer, tasks=IMAGES)
    for name, parameters in (("learned", start), ("fresh", dict(Siren(width).named_parameters()))):
        found = [psnr(float(loss(learned(parameters, shown[-1], count), shown[-1]).detach())) for count in range(5)]
        print(f"{name} start, PSNR after 0 to 4 steps: {', '.join(f'{value:.2f}' for value in found)} dB")


def pixels(file: Path, size: int) -> Tensor:
    """The colors of an image over white, cut to a square, row by row in [0, 1]."""
    with Image.open(file) as opened:
        image = opened.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    square = ImageOps.fit(Image.alpha_composite(white, image).convert("RGB"), (size, size))
    return torch.from_numpy(np.asarray(square, np.float32)).reshape(-1, 3) / 255


if __name__ == "__main__":
    tyro.cli(main)
