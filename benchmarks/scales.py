"""Evaluated runs beside each other, size by size, like the table of multiscale scenes in mip-NeRF (table 1).

Run `python benchmarks/scales.py RUN [RUN ...]` after `lumifield eval` of each; it writes scales.json and scales.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.runs.run_folder import read_config
from lumifield.runtime.files import replacing, write_json

SCORES = {"psnr": ".2f", "ssim": ".3f"}


def read_row(run: Path) -> dict[str, Any]:
    """What a run's configuration and scores say; the mean is over the sizes, as in the paper."""
    config = read_config(run)
    metrics = json.loads((run / "eval" / "test" / "metrics.json").read_text(encoding="utf-8"))
    scales = metrics["per_scale"]
    return {
        "run": run.name,
        "method": metrics["method"],
        "anti_alias": getattr(config.method, "anti_alias", None),
        "data": Path(metrics["data"]).name,
        "train_seconds": metrics["train_seconds"],
        "seconds_per_step": metrics["train_seconds"] / max(metrics["train_steps"], 1),
        "n_images": metrics["n_images"],
        **{name: {size: of[name] for size, of in scales.items()} for name in SCORES},
        "mean": {name: mean(of[name] for of in scales.values()) for name in SCORES},
    }


def format_table(result: dict[str, Any]) -> str:
    """A row for each run: PSNR [dB] and SSIM at each size, largest first."""
    rows: list[dict[str, Any]] = result["rows"]
    sizes = sorted({size for row in rows for size in row["psnr"]}, key=lambda size: -int(size.split("x")[0]))
    heads = [f"{name} {size}" for name in SCORES for size in (*sizes, "mean")]
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. Test images; PSNR in dB.",
        "",
        f"| run | seconds | ms per step | {' | '.join(heads)} |",
        "| --- " * (len(heads) + 3) + "|",
    ]
    for each in rows:
        cells = [f"{each['train_seconds']:.0f}", f"{1e3 * each['seconds_per_step']:.1f}"]
        for name, form in SCORES.items():
            cells += [f"{each[name][size]:{form}}" if size in each[name] else "" for size in sizes]
            cells.append(f"{each['mean'][name]:{form}}")
        lines.append(f"| {each['run']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of evaluated runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the results")
    options = parser.parse_args()
    result = {
        "machine": describe_machine(torch.device("cpu")),
        "commit": current_commit(),
        "rows": [read_row(run) for run in options.runs],
    }
    write_json(options.out / "scales.json", result)
    with replacing(options.out / "scales.md") as temporary:
        temporary.write_text(format_table(result), encoding="utf-8")
    print(format_table(result))


if __name__ == "__main__":
    main()
