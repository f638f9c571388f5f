"""Outer steps: how a start moves by what its copies have learned. They know tensors alone, no scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lumifield.optim.optimizers import TrainOptimizer

Parameters = dict[str, Tensor]
Group = TypeVar("Group")
Batch = TypeVar("Batch")


def reptile(
    start: Parameters,
    groups: Sequence[Group],
    adapt: Callable[[Group], Sequence[Parameters]],
    optimizer: TrainOptimizer,
    *,
    tasks: int,
) -> None:
    """Moves the start as if `start - mean(adapted)` were its gradient (Nichol et al. 2018, algorithm 2).

    `adapt` gives what copies of the start have become on the tasks of a group. Of several processes each has its own
    `groups`; `tasks` counts those of all.
    """
    towards = {name: torch.zeros_like(value) for name, value in start.items()}
    for group in groups:
        for learned in adapt(group):
            for name, value in towards.items():
                value += start[name].detach() - learned[name].detach()
    move(start, towards, optimizer, tasks=tasks)


def maml(
    start: Parameters,
    groups: Sequence[Group],
    objective: Callable[[Parameters, Group], Tensor],
    optimizer: TrainOptimizer,
    *,
    tasks: int,
) -> None:
    """Moves the start along the gradient of what its adapted copies still do wrong (Finn et al. 2017, algorithm 1).

    `objective` is the sum of the copies' losses over the tasks of a group, after steps such as those of `descended`.
    """
    total = {name: torch.zeros_like(value) for name, value in start.items()}
    for group in groups:
        gradients = torch.autograd.grad(objective(start, group), list(start.values()), materialize_grads=True)
        for value, gradient in zip(total.values(), gradients, strict=True):
            value += gradient
    move(start, total, optimizer, tasks=tasks)


def descended(
    loss: Callable[[Parameters, Batch], Tensor],
    start: Parameters,
    batches: Iterable[Batch],
    rate: float,
    *,
    second_order: bool,
) -> Parameters:
    """The parameters after a plain gradient step on each batch, as a function of the start.

    With `second_order` gradients flow through the steps' own gradients, else these count as constants.
    """
    parameters = start
    for batch in batches:
        value = loss(parameters, batch)
        given = list(parameters.values())
        gradients = torch.autograd.grad(value, given, create_graph=second_order, materialize_grads=True)
        moved = zip(parameters.items(), gradients, strict=True)
        parameters = {name: before - rate * gradient for (name, before), gradient in moved}
    return parameters


def move(start: Parameters, gradients: Parameters, optimizer: TrainOptimizer, *, tasks: int) -> None:
    """One step of the optimizer along the sum of the gradients of all processes over the number of tasks."""
    flat = torch.cat([value.reshape(-1) for value in gradients.values()])
    if dist.is_initialized():
        dist.all_reduce(flat)
    parts = (flat / tasks).split([value.numel() for value in start.values()])
    for parameter, part in zip(start.values(), parts, strict=True):
        parameter.grad = part.view_as(parameter)
    optimizer.step()
