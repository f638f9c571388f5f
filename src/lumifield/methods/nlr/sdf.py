"""Signed distance fields over the unit ball: negative inside, unit gradient.

They are a sphere of radius `RADIUS` plus a network that is initially zero: every architecture starts as the same exact
distance without a fit.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.fields import Activation
from lumifield.fields.hash_grid import FeatureGrid, geometric_resolutions
from lumifield.fields.mlp import pieces

RADIUS = 0.5
OMEGA = 30.0
"""Frequency of periodic activations (SIREN, section 3.2)."""
SOFTPLUS_SHARPNESS = 100.0
"""Sharpness of the softplus activation (IDR, section 4)."""
INITIAL_STD = 1e-5
"""Initial standard deviation of the weights of encoded features, nearly zero."""
ROUND = 1e-3
"""Radius around the origin in which the distance is smoothed."""
COARSEST, HIDDEN = 16, 64


def activate(x: Float[Tensor, "*p c"], activation: Activation) -> Float[Tensor, "*p c"]:
    """An activation function; w is `OMEGA`."""
    match activation:
        case "sine":
            return torch.sin(OMEGA * x)
        case "sinesq":
            return torch.sin(OMEGA * x).square()
        case "mod":
            return torch.remainder(OMEGA * x / pi, 2.0) - 1
        case "triangle":
            return 1 - (torch.remainder(2 * OMEGA * x / pi + 1, 4.0) - 2).abs()
        case "sineorrelu":
            return torch.where(x > 0, x, torch.sin(OMEGA * x) / OMEGA)
        case "xsine":
            return x + torch.sin(OMEGA * x) / OMEGA
        case "xsinesq":
            return x + torch.sin(OMEGA * x).square() / OMEGA
        case "xsinesqrelu":
            return F.relu(x) + torch.sin(OMEGA * x).square() / OMEGA
        case "xrelusinesq":
            return F.relu(x + torch.sin(OMEGA * x).square() / OMEGA)
        case "swish":
            return F.silu(x)
        case "softplus":
            return F.softplus(x, beta=SOFTPLUS_SHARPNESS)
        case "elu":
            return F.elu(x)
        case "relu" | "selu" | "tanh" | "sigmoid":
            return getattr(torch, activation)(x)


class FrequencyEncoding(nn.Module):
    """`[x, sin(x B), cos(x B)]` for the columns of a frequency matrix B."""

    matrix: Tensor

    def __init__(self, matrix: Float[Tensor, "3 m"]) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    @property
    def width(self) -> int:
        """Number of features."""
        return 3 + 2 * self.matrix.shape[1]

    def forward(self, x: Float[Tensor, "p 3"]) -> Float[Tensor, "p features"]:
        """Features."""
        phase = x @ self.matrix
        return torch.cat([x, phase.sin(), phase.cos()], -1)


def make_frequencies(kind: Literal["nerf", "idr", "fourier"], bands: int, *, sigma: float = 1.0) -> FrequencyEncoding:
    """nerf: 2^k pi on each axis; idr: 2 (k + 1) pi; fourier: normally distributed with deviation 2 pi `sigma`."""
    if kind == "fourier":
        return FrequencyEncoding(2 * pi * sigma * torch.randn(3, bands))
    k = torch.arange(bands)
    rising = pi * 2.0**k if kind == "nerf" else 2 * pi * (k + 1)
    return FrequencyEncoding(torch.cat([f * torch.eye(3) for f in rising], -1) if bands else torch.empty(3, 0))


def sphere_distance(points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
    """Distance to the sphere around the origin, smoothed at its center."""
    return (points.square().sum(-1) + ROUND**2).sqrt() - RADIUS


class Sdf(nn.Module):
    """Sphere plus a network of `depth` + 1 hidden layers; those in `skips` (from 0) see the position again.

    Periodic layers are initialized as in SIREN (section 3.2), the last one with zero. A `geometric` network stands
    alone: its weights approximate the sphere (SAL, theorem 1), for non-periodic activations.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 3,
        activation: Activation = "sine",
        encoding: FrequencyEncoding | None = None,
        skips: tuple[int, ...] = (),
        geometric: bool = False,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.encoding, self.skips, self.geometric = encoding, skips, geometric
        entry = 3 if encoding is None else encoding.width
        inputs = [entry] + [width + (entry if layer in skips else 0) for layer in range(1, depth + 1)]
        self.hidden = nn.ModuleList([nn.Linear(channels, width) for channels in inputs])
        self.out = nn.Linear(width, 1)
        if periodic(activation):
            self._initialize_siren()
        else:
            self._initialize_sphere()
        if not geometric:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Signed distances."""
        found = torch.cat([self.out(self.features(piece))[:, 0] for piece in pieces(points)])
        return found if self.geometric else sphere_distance(points) + found

    def features(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p width"]:
        """Last hidden layer."""
        position = points if self.encoding is None else self.encoding(points)
        h = position
        for layer, linear in enumerate(self.hidden):
            h = torch.cat([h, position], -1) if layer in self.skips else h
            h = activate(linear(h), self.activation)
        return h

    def gradient(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Gradient of the distance, differentiable with respect to the parameters."""
        needs_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self(points).sum(), points, create_graph=needs_graph)
        return gradient

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.hidden if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def _initialize_siren(self) -> None:
        for layer, linear in enumerate(self._linears()):
            bound = 1 / linear.in_features if layer == 0 else sqrt(6 / linear.in_features) / OMEGA
            linear.weight.uniform_(-bound, bound)

    @torch.no_grad()
    def _initialize_sphere(self) -> None:
        entry = self._linears()[0].in_features
        for layer, linear in enumerate(self._linears()):
            linear.weight.normal_(0, sqrt(2 / linear.out_features))
            linear.bias.zero_()
            if layer == 0 or layer in self.skips:
                encoded = linear.weight[:, linear.in_features - entry + 3 :]
                encoded.normal_(0, INITIAL_STD)
        self.out.weight.normal_(sqrt(pi / self.out.in_features), 1e-6)
        self.out.bias.fill_(-RADIUS)


class GridSdf(nn.Module):
    """Sphere plus a small network of hash grid features over the unit ball.

    Gradients are differences over cells of the finest level, because the features have no second derivatives.
    """

    def __init__(self, *, levels: int = 8, features: int = 2, log2_entries: int = 15, finest: int = 128) -> None:
        super().__init__()
        self.grid = FeatureGrid(geometric_resolutions(min(COARSEST, finest), finest, levels), features, log2_entries)
        self.step = 2 / finest
        self.hidden = nn.Linear(3 + self.grid.width, HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Signed distances."""
        added = [self._added(piece) for piece in pieces(points)]
        return sphere_distance(points) + torch.cat(added)

    def gradient(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Gradient of the distance, differentiable with respect to the parameters."""
        steps = self.step * torch.eye(3, device=points.device)
        ends = torch.cat([points + sign * step for sign in (1, -1) for step in steps])
        ahead, behind = self(ends).view(2, 3, len(points)).unbind()
        return ((ahead - behind) / (2 * self.step)).T

    def _added(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        features = self.grid((0.5 * points + 0.5).clamp(0, 1))
        return self.out(F.softplus(self.hidden(torch.cat([points, features], -1)), beta=SOFTPLUS_SHARPNESS))[:, 0]


def periodic(activation: Activation) -> bool:
    """Whether an activation starts as SIREN says."""
    return activation in ("sine", "sinesq", "mod", "triangle", "sineorrelu", "xsine", "xsinesq")
