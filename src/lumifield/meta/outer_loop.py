"""Outer loop: Reptile and MAML steps on parameters, independent of scenes."""

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
    initialization: Parameters,
    groups: Sequence[Group],
    adapt: Callable[[Group], Sequence[Parameters]],
    optimizer: TrainOptimizer,
    *,
    tasks: int,
) -> None:
    """Outer step with `initialization - mean(adapted)` as gradient (Nichol et al. 2018, algorithm 2).

    `adapt` returns adapted clones for the tasks of a group. Each process has its own `groups`; `tasks` counts those of
    all processes.
    """
    total = {name: torch.zeros_like(value) for name, value in initialization.items()}
    for group in groups:
        for learned in adapt(group):
            for name, value in total.items():
                value += initialization[name].detach() - learned[name].detach()
    apply_outer_gradient(initialization, total, optimizer, tasks=tasks)


def maml(
    initialization: Parameters,
    groups: Sequence[Group],
    objective: Callable[[Parameters, Group], Tensor],
    optimizer: TrainOptimizer,
    *,
    tasks: int,
) -> None:
    """Outer step along the gradient of the loss after adaptation (Finn et al. 2017, algorithm 1).

    `objective` is the sum of the losses over the tasks of a group, after steps such as `gradient_descent`.
    """
    total = {name: torch.zeros_like(value) for name, value in initialization.items()}
    for group in groups:
        gradients = torch.autograd.grad(
            objective(initialization, group), list(initialization.values()), materialize_grads=True
        )
        for value, gradient in zip(total.values(), gradients, strict=True):
            value += gradient
    apply_outer_gradient(initialization, total, optimizer, tasks=tasks)


def gradient_descent(
    loss: Callable[[Parameters, Batch], Tensor],
    initialization: Parameters,
    batches: Iterable[Batch],
    rate: float,
    *,
    second_order: bool,
) -> Parameters:
    """Parameters after one plain gradient step per batch, as a function of the initial ones.

    With `second_order` gradients flow through the gradients of the steps.
    """
    parameters = initialization
    for batch in batches:
        value = loss(parameters, batch)
        given = list(parameters.values())
        gradients = torch.autograd.grad(value, given, create_graph=second_order, materialize_grads=True)
        updates = zip(parameters.items(), gradients, strict=True)
        parameters = {name: before - rate * gradient for (name, before), gradient in updates}
    return parameters


def apply_outer_gradient(
    initialization: Parameters, gradients: Parameters, optimizer: TrainOptimizer, *, tasks: int
) -> None:
    """Optimizer step along the gradients summed over all processes and divided by the number of tasks."""
    flat = torch.cat([value.reshape(-1) for value in gradients.values()])
    if dist.is_initialized():
        dist.all_reduce(flat)
    parts = (flat / tasks).split([value.numel() for value in initialization.values()])
    for parameter, part in zip(initialization.values(), parts, strict=True):
        parameter.grad = part.view_as(parameter)
    optimizer.step()
