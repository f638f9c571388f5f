"""The baseline of all speed measurements: NeRF as in the paper, in plain PyTorch without optimization.

`python -m lumifield.bench.plain_nerf [DEVICE]` prints the seconds of one training step and the rays per second as JSON:
float32, 1,024 rays, 64 coarse and 64 fine samples, two networks of 8 layers of 256. It shares no code with the package.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RAYS, COARSE_SAMPLES, FINE_SAMPLES = 1024, 64, 64
POSITION_OCTAVES, DIRECTION_OCTAVES = 10, 4
LEARNING_RATE = 5e-4


def positional_encoding(x: Tensor, octaves: int) -> Tensor:
    """Positional encoding: coordinates, then sines and cosines of increasing frequency (equation 4)."""
    features = [x]
    for octave in range(octaves):
        features += [torch.sin(2.0**octave * x), torch.cos(2.0**octave * x)]
    return torch.cat(features, -1)


class Network(nn.Module):
    """Figure 7: eight layers for density, the position again before the sixth, one more layer for color."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        position, direction = 3 + 6 * POSITION_OCTAVES, 3 + 6 * DIRECTION_OCTAVES
        self.first = nn.ModuleList([nn.Linear(position, width)] + [nn.Linear(width, width) for _ in range(4)])
        self.second = nn.ModuleList([nn.Linear(position + width, width)] + [nn.Linear(width, width) for _ in range(2)])
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.side = nn.Linear(width + direction, width // 2)
        self.color = nn.Linear(width // 2, 3)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, position: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density and RGB of encoded positions and directions."""
        h = position
        for layer in self.first:
            h = F.relu(layer(h))
        h = torch.cat([position, h], -1)
        for layer in self.second:
            h = F.relu(layer(h))
        side = F.relu(self.side(torch.cat([self.feature(h), direction], -1)))
        return self.density(h)[..., 0], torch.sigmoid(self.color(side))


def render(network: Network, origin: Tensor, direction: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Color over white, weights and expected depth of each ray (equation 3)."""
    points = origin[:, None] + z[..., None] * direction[:, None]
    towards = positional_encoding(direction, DIRECTION_OCTAVES)[:, None].expand(-1, z.shape[1], -1)
    density, rgb = network(positional_encoding(points, POSITION_OCTAVES), towards)
    width = torch.cat([z[:, 1:] - z[:, :-1], torch.full_like(z[:, :1], 1e10)], -1)
    alpha = 1 - torch.exp(-F.relu(density) * width)
    clear = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1] + 1e-10], -1), -1)
    weights = alpha * clear
    color = (weights[..., None] * rgb).sum(1) + (1 - weights.sum(-1, keepdim=True))
    return color, weights, (weights * z).sum(-1)


def sample_coarse(rays: int, near: float, far: float, *, jitter: bool = True) -> Tensor:
    """Stratified depths (equation 2): one random depth, or the midpoint, per interval."""
    edges = torch.linspace(near, far, COARSE_SAMPLES + 1)
    within = torch.rand(rays, COARSE_SAMPLES) if jitter else torch.full((rays, COARSE_SAMPLES), 0.5)
    return edges[:-1] + within * (edges[1:] - edges[:-1])


def sample_fine(z: Tensor, weights: Tensor, *, jitter: bool = True) -> Tensor:
    """Depths sampled from the weights, merged with the coarse ones (section 5.2)."""
    bins = 0.5 * (z[:, 1:] + z[:, :-1])
    share = weights.detach()[:, 1:-1] + 1e-5
    total = F.pad((share / share.sum(-1, keepdim=True)).cumsum(-1), (1, 0))
    u = torch.rand(len(z), FINE_SAMPLES) if jitter else torch.linspace(0, 1, FINE_SAMPLES).repeat(len(z), 1)
    above = torch.searchsorted(total, u, right=True).clamp(1, bins.shape[1] - 1)
    low, high = total.gather(-1, above - 1), total.gather(-1, above)
    left, right = bins.gather(-1, above - 1), bins.gather(-1, above)
    fraction = ((u - low) / (high - low).clamp_min(1e-8)).clamp(0, 1)
    return torch.sort(torch.cat([z, left + fraction * (right - left)], -1), -1).values


class PlainNerf:
    """Two networks and their optimizer."""

    def __init__(self, near: float = 2.0, far: float = 6.0, *, width: int = 256) -> None:
        self.near, self.far = near, far
        self.coarse, self.fine = Network(width), Network(width)
        self.optimizer = torch.optim.Adam([*self.coarse.parameters(), *self.fine.parameters()], LEARNING_RATE)

    def render_rays(self, origin: Tensor, direction: Tensor, *, jitter: bool = True) -> tuple[Tensor, Tensor]:
        """Colors of the rays after the coarse and after the fine pass."""
        z = sample_coarse(len(origin), self.near, self.far, jitter=jitter)
        coarse, weights, _ = render(self.coarse, origin, direction, z)
        fine, _, _ = render(self.fine, origin, direction, sample_fine(z, weights, jitter=jitter))
        return coarse, fine

    def step(self, origin: Tensor, direction: Tensor, rgb: Tensor) -> None:
        """One training step on a batch of rays."""
        coarse, fine = self.render_rays(origin, direction)
        loss = F.mse_loss(coarse, rgb) + F.mse_loss(fine, rgb)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def measure_step_seconds(steps: int = 3) -> float:
    """Median seconds of a training step on random rays, after one warm-up step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain_nerf = PlainNerf()
        origin = torch.tensor([0.0, 0.0, 4.0]).expand(RAYS, 3)
        direction = F.normalize(0.15 * torch.randn(RAYS, 3) - torch.tensor([0.0, 0.0, 1.0]), dim=-1)
        rgb = torch.rand(RAYS, 3)
        plain_nerf.step(origin, direction, rgb)
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            plain_nerf.step(origin, direction, rgb)
            if rgb.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    torch.set_default_device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    seconds = measure_step_seconds()
    print(json.dumps({"seconds_per_step": seconds, "rays_per_second": RAYS / seconds}))
