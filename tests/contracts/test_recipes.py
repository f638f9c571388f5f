"""The recipes and the examples run: a few steps on a tiny scene."""

import os
import runpy
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lumifield.cli import main
from lumifield.meta import MetaTrain
from lumifield.methods import method_name
from lumifield.optim.optimizers import learning_rate_factor
from lumifield.runs.run_folder import read_run
from lumifield.synthetic import ObjectCaptures, StillLife, synthesize_data
from lumifield.synthetic.multiscale import write_multiscale_scene
from made_collections import balls

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RECIPES = sorted(recipe for recipe in (ROOT / "recipes").glob("*.sh") if not recipe.name.startswith("lens"))
TINY = {
    "nerf-w": "--steps 3 --batch-size 16 --hidden-dim 8 --num-samples 4 --num-fine-samples 4 --downscale 1 "
    "--bf16 off --device cpu "
    "--grid-samples-per-step 512 --grid-occupancy-resolution 16",
    "nerf": "--steps 3 --batch-size 16 --hidden-dim 8 --num-samples 4 --num-fine-samples 4 --downscale 1 --bf16 "
    "off --device cpu",
    "mip-nerf": "--steps 3 --batch-size 16 --hidden-dim 8 --num-samples 4 --downscale 1 --bf16 off --device cpu",
    "instant": "--steps 3 --samples-per-step 512 --occupancy-resolution 16 --downscale 1 --bf16 off --device cpu",
    "nlr": "--sdf-hidden-dim 8 --sdf-num-layers 1 --feature-dim 4 --num-encoder-stages 2 --encoder-width 4 "
    "--num-decoder-levels 1 "
    "--decoder-width 4 --patch-size 6 --num-mask-rays 16 --num-mask-samples 4 --num-eikonal-points 16 "
    "--downscale 1 --bf16 off "
    "--device cpu",
}
MIP = {
    "num_samples": 128,
    "num_passes": 2,
    "hidden_dim": 256,
    "num_layers": 8,
    "batch_size": 4096,
    "steps": 1_000_000,
    "coarse_loss_weight": 0.1,
}
OUTER = MetaTrain().outer
NETWORK = {
    "num_position_frequencies": 20,
    "num_octaves": 8.0,
    "num_layers": 5,
    "hidden_dim": 256,
    "num_samples": 128,
    "sampling": "official",
}
SHAPENET = NETWORK | {
    "num_views": 25,
    "inner_lr": 0.5,
    "inner_steps": 32,
    "inner_batch": 128,
    "tto_batch": 64,
    "tto_lr": 0.5,
}
TOURISM = NETWORK | {
    "num_views": 1,
    "inner_lr": 1.0,
    "inner_steps": 64,
    "inner_batch": 64,
    "tto_batch": 64,
    "tto_lr": 1.0,
}
TOURISM |= {"tto": 256, "outer": OUTER, "validation_steps": 64}
SURFACES = {
    "features": "learned",
    "blending": "learned",
    "source_selection": "random",
    "feature_dim": 16,
    "encoder_width": 64,
    "eikonal_loss_weight": 3.0,
    "mask_sharpness": 50.0,
    "num_mask_sharpness_doublings": 3,
    "shape_learning_rate_factor": 0.2,
}
DTU = SURFACES | {"sdf_hidden_dim": 128, "num_source_views": 6, "downscale": 2}
CAPTURES = SURFACES | {"sdf_hidden_dim": 256, "num_source_views": 5, "downscale": 5}
REPTILE = {
    "algorithm": "reptile",
    "inner_lr": 5e-4,
    "inner_steps": 64,
    "use_method_rates": True,
    "shape_update_interval": 1,
}
STATED = {
    "mip_nerf_blender.sh": MIP | {"single_image_batches": True, "density_noise_std": 0.0, "downscale": 1},
    "mip_nerf_multiscale.sh": MIP | {"single_image_batches": False, "density_noise_std": 0.0, "loss_multipliers": True},
    "mip_nerf_llff.sh": MIP | {"density_noise_std": 1.0, "downscale": 4, "hold_out": "every-8th", "ray_shape": "auto"},
    "nerf_blender.sh": {
        "num_samples": 64,
        "num_fine_samples": 64,
        "batch_size": 1024,
        "density_noise_std": 0.0,
        "steps": 250_000,
        "downscale": 2,
    },
    "nerf_blender_paper.sh": {
        "num_fine_samples": 128,
        "batch_size": 4096,
        "density_noise_std": 0.0,
        "steps": 200_000,
        "downscale": 1,
    },
    "nerf_llff.sh": {
        "num_fine_samples": 64,
        "density_noise_std": 1.0,
        "steps": 106_000,
        "downscale": 8,
        "hold_out": "center",
    },
    "nerf_llff_paper.sh": {"num_fine_samples": 128, "density_noise_std": 1.0, "downscale": 4, "hold_out": "every-8th"},
    **{
        f"meta_shapenet_{name}.sh": SHAPENET
        | {"epochs": epochs, "outer": replace(OUTER, lr=learning_rate_factor), "tto": steps}
        for name, epochs, learning_rate_factor, steps in (
            ("chairs", 15, 5e-4, 1000),
            ("cars", 30, 5e-5, 2000),
            ("lamps", 45, 5e-5, 2000),
        )
    },
    **{
        f"meta_tourism_{name}.sh": TOURISM | {"epochs": epochs}
        for name, epochs in (("brandenburg", 110), ("notre", 40), ("sacre", 130), ("trevi", 45))
    },
    "meta_instant_kenney.sh": {"minutes": 15.0, "num_views": 25, "inner_steps": 96, "inner_lr": 1e-2},
    "meta_landmark.sh": {"minutes": 40.0, "downscale": 4, "num_views": 1, "inner_steps": 24, "inner_lr": 1e-3},
    "meta_kenney.sh": {"steps": 250, "downscale": 2, "near": 3.0, "far": 5.0, "hidden_dim": 128, "num_samples": 32},
    "instant_lego.sh": {"minutes": 5.0, "downscale": 2},
    "instant_llff.sh": {"minutes": 10.0, "downscale": 8},
    "instant_open.sh": {"minutes": 10.0, "downscale": 1},
    "nerf_w_phototourism.sh": {"minutes": 10.0, "backbone": "grid", "beta_min": 0.1, "transient_dim": 16},
    "nerf_w_paper.sh": {
        "backbone": "mlp",
        "batch_size": 2048,
        "steps": 300_000,
        "beta_min": 0.03,
        "transient_loss_weight": 0.01,
    },
    "nlr_dtu.sh": DTU
    | {
        "num_joint_steps": 50,
        "shape_update_interval": 7,
        "mask_sharpness_interval": 2000,
        "visibility_tolerance_interval": 3000,
    },
    "nlr_nlr.sh": CAPTURES
    | {
        "num_joint_steps": 100,
        "shape_update_interval": 3,
        "mask_sharpness_interval": 2000,
        "visibility_tolerance_interval": 3000,
    },
    "meta_nlr_dtu.sh": DTU | REPTILE,
    "meta_nlr_nlr.sh": CAPTURES | REPTILE,
    "instant_multiscale.sh": {"minutes": 8.0, "anti_alias": True, "loss_multipliers": True},
}

# What begins with a learned start, and what it is but for that.
STARTED = {"nlr_dtu_from_meta.sh": "nlr_dtu.sh", "nlr_nlr_from_meta.sh": "nlr_nlr.sh"}

# Learning rates by the part of the run that is over: halved after 2, 4 and 8 of 16 epochs, or 10 and 20 of 30.
MIP_RATES = {0.0: 5e-6, 0.00125: 3.5298e-4, 0.0025: 4.94277e-4, 0.5: 5e-5, 1.0: 5e-6}
RATES = {
    **{name: MIP_RATES for name in ("mip_nerf_blender.sh", "mip_nerf_multiscale.sh", "mip_nerf_llff.sh")},
    "nerf_blender.sh": {1 / 16: 5e-4, 2 / 16: 2.5e-4, 4 / 16: 1.25e-4, 8 / 16: 6.25e-5, 1.0: 6.25e-5},
    "nerf_blender_paper.sh": {0.01: 5e-4 * 0.1**0.01, 0.5: 5e-4 * 0.1**0.5, 1.0: 5e-5},
    "nerf_llff.sh": {9 / 30: 5e-4, 10 / 30: 2.5e-4, 19 / 30: 2.5e-4, 20 / 30: 1.25e-4, 1.0: 1.25e-4},
    "nerf_llff_paper.sh": {0.5: 5e-4 * 0.1**0.5, 1.0: 5e-5},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A tiny scene in each layout."""
    folder = tmp_path_factory.mktemp("scenes")
    small = {"image_width": 24, "num_train": 6, "num_val": 2, "num_test": 2, "samples_per_pixel": 1}
    small |= {"ground_truth": False}
    synthesize_data(StillLife(**small), folder / "blender")
    synthesize_data(StillLife(**small, format="llff"), folder / "llff")
    write_multiscale_scene(folder / "blender", folder / "multicam")
    small = {"image_width": 24, "num_train": 4, "num_val": 1, "num_test": 1, "samples_per_pixel": 1}
    for layout in ("dtu", "nlr"):
        synthesize_data(ObjectCaptures(**small, format=layout), folder / layout)
        synthesize_data(ObjectCaptures(**small, format=layout, num_objects=2), folder / f"{layout}s")
    return {name: folder / name for name in ("blender", "llff", "multicam", "dtu", "dtus", "nlr", "nlrs")}


def arguments(recipe, folder, *given):
    """What a recipe calls `lumifield` with."""
    program = folder / "bin" / "lumifield"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([recipe, *given], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def job_of(tmp_path, monkeypatch):
    """What a recipe as it stands would train."""
    jobs = []
    monkeypatch.setattr("lumifield.api.training.run_training", lambda job, **_: jobs.append(job))
    monkeypatch.setattr("lumifield.meta.meta_training.run_meta_training", lambda job, **_: jobs.append(job))

    def job(recipe):
        main.main(arguments(ROOT / "recipes" / recipe, tmp_path, "data", "run"))
        return jobs[-1]

    return job


def test_every_recipe_is_tried():
    assert {recipe.name for recipe in RECIPES} == STATED.keys() | STARTED.keys()


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if "nlr" in recipe.name], ids=lambda one: one.name)
def test_a_recipe_of_surfaces_trains(recipe, scenes, tmp_path):
    layout, run = "dtu" if "dtu" in recipe.name else "nlr", tmp_path / "run"
    small = TINY["nlr"].split()
    if recipe.name.startswith("meta"):
        small += ["--steps", "20", "--inner.steps", "2", "--num-validation-tasks", "0", "--hold-out", "none"]
        main.main(arguments(recipe, tmp_path, str(scenes[f"{layout}s"]), str(run), *small))
    elif "from_meta" in recipe.name:
        start, first = tmp_path / "start", recipe.with_stem(recipe.stem.removesuffix("_from_meta"))
        main.main(arguments(first, tmp_path, str(scenes[layout]), str(start), *small, "--steps", "1"))
        main.main(arguments(recipe, tmp_path, str(scenes[layout]), str(run), str(start), *small, "--steps", "20"))
    else:
        main.main(arguments(recipe, tmp_path, str(scenes[layout]), str(run), *small, "--steps", "20"))
    assert read_run(run).training_summary.steps == 20
    assert method_name(read_run(run).config.method) == "nlr"


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if "nlr" not in recipe.name], ids=lambda one: one.name)
def test_a_recipe_trains(recipe, scenes, tmp_path):
    if recipe.name.startswith("meta"):
        sized_down = "--steps 2 --inner.steps 2 --num-validation-tasks 0 --downscale 1 --bf16 off "
        instant = "instant" in recipe.name
        sized_down += (
            "--samples-per-step 512 --occupancy-resolution 16" if instant else "--hidden-dim 8 --num-samples 4"
        )
        photographs = {"tourism", "photographs"} & set(recipe.stem.split("_"))
        source = scenes["blender"] if photographs else balls(tmp_path / "class").data
        main.main(arguments(recipe, tmp_path, str(source), str(tmp_path / "run"), *sized_down.split()))
        assert read_run(tmp_path / "run").training_summary.steps == 2
        return
    method = next(name for name in TINY if recipe.name.startswith(name.replace("-", "_")))
    scene = scenes["llff" if "llff" in recipe.name else "multicam" if "multiscale" in recipe.name else "blender"]
    main.main(arguments(recipe, tmp_path, str(scene), str(tmp_path / "run"), *TINY[method].split()))
    run = read_run(tmp_path / "run")
    assert run.training_summary.steps == 3
    assert method_name(run.config.method) == method


@pytest.mark.parametrize("recipe", STATED)
def test_a_recipe_states_the_published_settings(recipe, job_of):
    job = job_of(recipe)
    found = vars(job.source) | vars(job.method)
    found |= flat(job.meta) if recipe.startswith("meta") else vars(job.settings)
    assert {name: found[name] for name in STATED[recipe]} == STATED[recipe]


@pytest.mark.parametrize("recipe", STARTED)
def test_a_recipe_from_a_start_is_the_same_but_for_that(recipe, tmp_path):
    found, plain = (
        arguments(ROOT / "recipes" / name, tmp_path, "data", "run", *more)
        for name, more in ((recipe, ["start"]), (STARTED[recipe], []))
    )
    assert found == [*plain, "--init", "start", "--visibility-tolerance-interval", "2000"]


def flat(meta):
    """The settings of a meta-training, those of its loops under the names of nerf-meta."""
    found = vars(meta)
    for name, loop in (("inner", meta.inner), ("tto", meta.few_shot.loop)):
        found = found | {f"{name}_lr": loop.optimizer.lr, f"{name}_batch": loop.batch_size, f"{name}_steps": loop.steps}
    return found | {"tto": meta.few_shot.loop.steps}


@pytest.mark.parametrize("recipe", RATES)
def test_the_rate_falls_as_published(recipe, job_of):
    job = job_of(recipe)
    for over, expected in RATES[recipe].items():
        found = job.method.optimizer.lr * learning_rate_factor(
            job.method.schedule, over, round(over * job.settings.steps)
        )
        assert found == pytest.approx(expected, rel=1e-5), over


def test_examples(tmp_path, capsys):
    def example(number):
        (script,) = (ROOT / "examples").glob(f"{number:02d}_*.py")
        return runpy.run_path(str(script))["main"]

    example(1)(folder=tmp_path, size=16, steps=3)
    example(2)(run=tmp_path / "run", out=tmp_path / "view")
    example(3)(data=tmp_path / "still-life", rays=20, out=tmp_path / "rays.png")
    example(4)(run=tmp_path / "run", frames=2, size=16)
    example(5)(out=tmp_path / "portable.gif", frames=2, size=16)
    main.main([*f"train nerf-w --data {tmp_path}/still-life --out {tmp_path}/wild".split(), *TINY["nerf-w"].split()])
    example(6)(run=tmp_path / "wild", data=tmp_path / "still-life", out=tmp_path / "figure.png")
    small = "--inner.steps 2 --few-shot.loop.steps 2 --num-validation-tasks 0 --hidden-dim 8 --num-samples 4 "
    small += "--bf16 off --device cpu"
    main.main(f"meta-train --data {tmp_path}/still-life --out {tmp_path}/start --steps 1 {small}".split())
    example(7)(run=tmp_path / "start", data=tmp_path / "still-life", out=tmp_path / "looks.png", side=16)
    capsys.readouterr()
    for algorithm in ("maml", "reptile"):
        example(8)(images=tmp_path / "still-life" / "train", steps=1, size=8, width=8, algorithm=algorithm)
    example(9)(steps=1, size=8, width=8)
    assert capsys.readouterr().out.count("meta-learned initialization") == 5
    left = (
        "run/eval/test/report.html",
        "view/rgb.png",
        "view/depth.npy",
        "rays.png",
        "run/dolly.mp4",
        "portable.gif",
        "figure.png",
        "looks.png",
    )
    assert [name for name in left if not (tmp_path / name).is_file()] == []
    assert len(list((ROOT / "examples").glob("*.py"))) == 9
