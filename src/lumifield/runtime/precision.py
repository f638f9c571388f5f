"""Where networks run in bfloat16: only where the processor is faster with it, which a short trial decides."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from lumifield.errors import DataError

VARIABLE = "LUMIFIELD_BF16"
GAIN = 1.2
"""bfloat16 costs some accuracy: it must be at least this many times as fast to be taken."""
ROWS, WIDTH, TRIALS = 2048, 256, 5

Bf16 = Literal["auto", "on", "off"]


def autocast(device: torch.device, bf16: Bf16 = "auto") -> torch.autocast:
    """A context in which matrix products run in bfloat16, where that is asked for or found to be faster."""
    enabled = bf16 == "on" or (bf16 == "auto" and bf16_is_faster(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def bf16_is_faster(device: torch.device) -> bool:
    """Whether networks should run in bfloat16 on `device`; the environment's LUMIFIELD_BF16 (0 or 1) decides first."""
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", "0", "1"):
        raise DataError(VARIABLE, "its value", repr(forced), "0 or 1", "unset it to let a trial decide")
    if forced:
        return forced == "1"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and trial_on_cpu()


@cache
@torch.inference_mode(False)
def trial_on_cpu() -> bool:
    """Whether a layer and its gradient take less time in bfloat16; once a process, some 20 ms."""
    layer = nn.Linear(WIDTH, WIDTH)
    rows = torch.ones(ROWS, WIDTH)
    try:
        half = shortest(lambda: layer_step(layer, rows, True))
    except RuntimeError:  # torch built without bfloat16 products
        return False
    return half * GAIN < shortest(lambda: layer_step(layer, rows, False))


def layer_step(layer: nn.Linear, rows: Tensor, half: bool) -> None:
    """One forward and backward pass of a layer."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        total = layer(rows).sum()
    torch.autograd.grad(total, list(layer.parameters()))


def shortest(work: Callable[[], None]) -> float:
    """The shortest of some runs of `work`, after one that is not counted [seconds]."""
    work()
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
