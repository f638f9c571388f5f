"""The recipes of LENS run on tiny scenes, with the constants of the original."""

import os
import subprocess
from pathlib import Path

import pytest
import tyro

import made_reconstructions as sfm
import made_scenes as made
from lumifield import data
from lumifield.cli import main
from lumifield.data import Source
from lumifield.localization import Density, Select, Synthesize

ROOT = Path(__file__).parents[3]
TINY = {
    "train": "--steps 2 --downscale 1 --grid-num-levels 2 --grid-log2-hashmap-size 8 --grid-hidden-dim 4 "
    "--grid-occupancy-resolution 8 "
    "--grid-samples-per-step 64 --bf16 off --device cpu",
    "density": "--num-cells 300 --density-threshold 1e9",
    "select": "--num-views 3 --min-clearance 0.1 --max-camera-distance 3",
    "synthesize": "--size 8 6",
}
STATED = {
    "lens_cambridge.sh": (
        Density(num_cells=4_000_000, margin=2.1),
        Select(num_views=4000, min_clearance=2.0, max_camera_distance=6.0, rotation_range=9.0),
        Synthesize(),
    ),
    "lens_seven_scenes.sh": (
        Density(margin=0.25),
        Select(num_views=4000, min_clearance=0.15, max_camera_distance=0.15, rotation_range=9.0),
        Synthesize(),
    ),
}


def commands(recipe, folder, *given):
    """The words of each call of `lumifield` in a recipe."""
    program = folder / "bin" / "lumifield"
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" ""\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    words = [str(word) for word in (ROOT / "recipes" / recipe, *given)]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    return [call.splitlines() for call in said.strip().split("\n\n")]


@pytest.mark.parametrize("recipe", STATED)
def test_a_recipe_states_the_published_settings(recipe, tmp_path):
    train, *steps = commands(recipe, tmp_path, "data", "run", "--minutes", "1")
    config = (tyro.conf.CascadeSubcommandArgs,)
    training = tyro.cli(main.Command, args=train, config=config)
    assert (training.source.downscale, training.train.minutes) == (3 if "cambridge" in recipe else 2, 1.0)
    assert type(training.method).__name__ == "NerfW"
    assert tuple(tyro.cli(main.Command, args=step, config=config).kind for step in steps) == STATED[recipe]


@pytest.mark.parametrize("recipe", STATED)
def test_a_recipe_leaves_a_sequence(recipe, tmp_path):
    poses = made.ring(6)
    layout = sfm.cambridge if "cambridge" in recipe else sfm.seven_scenes
    scene = layout(tmp_path / "scene", poses)
    train, *steps = commands(recipe, tmp_path, scene, tmp_path / "run")
    main.main([*train, *TINY["train"].split()])
    for step in steps:
        main.main([*step, *TINY[step[1]].split()])
    assert len(data.open_capture(Source(tmp_path / "run/localize/sequence")).cameras("synthesis")) == 3
