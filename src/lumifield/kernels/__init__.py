"""Operators of the hot path, with one signature each and three backends that agree with each other.

`reference` (PyTorch, any device) is the definition, `numba` runs on CPUs, `triton` on CUDA. The backend is chosen by
the device; `LUMIFIELD_KERNELS` or `backend(name)` forces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from lumifield.environment import KERNELS_VARIABLE, Backend, forced_kernels
from lumifield.errors import DataError
from lumifield.kernels import reference

_forced: list[Backend] = []


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Forces a backend inside the block."""
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


@cache
def _module(name: str) -> ModuleType | str:
    """Module of a backend, or the reason why it is unavailable."""
    try:
        if name == "numba":
            from lumifield.kernels import numba_backend

            return numba_backend
        from lumifield.kernels import triton_backend

        return triton_backend
    except ImportError as missing:
        return f"{missing}"


def live(device: torch.device | str) -> Backend:
    """Backend in use on a device; raises `DataError` if the environment forces an unknown one."""
    forced = _forced[-1] if _forced else forced_kernels()
    if forced is not None:
        return forced
    fast = {"cpu": "numba", "cuda": "triton"}.get(torch.device(device).type, "reference")
    return fast if fast == "reference" or isinstance(_module(fast), ModuleType) else "reference"  # type: ignore[return-value]


def available() -> dict[str, str]:
    """Each backend, and whether it is available, in words."""
    states = {"reference": "ready"}
    for name in ("numba", "triton"):
        module = _module(name)
        states[name] = f"missing: {module}" if isinstance(module, str) else "ready"
    if states["triton"] == "ready" and not torch.cuda.is_available():
        states["triton"] = "installed, no CUDA device"
    if states["numba"] == "ready":
        states["numba"] = _implementation("numba").cache_state()
    return states


def _implementation(name: str) -> ModuleType:
    module = _module(name)
    if isinstance(module, str):
        found = f"{name}, which is unavailable here ({module})"
        raise DataError(KERNELS_VARIABLE, "backend", found, "an available backend", "unset it")
    return module


def _fast(device: torch.device) -> ModuleType:
    return _implementation(live(device))


def grid_encode(points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int]) -> Tensor:
    """Trilinear features of all levels at points in [0, 1]^3; see `reference.grid_encode`."""
    if live(points.device) == "reference":
        return reference.grid_encode(points, table, resolutions, offsets)
    return _grid_encode(points, table, resolutions, offsets)


def packed_weights(optical_depth: Tensor, offsets: Tensor) -> Tensor:
    """Rendering weights of packed samples; see `reference.packed_weights`."""
    if live(optical_depth.device) == "reference":
        return reference.packed_weights(optical_depth, offsets)
    return _packed_weights(optical_depth, offsets)


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Sums over the samples of each ray; see `reference.segment_sum`."""
    if live(values.device) == "reference":
        return reference.segment_sum(values, offsets)
    return _segment_sum(values, offsets)


def march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    occupied: Tensor,
    box: Tensor,
    contracted: bool,
    step: float,
    cone: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Occupied intervals of each ray, packed; see `reference.march`. Not differentiable."""
    module = reference if live(origins.device) == "reference" else _fast(origins.device)
    with torch.no_grad():
        return module.march(origins, directions, near, far, jitter, occupied, box, contracted, step, cone)


@torch.library.custom_op("lumifield::grid_encode", mutates_args=())
def _grid_encode(points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int]) -> Tensor:
    return _fast(points.device).grid_encode_forward(points, table, resolutions, offsets)


@_grid_encode.register_fake
def _(points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int]) -> Tensor:
    return points.new_empty(points.shape[0], len(resolutions) * table.shape[1])


@torch.library.custom_op("lumifield::grid_encode_backward", mutates_args=())
def _grid_encode_backward(
    gradient: Tensor, points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int], with_points: bool
) -> tuple[Tensor, Tensor]:
    module = _fast(points.device)
    d_points, d_table = module.grid_encode_backward(gradient, points, table, resolutions, offsets, with_points)
    return points.new_empty(0) if d_points is None else d_points, d_table


@_grid_encode_backward.register_fake
def _(
    gradient: Tensor, points: Tensor, table: Tensor, resolutions: list[int], offsets: list[int], with_points: bool
) -> tuple[Tensor, Tensor]:
    return points.new_empty(points.shape if with_points else 0), table.new_empty(table.shape)


def _grid_encode_setup(ctx, inputs, output) -> None:
    points, table, ctx.resolutions, ctx.offsets = inputs
    ctx.save_for_backward(points, table)


def _grid_encode_gradient(ctx, gradient: Tensor):
    points, table = ctx.saved_tensors
    with_points = ctx.needs_input_grad[0]
    d_points, d_table = _grid_encode_backward(gradient, points, table, ctx.resolutions, ctx.offsets, with_points)
    return d_points if with_points else None, d_table, None, None


_grid_encode.register_autograd(_grid_encode_gradient, setup_context=_grid_encode_setup)


@torch.library.custom_op("lumifield::packed_weights", mutates_args=())
def _packed_weights(optical_depth: Tensor, offsets: Tensor) -> Tensor:
    return _fast(optical_depth.device).packed_weights_forward(optical_depth, offsets)


@_packed_weights.register_fake
def _(optical_depth: Tensor, offsets: Tensor) -> Tensor:
    return torch.empty_like(optical_depth)


@torch.library.custom_op("lumifield::packed_weights_backward", mutates_args=())
def _packed_weights_backward(gradient: Tensor, optical_depth: Tensor, offsets: Tensor) -> Tensor:
    return _fast(optical_depth.device).packed_weights_backward(gradient, optical_depth, offsets)


@_packed_weights_backward.register_fake
def _(gradient: Tensor, optical_depth: Tensor, offsets: Tensor) -> Tensor:
    return optical_depth.new_empty(optical_depth.shape)


def _save_inputs(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _packed_weights_gradient(ctx, gradient: Tensor):
    return _packed_weights_backward(gradient, *ctx.saved_tensors), None


_packed_weights.register_autograd(_packed_weights_gradient, setup_context=_save_inputs)


@torch.library.custom_op("lumifield::segment_sum", mutates_args=())
def _segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    return _fast(values.device).segment_sum_forward(values, offsets)


@_segment_sum.register_fake
def _(values: Tensor, offsets: Tensor) -> Tensor:
    return values.new_empty(offsets.shape[0] - 1, values.shape[1])


@torch.library.custom_op("lumifield::segment_sum_backward", mutates_args=())
def _segment_sum_backward(gradient: Tensor, offsets: Tensor, samples: int) -> Tensor:
    return _fast(gradient.device).segment_sum_backward(gradient, offsets, samples)


@_segment_sum_backward.register_fake
def _(gradient: Tensor, offsets: Tensor, samples: int) -> Tensor:
    return gradient.new_empty(samples, gradient.shape[1])


def _segment_sum_setup(ctx, inputs, output) -> None:
    values, offsets = inputs
    ctx.samples = values.shape[0]
    ctx.save_for_backward(offsets)


def _segment_sum_gradient(ctx, gradient: Tensor):
    return _segment_sum_backward(gradient, *ctx.saved_tensors, ctx.samples), None


_segment_sum.register_autograd(_segment_sum_gradient, setup_context=_segment_sum_setup)
