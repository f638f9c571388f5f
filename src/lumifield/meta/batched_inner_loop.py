"""Batched inner loops: several clones of a method as one, with one batched matrix product per layer (vmap)."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lumifield.data.scene import Batch
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.runtime.precision import bf16_is_faster


class BatchedMethod(Method):
    """Clones of a method as one: the rows of a batch are those of the first clone, then of the second, etc.

    Its objective is the sum of theirs, so that each clone gets its own gradient.
    """

    def __init__(self, initialization: Method, clones: int) -> None:
        super().__init__()
        self.settings = initialization.settings
        self._initialization = (initialization,)  # a tuple, so that the method is not registered as a submodule
        self._names = [name for name, _ in initialization.named_parameters()]
        self._count = clones
        self.stacked_parameters = nn.ParameterList(
            p.detach().expand(clones, *p.shape).clone() for p in initialization.parameters()
        )
        bf16_is_faster(self.stacked_parameters[0].device)  # its benchmark cannot run within vmap

    def clones(self) -> list[dict[str, Tensor]]:
        """Parameters of each clone by their name in the method."""
        return [
            {name: stack.detach()[row] for name, stack in zip(self._names, self.stacked_parameters, strict=True)}
            for row in range(self._count)
        ]

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Renders the rays of each clone."""
        (initialization,), samples = self._initialization, 0

        def one(parameters: dict[str, Tensor], own: dict[str, Tensor], background: Tensor) -> tuple[Tensor, ...]:
            nonlocal samples
            seen = functional_call(initialization, parameters, (Rays(**own), replace(context, background=background)))
            samples = self._count * seen.samples
            return seen.rgb, seen.depth, seen.opacity

        parameters = dict(zip(self._names, self.stacked_parameters, strict=True))
        own = {f.name: self.split_clones(getattr(rays, f.name)) for f in fields(rays)}
        background = self.split_clones(context.background.expand(len(rays), 3))
        rgb, depth, opacity = vmap(one, randomness="different")(parameters, own, background)
        return Rendered(rgb.flatten(0, 1), depth.flatten(), opacity.flatten(), samples=samples)

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Sum of the losses of the clones."""
        ((initialization,), total) = self._initialization, {}
        seen = [self.split_clones(value) for value in (rendered.rgb, rendered.depth, rendered.opacity)]
        rows = len(batch.rgb) // self._count
        for clone, (rgb, depth, opacity) in enumerate(zip(*seen, strict=True)):
            own = slice(clone * rows, (clone + 1) * rows)
            part = Batch(batch.rays[own], batch.rgb[own], batch.background[own])
            for name, value in initialization.losses(Rendered(rgb, depth, opacity), part).items():
                total[name] = total.get(name, 0) + value
        return total

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the method, with the parameters of the clones."""
        (initialization,) = self._initialization
        stack_of = {id(p): stack for p, stack in zip(initialization.parameters(), self.stacked_parameters, strict=True)}
        return [
            group | {"params": [stack_of[id(p)] for p in group["params"]]} for group in initialization.param_groups()
        ]

    def rays_per_step(self) -> int:
        """Rays of all clones."""
        return self._count * self._initialization[0].rays_per_step()

    def split_clones(self, rows: Shaped[Tensor, " all *c"]) -> Shaped[Tensor, "clones own *c"]:
        """Rows with the clones along a new first dimension."""
        return rows.unflatten(0, (self._count, -1))


def merge_batches(batches: list[Batch]) -> Batch:
    """One batch with the rows of several in order."""
    rays = {f.name: torch.cat([getattr(batch.rays, f.name) for batch in batches]) for f in fields(Rays)}
    rgb, background = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("rgb", "background"))
    return Batch(Rays(**rays), rgb, background)
