"""The processes that torchrun has started: which of them this one is, and what they tell each other."""

from __future__ import annotations

import atexit
import json
import os
from typing import Any

import torch
import torch.distributed as dist

from lumifield.runtime import precision


def join() -> tuple[int, int]:
    """Rank and number of the processes, joined; 0 and 1 without torchrun.

    From then on all compute in the precision that the first one finds faster.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        # Threads of the group that outlive the interpreter would end the process with an abort.
        atexit.register(dist.destroy_process_group)
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        else:  # trials of speed may end differently, and the processes are to compute alike
            os.environ[precision.VARIABLE] = str(gather(int(precision.bf16_is_faster(torch.device("cpu"))))[0])
    return (dist.get_rank(), world) if world > 1 else (0, 1)


def gather(value: Any) -> list[Any]:
    """What each process has to say (all that JSON can hold), by rank; returns when every one has said it."""
    if not dist.is_initialized():
        return [value]
    said = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = list(torch.zeros(dist.get_world_size(), 1, dtype=torch.int64))
    dist.all_gather(lengths, torch.tensor([len(said)]))
    longest = max(map(int, lengths))
    heard = [torch.empty(longest, dtype=torch.uint8) for _ in lengths]
    dist.all_gather(heard, torch.cat([said, said.new_zeros(longest - len(said))]))
    return [json.loads(bytes(row[: int(length)].numpy())) for row, length in zip(heard, lengths, strict=True)]
