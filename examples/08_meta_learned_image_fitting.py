"""Fit an image in a few steps from a meta-learned SIREN: MAML or Reptile on plain tensors (Tancik et al. 2021, 4.1).

`reptile` and `maml` work on named tensors; here a task is one image.
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

import lumifield as lf

FREQUENCY = 200.0
RATE, STEPS, IMAGES = 1e-2, 2, 3


class Siren(nn.Module):
    """Colors at points of the unit square, with sine activations (Sitzmann et al. 2020)."""

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

    def forward(self, points: Tensor) -> Tensor:
        h = points
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
    """Meta-learns an initialization on all PNG files of a folder but the last, then fits the last one."""
    files = sorted(images.glob("*.png"))
    targets = torch.stack([pixels(file, size) for file in files])
    network, axis = Siren(width), torch.arange(size) / size
    points = torch.cartesian_prod(axis, axis)
    start = dict(network.named_parameters())
    optimizer = lf.build_optimizer(lf.Optimizer(kind="adam", lr=rate), [{"params": list(start.values())}])
    generator = torch.Generator().manual_seed(0)

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return (functional_call(network, parameters, (points,)) - image).square().mean()

    def adapt(
        parameters: dict[str, Tensor], image: Tensor, count: int = STEPS, *, second_order: bool = False
    ) -> dict[str, Tensor]:
        return lf.gradient_descent(loss, parameters, [image] * count, RATE, second_order=second_order)

    for _ in range(steps):
        tasks = list(targets[torch.randint(len(targets) - 1, (IMAGES,), generator=generator)])
        if algorithm == "maml":
            lf.maml(start, tasks, lambda s, t: loss(adapt(s, t, second_order=True), t), optimizer, tasks=IMAGES)
        else:
            lf.reptile(start, tasks, lambda task: [adapt(start, task)], optimizer, tasks=IMAGES)
    for name, parameters in (("meta-learned", start), ("random", dict(Siren(width).named_parameters()))):
        found = [psnr(loss(adapt(parameters, targets[-1], count), targets[-1])) for count in range(5)]
        print(f"{name} initialization, PSNR after 0 to 4 steps: {', '.join(f'{value:.2f}' for value in found)} dB")


def psnr(error: Tensor) -> float:
    """Peak signal-to-noise ratio of a mean squared error [dB]."""
    return -10 * math.log10(float(error.detach()))


def pixels(file: Path, size: int) -> Tensor:
    """RGB of an image over white in [0, 1], cropped to a square, one row per pixel."""
    with Image.open(file) as opened:
        image = opened.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    square = ImageOps.fit(Image.alpha_composite(white, image).convert("RGB"), (size, size))
    return torch.from_numpy(np.asarray(square, np.float32)).reshape(-1, 3) / 255


if __name__ == "__main__":
    tyro.cli(main)
