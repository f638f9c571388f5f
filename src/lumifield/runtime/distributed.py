"""Processes started by torchrun: rank, world size, and exchange of small values."""

from __future__ import annotations

import atexit
import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist

from lumifield import environment
from lumifield.runtime import precision


def join() -> tuple[int, int]:
    """Joins the process group; returns rank and world size, 0 and 1 without torchrun.

    Afterwards all processes compute in the precision that the first one measures as faster.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        # Threads of the group that outlive the interpreter would end the process with an abort.
        atexit.register(dist.destroy_process_group)
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        else:  # benchmarks may differ between processes, which must compute alike
            os.environ[environment.BF16_VARIABLE] = str(gather(int(precision.bf16_is_faster(torch.device("cpu"))))[0])
    return (dist.get_rank(), world) if world > 1 else (0, 1)


def gather(value: Any) -> list[Any]:
    """The JSON-serializable values of all processes by rank; returns when every process has called it."""
    if not dist.is_initialized():
        return [value]
    encoded = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = list(torch.zeros(dist.get_world_size(), 1, dtype=torch.int64))
    dist.all_gather(lengths, torch.tensor([len(encoded)]))
    longest = max(map(int, lengths))
    received = [torch.empty(longest, dtype=torch.uint8) for _ in lengths]
    dist.all_gather(received, torch.cat([encoded, encoded.new_zeros(longest - len(encoded))]))
    return [json.loads(bytes(row[: int(length)].numpy())) for row, length in zip(received, lengths, strict=True)]


def mean_over_processes(values: torch.Tensor, world: int) -> list[float]:
    """Values averaged over all processes."""
    if world > 1:
        dist.all_reduce(values)
        values = values / world
    return values.tolist()


def sum_over_processes(count: int, world: int) -> int:
    """A count summed over all processes."""
    if world == 1:
        return count
    value = torch.tensor(count, dtype=torch.int64)
    dist.all_reduce(value)
    return int(value)


def broadcast_fraction(fraction: float, world: int) -> float:
    """The first process's value, so that all processes stop at the same step."""
    if world == 1:
        return fraction
    value = torch.tensor(fraction, dtype=torch.float64)
    dist.broadcast(value, 0)
    return float(value)


def leave() -> None:
    """Ends the process successfully once every process has called it, without tearing down the group.

    gloo now and then aborts in its teardown ("terminate called without an active exception").
    """
    gather(None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
