"""Signed distance fields: negative inside a surface, growing by one per unit of length, meant for the unit ball.

They are a sphere of radius `RADIUS` about the origin plus what is learned, at first nothing: every width, depth and
activation starts as the same exact distance, at once and without a fit.
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
MAX_FIELD = 100.0
"""Sharpness of the softplus of distances (IDR, section 4)."""
FAINT = 1e-5
"""Deviation of the first weights of features beside the coordinates: they are learned from nearly nothing."""
ROUND = 1e-3
"""Radius about the origin in which the cone of a distance is rounded off."""
COARSEST, HIDDEN = 16, 64


def activated(x: Float[Tensor, "*p c"], activation: Activation) -> Float[Tensor, "*p c"]:
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
            return F.softplus(x, beta=MAX_FIELD)
        case "elu":
            return F.elu(x)
        case "relu" | "selu" | "tanh" | "sigmoid":
            return getattr(torch, activation)(x)


class Frequencies(nn.Module):
    """`[x, sin(x B), cos(x B)]` for the columns of a matrix B of frequencies."""

    matrix: Tensor

    def __init__(self, matrix: Float[Tensor, "3 m"]) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    @property
    def width(self) -> int:
        """The number of features."""
        return 3 + 2 * self.matrix.shape[1]

    def forward(self, x: Float[Tensor, "p 3"]) -> Float[Tensor, "p features"]:
        """The features."""
        phase = x @ self.matrix
        return torch.cat([x, phase.sin(), phase.cos()], -1)


def frequencies(kind: Literal["nerf", "idr", "fourier"], bands: int, *, sigma: float = 1.0) -> Frequencies:
    """nerf: 2^k pi on each axis; idr: 2 (k + 1) pi; fourier: normally distributed, of deviation 2 pi `sigma`."""
    if kind == "fourier":
        return Frequencies(2 * pi * sigma * torch.randn(3, bands))
    k = torch.arange(bands)
    rising = pi * 2.0**k if kind == "nerf" else 2 * pi * (k + 1)
    return Frequencies(torch.cat([f * torch.eye(3) for f in rising], -1) if bands else torch.empty(3, 0))


def sphere(points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
    """The distance from the sphere about the origin, rounded off at its center."""
    return (points.square().sum(-1) + ROUND**2).sqrt() - RADIUS


class Sdf(nn.Module):
    """The sphere plus a network of `depth` + 1 hidden layers; those in `skips`, from 0, see the position again.

    Layers of periodic activations start as SIREN says (section 3.2), the last one at zero. A `geometric` network stands
    alone: its weights make it roughly the sphere (SAL, theorem 1), for activations without a period.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 3,
        activation: Activation = "sine",
        encoding: Frequencies | None = None,
        skips: tuple[int, ...] = (),
        geometric_resolutions: bool = False,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.encoding, self.skips, self.geometric_resolutions = encoding, skips, geometric_resolutions
        entry = 3 if encoding is None else encoding.width
        inputs = [entry] + [width + (entry if layer in skips else 0) for layer in range(1, depth + 1)]
        self.hidden = nn.ModuleList([nn.Linear(channels, width) for channels in inputs])
        self.out = nn.Linear(width, 1)
        if periodic(activation):
            self._start_as_siren()
        else:
            self._start_as_sphere()
        if not geometric_resolutions:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Distances from the surface, negative inside."""
        found = torch.cat([self.out(self.features(piece))[:, 0] for piece in pieces(points)])
        return found if self.geometric_resolutions else sphere(points) + found

    def features(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p width"]:
        """The last hidden layer."""
        position = points if self.encoding is None else self.encoding(points)
        h = position
        for layer, linear in enumerate(self.hidden):
            h = torch.cat([h, position], -1) if layer in self.skips else h
            h = activated(linear(h), self.activation)
        return h

    def gradient(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Slopes of the distance, which carry a gradient to the parameters."""
        learns = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self(points).sum(), points, create_graph=learns)
        return slope

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.hidden if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def _start_as_siren(self) -> None:
        for layer, linear in enumerate(self._linears()):
            bound = 1 / linear.in_features if layer == 0 else sqrt(6 / linear.in_features) / OMEGA
            linear.weight.uniform_(-bound, bound)

    @torch.no_grad()
    def _start_as_sphere(self) -> None:
        entry = self._linears()[0].in_features
        for layer, linear in enumerate(self._linears()):
            linear.weight.normal_(0, sqrt(2 / linear.out_features))
            linear.bias.zero_()
            if layer == 0 or layer in self.skips:
                beside = linear.weight[:, linear.in_features - entry + 3 :]
                beside.normal_(0, FAINT)
        self.out.weight.normal_(sqrt(pi / self.out.in_features), 1e-6)
        self.out.bias.fill_(-RADIUS)


class GridSdf(nn.Module):
    """The sphere plus a small network of the features of a grid over the unit ball.

    Its slopes are differences over cells of the finest level, as the features have no second derivatives.
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
        """Distances from the surface, negative inside."""
        added = [self._added(piece) for piece in pieces(points)]
        return sphere(points) + torch.cat(added)

    def gradient(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Slopes of the distance, which carry a gradient to the parameters."""
        steps = self.step * torch.eye(3, device=points.device)
        ends = torch.cat([points + sign * step for sign in (1, -1) for step in steps])
        ahead, behind = self(ends).view(2, 3, len(points)).unbind()
        return ((ahead - behind) / (2 * self.step)).T

    def _added(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        features = self.grid((0.5 * points + 0.5).clamp(0, 1))
        return self.out(F.softplus(self.hidden(torch.cat([points, features], -1)), beta=MAX_FIELD))[:, 0]


def periodic(activation: Activation) -> bool:
    """Whether an activation starts as SIREN says."""
    return activation in ("sine", "sinesq", "mod", "triangle", "sineorrelu", "xsine", "xsinesq")
