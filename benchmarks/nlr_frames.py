"""How soon a run of `nlr` shows a view from its triangles and kept features, beside traced rays.

Run `python benchmarks/nlr_frames.py RUN`; it writes nlr_frames.json and .md. Views of the test split, one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.rendering.view import RenderedView, render_view
from lumifield.runs.run_folder import LoadedRun, read_run, write_json
from lumifield.runtime.files import replacing
from lumifield.runtime.image_metrics import psnr

VIEWS, ROUNDS = 6, 3
EDGE = 3
"""Pixels about a silhouette that do not count as its inside."""


def render_frame(run: LoadedRun, index: int, *, fast_preview: bool) -> RenderedView:
    """One view of the test split."""
    return render_view(run.method, run.scenes["test"], index, device=run.device, fast_preview=fast_preview)


def inner_error(traced: RenderedView, fast_preview: RenderedView) -> tuple[float, float]:
    """Mean squared difference inside both silhouettes, and the share of pixels there that differ by over 1/255."""
    both = (traced.hit_mask & fast_preview.hit_mask)[None].float()
    inside = -torch.nn.functional.max_pool2d(-both, 2 * EDGE + 1, 1, EDGE)[0] > 0.5
    difference = (traced.rgb - fast_preview.rgb)[inside]
    return float(difference.square().mean()), float((difference.abs().amax(-1) > 1 / 255).float().mean())


def measure_frames(run: LoadedRun) -> dict[str, Any]:
    """Milliseconds of a view both ways, in turn, and how far they agree; seconds until the first quick view."""
    run.method.eval()
    scene = run.scenes["test"]
    views = range(0, len(scene), max(1, len(scene) // VIEWS))
    render_frame(run, 0, fast_preview=False)  # what both keep, and what is compiled, counts for neither
    begun = time.perf_counter()
    render_frame(run, 0, fast_preview=True)
    first = time.perf_counter() - begun
    pairs = [
        [render_frame(run, index, fast_preview=fast_preview) for fast_preview in (False, True)]
        for _ in range(ROUNDS)
        for index in views
    ]
    errors = [inner_error(*pair) for pair in pairs]
    edges = [float((traced.opacity != fast_preview.opacity).float().mean()) for traced, fast_preview in pairs]
    traced, fast_preview = (float(np.median([1000 * pair[way].seconds for pair in pairs])) for way in (0, 1))
    return {
        "image": "x".join(map(str, scene.size(0))),
        "traced_ms": traced,
        "quick_ms": fast_preview,
        "ratio": float(np.median([pair[0].seconds / pair[1].seconds for pair in pairs])),
        "first_seconds": first,
        "inner_psnr": psnr(float(np.mean([error for error, _ in errors]))),
        "inner_pixels_differ": float(np.mean([share for _, share in errors])),
        "silhouette_differs": float(np.mean(edges)),
    }


def format_table(row: dict[str, Any], about: str) -> str:
    """The result as Markdown."""
    return "\n".join(
        [
            about,
            "",
            "| image | sphere tracing [ms] | mesh proxy [ms] | ratio | first view [s] | PSNR between both, inside [dB] "
            "| inner pixels that differ by more than 1/255 | pixels with a different silhouette |",
            "| --- |" + " ---: |" * 7,
            f"| {row['image']} | {row['traced_ms']:.0f} | {row['quick_ms']:.0f} | {row['ratio']:.1f} "
            f"| {row['first_seconds']:.1f} | {row['inner_psnr']:.1f} | {row['inner_pixels_differ']:.2%} "
            f"| {row['silhouette_differs']:.2%} |",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    row = measure_frames(read_run(options.run))
    where = f"{describe_machine(torch.device('cpu'))}, 1 thread, commit {current_commit()}, run {options.run.name}"
    write_json(options.out / "nlr_frames.json", {"machine": where, **row})
    with replacing(options.out / "nlr_frames.md") as temporary:
        temporary.write_text(format_table(row, where), encoding="utf-8")
    print(format_table(row, where))


if __name__ == "__main__":
    main()
