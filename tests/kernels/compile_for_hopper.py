"""Compiles every Triton kernel, as the back end launches it, to machine code of a Hopper GPU; needs no GPU.

Run as a process of its own, where Triton does not interpret. Prints what was compiled as JSON.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import triton
from loops import OFFSETS, RESOLUTIONS, packed
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lumifield.kernels import triton_backend

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {torch.float32: "*fp32", torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8"}
compiled: list[dict[str, Any]] = []


def type_of(argument: object) -> str:
    """How the launcher would type an argument: the number one becomes a constant."""
    if isinstance(argument, Tensor):
        return TYPES[argument.dtype]
    if isinstance(argument, float):
        return "fp32"
    return "constexpr" if argument == 1 else "i32"


def compile_instead(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Takes the place of the launch."""
    options = {"num_warps": constants.pop("num_warps"), "enable_fp_fusion": False}
    named = dict(zip(kernel.arg_names, arguments, strict=False))
    signature = {name: type_of(value) for name, value in named.items()} | dict.fromkeys(constants, "constexpr")
    ones = {name: value for name, value in named.items() if signature[name] == "constexpr"}
    source = ASTSource(kernel, signature, constants | ones)
    binary = triton.compile(source, target=HOPPER, options=options)
    compiled.append({"kernel": kernel.__name__, "bytes": len(binary.asm["cubin"]), "shared": binary.metadata.shared})
    if constants.get("FILL") is False:
        named["ends"][1:] = 1  # so that the march has intervals to fill


def march(n: int, contracted: bool, side: int) -> None:
    """Both passes of the march."""
    rays = torch.zeros(n, 3), torch.ones(n, 3), torch.zeros(n), torch.ones(n), torch.zeros(n)
    space = torch.ones(side, side, side, dtype=torch.bool), torch.tensor([[-1.0] * 3, [1.0] * 3])
    triton_backend.march(*rays, *space, contracted, 1, 0)


triton_backend._launch = compile_instead
for n, features, levels in ((100, 2, 4), (1, 3, 1)):
    points, table, levels = torch.zeros(n, 3), torch.zeros(OFFSETS[-1], features), slice(0, levels)
    offsets = OFFSETS[: len(RESOLUTIONS[levels]) + 1]
    encoded = triton_backend.grid_encode_forward(points, table, RESOLUTIONS[levels], offsets)
    triton_backend.grid_encode_backward(encoded, points, table, RESOLUTIONS[levels], offsets, True)
march(100, False, 8)
march(1, True, 1)
optical_depth = torch.ones(100)
triton_backend.packed_weights_forward(optical_depth, packed(100))
triton_backend.packed_weights_backward(optical_depth, optical_depth, packed(100))
triton_backend.segment_sum_forward(torch.ones(100, 3), packed(100))
triton_backend.segment_sum_backward(torch.ones(5, 3), packed(100), 100)
print(json.dumps(compiled))
