"""`mip-nerf`, its ablations and `nerf` learn one still life at four sizes from the same rays, and are judged at each.

Run `python benchmarks/mip_nerf_scales.py --steps 4000`; it writes mip_nerf_scales.json and .md, anew after each
training, and goes on where it was stopped if asked for the same at the same commit. Images are 64, 32, 16 and 8
pixels wide, over white. All ask their networks, of equal width, equally often.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import Source, read_scene
from lumifield.data.scene import Scene, sample_batch
from lumifield.methods import MipNerf, Nerf, Settings
from lumifield.optim import Schedule
from lumifield.optim.optimizers import build_optimizer
from lumifield.rendering.view import render_view, view_psnr
from lumifield.runs.state import Budget
from lumifield.runtime.files import replacing, write_json
from lumifield.runtime.rng import Rng
from lumifield.synthetic import StillLife, synthesize_data
from lumifield.training.fit import TrainingState, fit

CPU = torch.device("cpu")
WITHOUT_AREA_LOSS = "mip-nerf without area loss"
SIZE, TEST_VIEWS, SAMPLES = 64, 8, 64


def methods_to_compare(width: int, rays: int) -> dict[str, Settings]:
    """Every method with networks of one width, asked 2 SAMPLES times a ray, at the same learning rates."""
    schedule = Schedule(kind="exponential", gamma=0.1, warmup_steps=100)
    mip = MipNerf(num_samples=SAMPLES, hidden_dim=width, batch_size=rays, schedule=schedule)
    half = SAMPLES // 2
    return {
        "mip-nerf": mip,
        "mip-nerf without integrated encoding": replace(mip, integrated_encoding=False),
        WITHOUT_AREA_LOSS: mip,
        "mip-nerf without viewing directions": replace(mip, viewdirs=False),
        "mip-nerf, feature grid": replace(mip, backbone="grid"),
        "nerf": Nerf(
            num_samples=SAMPLES - half // 2, num_fine_samples=half, hidden_dim=width, batch_size=rays, schedule=schedule
        ),
    }


def train_method(settings: Settings, train: Scene, steps: int, seed: int) -> TrainingState:
    """A method after some steps."""
    torch.manual_seed(seed)
    method = settings.build(train)
    optimizer = build_optimizer(settings.optimizer, method.param_groups())
    state = TrainingState(method, optimizer, Rng(torch.Generator().manual_seed(seed)))
    return fit(state, lambda rays, rng: sample_batch(train, rays, rng), Budget(steps), settings.schedule)


def score_scales(state: TrainingState, test: Scene) -> dict[str, float]:
    """Mean PSNR of the images of each width [dB]."""
    state.method.eval()
    found: dict[str, list[float]] = {}
    for index in range(len(test)):
        psnr = view_psnr(render_view(state.method, test, index, device=CPU), test, index)
        if psnr is not None:
            found.setdefault(str(test.size(index)[0]), []).append(psnr)
    return {width: mean(values) for width, values in found.items()}


def format_table(result: dict[str, Any]) -> str:
    """Means over the seeds as a table."""
    rows: list[dict[str, Any]] = result["rows"]
    widths = list(rows[0]["psnr"])
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. A still life at widths {', '.join(widths)}, "
        f"{result['steps']} steps of {result['rays']} rays, networks {result['width']} wide, {TEST_VIEWS} held-out "
        f"views, PSNR in dB, means over the seeds {sorted({row['seed'] for row in rows})}.",
        "",
        f"| method | {' | '.join(widths)} | mean of sizes |",
        "| --- " * (len(widths) + 2) + "|",
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        each = [mean(row["psnr"][width] for row in own) for width in widths]
        cells = [f"{value:.2f}" for value in (*each, mean(each))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_results(result: dict[str, Any], out: Path) -> None:
    """Both files, as far as the rows go."""
    write_json(out / "mip_nerf_scales.json", result)
    with replacing(out / "mip_nerf_scales.md") as temporary:
        temporary.write_text(format_table(result), encoding="utf-8")


def load_partial_result(asked: dict[str, Any], out: Path) -> dict[str, Any]:
    """What has been measured of what is asked for."""
    file = out / "mip_nerf_scales.json"
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    same = all(earlier.get(key) == value for key, value in asked.items())
    return earlier if same else asked | {"rows": []}


def main() -> None:
    names = list(methods_to_compare(8, 8))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000, help="training steps of each")
    parser.add_argument("--rays", type=int, default=256, help="rays a step")
    parser.add_argument("--width", type=int, default=64, help="width of all networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training of each method a seed")
    parser.add_argument("--methods", nargs="+", choices=names, default=names, help="which to train")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Source(Path(folder) / "still_life", background="white")
        settings = StillLife(image_width=SIZE, num_test=TEST_VIEWS, ground_truth=False, format="multicam")
        synthesize_data(settings, source.data)
        train, test = read_scene(source, "train"), read_scene(source, "test")
    asked = {"machine": describe_machine(CPU), "commit": current_commit(), "steps": options.steps}
    result = load_partial_result(asked | {"rays": options.rays, "width": options.width}, options.out)
    done = {(row["method"], row["seed"]) for row in result["rows"]}
    for seed in options.seeds:
        for name in (name for name in options.methods if (name, seed) not in done):
            start = time.perf_counter()
            shown = replace(train, loss_weight=None) if name == WITHOUT_AREA_LOSS else train
            state = train_method(methods_to_compare(options.width, options.rays)[name], shown, options.steps, seed)
            row = {"method": name, "seed": seed, "seconds": time.perf_counter() - start}
            result["rows"].append(row | {"psnr": score_scales(state, test)})
            write_results(result, options.out)
    print(format_table(result))


if __name__ == "__main__":
    main()
