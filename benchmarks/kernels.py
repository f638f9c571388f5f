"""Each fast kernel timed beside its reference, on the same device, in the same minutes, after both were found equal.

Run `python benchmarks/kernels.py --device cpu --out FOLDER`; it writes kernels.json and kernels.md there.
The grid is that of `instant`: 8 levels of 2 features and at most 2^18 rows, the finest with 512 cells a side.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumifield import kernels
from lumifield.bench.compare import commit, machine
from lumifield.runs.run_folder import write_json
from lumifield.runtime.files import replacing

SAMPLES = (32_768, 262_144)
PER_RAY = 64
RESOLUTIONS = [16, 26, 43, 70, 115, 189, 311, 512]
ROWS, FEATURES = 2**18, 2
REPEATS, SECONDS = 9, 3.0  # runs of a pair, while these seconds last
TOLERANCE = 1e-3

Work = Callable[[], Tensor]


def kernel_table(device: torch.device) -> list[dict[str, Any]]:
    """One row a kernel, direction and size: milliseconds of the device's back end and of the reference, their ratio."""
    fast = kernels.live(device)
    if fast == "reference":
        raise RuntimeError(f"no back end but the reference serves {device}: there is nothing to compare")
    rows = []
    for samples in SAMPLES:
        for name, prepare in preparations(samples, device).items():
            with kernels.backend("reference"):
                slow_work = prepare()
            with kernels.backend(fast):
                work = prepare()
            row = {"kernel": name, "samples": samples, "backend": fast}
            rows.append(row | compared(work, slow_work, fast, device))
    return rows


def compared(work: Work, slow_work: Work, fast: kernels.Backend, device: torch.device) -> dict[str, float]:
    """Median milliseconds of both, run in turn, and by how much their results differ."""
    with kernels.backend("reference"):
        expected = slow_work().double()
    with kernels.backend(fast):
        difference = ((work().double() - expected).abs().max() / expected.abs().max()).item()
    if not difference < TOLERANCE:
        raise RuntimeError(f"the {fast} kernel differs from the reference by {difference}: its speed means nothing")
    begun, mine, slow = time.perf_counter(), [], []
    while not mine or (len(mine) < REPEATS and time.perf_counter() - begun < SECONDS):
        with kernels.backend(fast):
            mine.append(milliseconds(work, device))
        with kernels.backend("reference"):
            slow.append(milliseconds(slow_work, device))
    ms, reference_ms = statistics.median(mine), statistics.median(slow)
    ratio = reference_ms / ms
    return {
        "ms": ms,
        "reference_ms": reference_ms,
        "times_reference": ratio,
        "runs": len(mine),
        "difference": difference,
    }


def milliseconds(work: Work, device: torch.device) -> float:
    """Wall clock of one call, until the device has finished."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return 1e3 * (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    """Waits for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def preparations(samples: int, device: torch.device) -> dict[str, Callable[[], Work]]:
    """What is timed, by name. A preparation runs, untimed, what the timed part starts from."""
    generator = torch.Generator().manual_seed(0)
    rays = samples // PER_RAY
    offsets = torch.arange(rays + 1, device=device) * PER_RAY
    start, end = (torch.rand(rays, 1, 3, generator=generator) for _ in range(2))
    points = (start + (end - start) * torch.linspace(0, 1, PER_RAY)[:, None]).reshape(-1, 3).to(device).requires_grad_()
    levels = [min((resolution + 1) ** 3, ROWS) for resolution in RESOLUTIONS]
    first = [sum(levels[:count]) for count in range(len(levels) + 1)]
    table = torch.randn(first[-1], FEATURES, generator=generator).to(device).requires_grad_()
    thickness = (torch.rand(samples, generator=generator) * 0.1).to(device).requires_grad_()
    values = torch.rand(samples, 3, generator=generator).to(device).requires_grad_()
    inside = marching(rays, generator, device)

    def encode(at: Tensor = points) -> Tensor:
        return kernels.grid_encode(at, table, RESOLUTIONS, first)

    return {
        "grid_encode forward": lambda: encode,
        "grid_encode backward to table": lambda: backward(encode(points.detach()), table),
        "grid_encode backward to table and points": lambda: backward(encode(), table, points),
        "march": lambda: lambda: kernels.march(*inside, False, 1 / 256, 0.0)[3],
        "packed_weights forward": lambda: lambda: kernels.packed_weights(thickness, offsets),
        "packed_weights backward": lambda: backward(kernels.packed_weights(thickness, offsets), thickness),
        "segment_sum forward": lambda: lambda: kernels.segment_sum(values, offsets),
        "segment_sum backward": lambda: backward(kernels.segment_sum(values, offsets), values),
    }


def backward(output: Tensor, *inputs: Tensor) -> Work:
    """The backward pass alone; returns the gradient of the first input."""
    gradient = torch.linspace(-1, 1, output.numel(), device=output.device).reshape(output.shape)
    return lambda: torch.autograd.grad(output, inputs, gradient, retain_graph=True)[0]


def marching(rays: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, ...]:
    """Rays from a sphere through a box of 128^3 cells, of which a ball is occupied: about 64 intervals a ray."""
    origins = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=-1) * 2
    aims = (torch.rand(rays, 3, generator=generator) - 0.5) * 0.2
    directions = torch.nn.functional.normalize(aims - origins, dim=-1)
    side = (torch.arange(128) + 0.5) / 128 - 0.5
    z, y, x = torch.meshgrid(side, side, side, indexing="ij")
    occupied = x * x + y * y + z * z < 0.13**2
    zero, jitter = torch.zeros(rays), torch.rand(rays, generator=generator)
    box = torch.tensor([[-0.5] * 3, [0.5] * 3])
    return tuple(x.to(device) for x in (origins, directions, zero, zero + 4, jitter, occupied, box))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = ["| kernel | samples | back end | ms | reference ms | times the reference |", "| --- " * 6 + "|"]
    for row in rows:
        lines.append(
            f"| {row['kernel']} | {row['samples']:,} | {row['backend']} | {row['ms']:.3f} | {row['reference_ms']:.3f} "
            f"| {row['times_reference']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    device = torch.device(options.device)
    rows = kernel_table(device)
    write_json(options.out / "kernels.json", {"machine": machine(device), "commit": commit(), "kernels": rows})
    with replacing(options.out / "kernels.md") as temporary:
        temporary.write_text(f"Machine: {machine(device)}. Commit: {commit()}.\n\n{markdown(rows)}", encoding="utf-8")


if __name__ == "__main__":
    main()
