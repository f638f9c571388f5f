"""Times each fast kernel against its reference on the same device, interleaved, after checking that both are equal.

`python -m lumifield.bench.kernel_timings --device cpu --out FOLDER` writes kernels.json and kernels.md to FOLDER.
The hash grid is that of `instant`: 8 levels of 2 features, at most 2^18 entries per level, finest resolution 512.
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
from lumifield.bench.machine import current_commit, describe_machine
from lumifield.runtime.files import replacing, write_json

SAMPLES = (32_768, 262_144)
PER_RAY = 64
RESOLUTIONS = [16, 26, 43, 70, 115, 189, 311, 512]
ROWS, FEATURES = 2**18, 2
REPEATS, SECONDS = 9, 3.0  # runs of a pair, while these seconds last
TOLERANCE = 1e-3

Work = Callable[[], Tensor]


def time_kernels(device: torch.device) -> list[dict[str, Any]]:
    """One row per kernel, direction and size: milliseconds of the fast backend and the reference, and their ratio."""
    fast = kernels.live(device)
    if fast == "reference":
        raise RuntimeError(f"only the reference kernels run on {device}: there is nothing to compare")
    rows = []
    for samples in SAMPLES:
        for name, prepare in preparations(samples, device).items():
            with kernels.backend("reference"):
                slow_work = prepare()
            with kernels.backend(fast):
                work = prepare()
            row = {"kernel": name, "samples": samples, "backend": fast}
            rows.append(row | time_pair(work, slow_work, fast, device))
    return rows


def time_pair(work: Work, slow_work: Work, fast: kernels.Backend, device: torch.device) -> dict[str, float]:
    """Median milliseconds of both, run alternately, and the relative difference of their results."""
    with kernels.backend("reference"):
        expected = slow_work().double()
    with kernels.backend(fast):
        difference = ((work().double() - expected).abs().max() / expected.abs().max()).item()
    if not difference < TOLERANCE:
        raise RuntimeError(f"the {fast} kernel differs from the reference by {difference}: its speed is meaningless")
    start, mine, slow = time.perf_counter(), [], []
    while not mine or (len(mine) < REPEATS and time.perf_counter() - start < SECONDS):
        with kernels.backend(fast):
            mine.append(milliseconds(work, device))
        with kernels.backend("reference"):
            slow.append(milliseconds(slow_work, device))
    ms, reference_ms = statistics.median(mine), statistics.median(slow)
    ratio = reference_ms / ms
    return {
        "ms": ms,
        "reference_ms": reference_ms,
        "speedup": ratio,
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
    """Waits for launched kernels."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def preparations(samples: int, device: torch.device) -> dict[str, Callable[[], Work]]:
    """Functions by name that prepare, outside of the timing, the work to time."""
    generator = torch.Generator().manual_seed(0)
    rays = samples // PER_RAY
    offsets = torch.arange(rays + 1, device=device) * PER_RAY
    start, end = (torch.rand(rays, 1, 3, generator=generator) for _ in range(2))
    points = (start + (end - start) * torch.linspace(0, 1, PER_RAY)[:, None]).reshape(-1, 3).to(device).requires_grad_()
    levels = [min((resolution + 1) ** 3, ROWS) for resolution in RESOLUTIONS]
    first = [sum(levels[:count]) for count in range(len(levels) + 1)]
    table = torch.randn(first[-1], FEATURES, generator=generator).to(device).requires_grad_()
    optical_depth = (torch.rand(samples, generator=generator) * 0.1).to(device).requires_grad_()
    values = torch.rand(samples, 3, generator=generator).to(device).requires_grad_()
    inside = marching(rays, generator, device)

    def encode(at: Tensor = points) -> Tensor:
        return kernels.grid_encode(at, table, RESOLUTIONS, first)

    return {
        "grid_encode forward": lambda: encode,
        "grid_encode backward to table": lambda: backward(encode(points.detach()), table),
        "grid_encode backward to table and points": lambda: backward(encode(), table, points),
        "march": lambda: lambda: kernels.march(*inside, contracted=False, step=1 / 256, cone=0.0)[3],
        "packed_weights forward": lambda: lambda: kernels.packed_weights(optical_depth, offsets),
        "packed_weights backward": lambda: backward(kernels.packed_weights(optical_depth, offsets), optical_depth),
        "segment_sum forward": lambda: lambda: kernels.segment_sum(values, offsets),
        "segment_sum backward": lambda: backward(kernels.segment_sum(values, offsets), values),
    }


def backward(output: Tensor, *inputs: Tensor) -> Work:
    """The backward pass alone; returns the gradient of the first input."""
    gradient = torch.linspace(-1, 1, output.numel(), device=output.device).reshape(output.shape)
    return lambda: torch.autograd.grad(output, inputs, gradient, retain_graph=True)[0]


def marching(rays: int, generator: torch.Generator, device: torch.device) -> Any:
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


def format_timings(rows: list[dict[str, Any]]) -> str:
    """The timings as a Markdown table."""
    lines = ["| kernel | samples | backend | ms | reference ms | speedup |", "| --- " * 6 + "|"]
    for row in rows:
        lines.append(
            f"| {row['kernel']} | {row['samples']:,} | {row['backend']} | {row['ms']:.3f} | {row['reference_ms']:.3f} "
            f"| {row['speedup']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    device = torch.device(options.device)
    rows = time_kernels(device)
    machine, commit = describe_machine(device), current_commit()
    write_json(options.out / "kernels.json", {"machine": machine, "commit": commit, "kernels": rows})
    with replacing(options.out / "kernels.md") as temporary:
        text = f"Machine: {machine}. Commit: {commit}.\n\n{format_timings(rows)}"
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
