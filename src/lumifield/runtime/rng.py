"""Random numbers that do not depend on the number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Rng:
    """Random rows of a generator, distributed over processes.

    Each of `world` processes requests `rows` rows; all generate the same `world * rows` rows and process `rank` keeps
    the rows `rank, rank + world, ...`, so that together they use the rows that one process would.
    """

    generator: torch.Generator
    rank: int = 0
    world: int = 1

    def replicated(self) -> Rng:
        """The same generator for work that every process does in full."""
        return Rng(self.generator)

    def integers(self, rows: int, high: int) -> Int[Tensor, " {rows}"]:
        """Integers uniform in [0, high)."""
        device = self.generator.device
        return self._own(torch.randint(high, (rows * self.world,), generator=self.generator, device=device))

    def uniform(self, rows: int, columns: int) -> Float[Tensor, "{rows} {columns}"]:
        """Numbers uniform in [0, 1)."""
        shape = (rows * self.world, columns)
        return self._own(torch.rand(shape, generator=self.generator, device=self.generator.device))

    def normal(self, rows: int, columns: int) -> Float[Tensor, "{rows} {columns}"]:
        """Numbers from the standard normal distribution."""
        shape = (rows * self.world, columns)
        return self._own(torch.randn(shape, generator=self.generator, device=self.generator.device))

    def _own(self, drawn: Shaped[Tensor, " all *columns"]) -> Shaped[Tensor, " own *columns"]:
        return drawn[self.rank :: self.world].contiguous()
