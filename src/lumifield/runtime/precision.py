"""bfloat16 for networks, if a short benchmark shows that the processor is faster with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from lumifield.environment import forced_bf16

GAIN = 1.2
"""Minimum speedup to use bfloat16, because it costs some accuracy."""
ROWS, WIDTH, TRIALS = 2048, 256, 5

Bf16 = Literal["auto", "on", "off"]


def autocast(device: torch.device, bf16: Bf16 = "auto") -> torch.autocast:
    """A context in which matrix products run in bfloat16, if requested or measured to be faster."""
    enabled = bf16 == "on" or (bf16 == "auto" and bf16_is_faster(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def bf16_is_faster(device: torch.device) -> bool:
    """Whether networks should run in bfloat16 on `device`; LUMIFIELD_BF16 (0 or 1) takes precedence."""
    forced = forced_bf16()
    if forced is not None:
        return forced
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and measure_on_cpu()


@cache
@torch.inference_mode(False)
def measure_on_cpu() -> bool:
    """Whether a linear layer and its gradient take less time in bfloat16; once per process, about 20 ms."""
    layer = nn.Linear(WIDTH, WIDTH)
    rows = torch.ones(ROWS, WIDTH)
    try:
        half = measure_shortest(lambda: layer_step(layer, rows, True))
    except RuntimeError:  # torch was built without bfloat16
        return False
    return half * GAIN < measure_shortest(lambda: layer_step(layer, rows, False))


def layer_step(layer: nn.Linear, rows: Tensor, half: bool) -> None:
    """One forward and backward pass of a linear layer."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        total = layer(rows).sum()
    torch.autograd.grad(total, list(layer.parameters()))


def measure_shortest(work: Callable[[], None]) -> float:
    """Shortest of several runs of `work`, after one warm-up run [s]."""
    work()
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
