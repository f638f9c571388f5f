"""Encodings of coordinates as inputs of a small network."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Encoding(Protocol):
    """A function from coordinates to features."""

    @property
    def width(self) -> int:
        """Number of features."""
        ...

    def __call__(self, x: Tensor, /) -> Tensor:
        """Features of coordinates."""
        ...


@dataclass(frozen=True)
class Positional:
    """Positional encoding of three coordinates, with octaves from `first` on."""

    octaves: int
    first: int = 0

    @property
    def width(self) -> int:
        """Number of features."""
        return positional_width(3, self.octaves)

    def __call__(self, x: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p features"]:
        """Features of `positional`."""
        return positional(x, self.octaves, first=self.first)


@dataclass(frozen=True)
class Waves:
    """Sines, then cosines of three coordinates at log-spaced frequencies from 1 to 2^octaves."""

    frequencies: int
    octaves: float

    @property
    def width(self) -> int:
        """Number of features."""
        return 6 * self.frequencies

    def __call__(self, x: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p features"]:
        """`[sin(f_0 x), sin(f_1 x), ..., cos(f_0 x), ...]` with f_k = 2^(octaves k / (frequencies - 1))."""
        rising = 2.0 ** torch.linspace(0, self.octaves, self.frequencies, device=x.device)
        phase = (x[..., None, :] * rising[:, None]).flatten(-2)
        return torch.cat([phase.sin(), phase.cos()], -1)


def positional(
    x: Float[Tensor, "*p c"], octaves: int, *, first: int = 0, linear: bool = False
) -> Float[Tensor, "*p features"]:
    """`[x, sin(f_0 x), cos(f_0 x), ...]` with f_k = 2^k (NeRF, equation 4, without pi): c * (1 + 2 * octaves) features.

    k starts at `first`. `linear` spaces the same number of frequencies linearly from 1 to 2^(octaves - 1).
    """
    if octaves == 0:
        return x
    if linear:
        frequencies = torch.linspace(1, 2 ** (octaves - 1), octaves, device=x.device)
    else:
        frequencies = 2.0 ** torch.arange(first, first + octaves, device=x.device)
    phase = x[..., None, :] * frequencies[:, None]
    waves = torch.stack([phase.sin(), phase.cos()], -2)
    return torch.cat([x, waves.flatten(-3)], -1)


def positional_width(channels: int, octaves: int) -> int:
    """Number of features of `positional`."""
    return channels * (1 + 2 * octaves)


def spherical_harmonics(directions: Float[Tensor, "*p 3"], degree: int) -> Float[Tensor, "*p {degree*degree}"]:
    """Real spherical harmonics of orders below `degree` (1 to 4) at unit directions, as polynomials of x, y, z.

    Orthonormal over the sphere; m of each order l runs from -l to l.
    """
    if not 1 <= degree <= 4:
        raise ValueError(f"degree is {degree}, expected 1 to 4")
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    orders = [[torch.full_like(x, sqrt(1 / (4 * pi)))]]
    if degree > 1:
        first = sqrt(3 / (4 * pi))
        orders.append([first * y, first * z, first * x])
    if degree > 2:
        mixed = sqrt(15 / (4 * pi))
        orders.append(
            [
                mixed * x * y,
                mixed * y * z,
                sqrt(5 / (16 * pi)) * (3 * zz - 1),
                mixed * x * z,
                mixed / 2 * (xx - yy),
            ]
        )
    if degree > 3:
        outer, inner, mixed = sqrt(35 / (32 * pi)), sqrt(21 / (32 * pi)), sqrt(105 / (4 * pi))
        orders.append(
            [
                outer * y * (3 * xx - yy),
                mixed * x * y * z,
                inner * y * (5 * zz - 1),
                sqrt(7 / (16 * pi)) * z * (5 * zz - 3),
                inner * x * (5 * zz - 1),
                mixed / 2 * z * (xx - yy),
                outer * x * (xx - 3 * yy),
            ]
        )
    return torch.stack([value for order in orders for value in order], -1)
