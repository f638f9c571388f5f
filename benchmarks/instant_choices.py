"""Why grid and network of `instant` are as they are: one choice changed at a time, equal seconds of training for all.

Run `python benchmarks/instant_choices.py SCENE --downscale 2 --seconds 60` alone on the machine; it writes
instant_choices.json and .md, anew after each training. PSNR is that of validation views, which no training sees.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro

from lumifield.bench.benchmark import (
    COLD_STEPS,
    VALIDATION_VIEWS,
    ValidationCurve,
    initialize_training,
    train_uniformly,
)
from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import Source, read_scene
from lumifield.data.scene import Scene
from lumifield.methods import Instant
from lumifield.runs.state import Budget
from lumifield.runtime.files import replacing, write_json

CHOICES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "4 levels": {"num_levels": 4},
    "16 levels": {"num_levels": 16},
    "4 features a level": {"features_per_level": 4},
    "4 levels of 4 features": {"num_levels": 4, "features_per_level": 4},
    "2^16 corners a level": {"log2_hashmap_size": 16},
    "2^20 corners a level": {"log2_hashmap_size": 20},
    "finest level of 256 cells": {"max_resolution": 256},
    "networks 32 wide": {"hidden_dim": 32},
    "networks 128 wide": {"hidden_dim": 128},
    "8,192 samples a step": {"samples_per_step": 8192},
    "32,768 samples a step": {"samples_per_step": 32768},
}

RESULTS = Path(__file__).with_name("results")


def train_and_measure(settings: Instant, train: Scene, views: Scene, seconds: float, seed: int) -> dict[str, Any]:
    """Steps, rays and validation PSNR after some seconds, once the kernels for these settings are compiled."""
    train_uniformly(initialize_training(settings, train, seed), train, Budget(steps=COLD_STEPS))
    state = initialize_training(settings, train, seed)
    train_uniformly(state, train, Budget(seconds=seconds))
    parameters = sum(parameter.numel() for parameter in state.method.parameters())
    return {
        "parameters": parameters,
        "steps": state.step,
        "rays": state.rays,
        "psnr": ValidationCurve(views).validate(state),
    }


def format_table(result: dict[str, Any]) -> str:
    """The rows beside the first one."""
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. Data: {result['data']}, images at "
        f"1/{result['downscale']}; {result['seconds']:g} s of training each, seed {result['seed']}; PSNR over "
        f"{VALIDATION_VIEWS} validation views.",
        "",
        "| changed | parameters | steps | rays / s | PSNR [dB] | beside the first |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        speed = row["rays"] / result["seconds"]
        lines.append(
            f"| {row['choice']} | {row['parameters']:,} | {row['steps']} | {speed:,.0f} | {row['psnr']:.2f} "
            f"| {row['psnr'] - result['rows'][0]['psnr']:+.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(
    scene: tyro.conf.Positional[Path],
    downscale: int = 1,
    seconds: float = 60.0,
    seed: int = 0,
    out: Path = RESULTS,
) -> None:
    """Trains every choice and prints the table."""
    source = Source(scene, downscale=downscale)
    train, views = read_scene(source, "train"), read_scene(source, "val", max_images=VALIDATION_VIEWS)
    result: dict[str, Any] = {
        "machine": describe_machine(torch.device("cpu")),
        "commit": current_commit(),
        "data": scene.name,
    }
    result |= {"downscale": downscale, "seconds": seconds, "seed": seed, "rows": []}
    for choice, changed in CHOICES.items():
        row = train_and_measure(replace(Instant(), **changed), train, views, seconds, seed)
        result["rows"].append({"choice": choice, **changed, **row})
        write_json(out / "instant_choices.json", result)
        with replacing(out / "instant_choices.md") as temporary:
            temporary.write_text(format_table(result), encoding="utf-8")
    print(format_table(result))


if __name__ == "__main__":
    tyro.cli(main)
