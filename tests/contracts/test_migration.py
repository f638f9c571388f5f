"""docs/migration/: every row names an option of Lumifield, and each of these options changes the output."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lumifield import download
from lumifield.cli import main
from lumifield.data import image_files
from lumifield.download.datasets import DatasetArchive, PublishedDataset
from lumifield.evaluation import appearance_fit
from lumifield.methods import Nerf
from lumifield.rendering import view
from lumifield.runs.run_folder import read_run
from lumifield.synthetic import StillLife, synthesize_data
from made_collections import balls
from made_objects import dtu, edited, sphere
from made_reconstructions import seven_scenes
from made_scenes import ring
from scenes import ball, published
from serving import FaultyServer, make_zip, run_server
from surface_options import PRETRAINING as FEATURES
from surface_options import TRAINING as SURFACES

pytestmark = pytest.mark.slow

TABLE = re.compile(r"^\|(?: --- \|)+\n((?:\|.*\n)+)", re.MULTILINE)
SYSTEMS = {"nerf-pl", "mip-nerf", "nerfw-lens", "learnit-nerf-meta", "metanlrpp"}
PAGES = sorted((Path(__file__).parents[2] / "docs" / "migration").glob("*.md"))

# Every option of a training: what both runs are given, and what only one is.
TRAINING = {
    "--data": ("", "--data {other}"),
    "--format": ("", "--format transforms"),
    "--downscale": ("", "--downscale 2"),
    "--background": ("", "--background black"),
    "--near": ("", "--near 1.5"),
    "--far": ("", "--far 8"),
    "--bounds": ("", "--bounds depth"),
    "--cameras": ("--data {capture}", "--cameras cameras_large.npz"),
    "--pose-noise": ("", "--pose-noise 0.1"),
    "--no-object-masks": ("--data {capture}", "--no-object-masks"),
    "--focal": ("--data {frames}", "--focal 30"),
    "--layout": ("--data {llff}", "--layout inward"),
    "--hold-out": ("--data {llff}", "--hold-out center"),
    "--num-samples": ("", "--num-samples 5"),
    "--num-fine-samples": ("", "--num-fine-samples 5"),
    "--disparity": ("", "--disparity"),
    "--jitter": ("", "--jitter 0"),
    "--density-noise-std": ("", "--density-noise-std 1"),
    "--batch-size": ("", "--batch-size 17"),
    "--steps": ("", "--steps 3"),
    "--minutes": ("", "--minutes 1e-9"),
    "--optimizer.kind": ("", "--optimizer.kind sgd"),
    "--optimizer.lr": ("", "--optimizer.lr 1e-3"),
    "--optimizer.momentum": ("--optimizer.kind sgd --steps 3", "--optimizer.momentum 0.5"),
    "--optimizer.weight-decay": ("", "--optimizer.weight-decay 0.1"),
    "--optimizer.eps": ("", "--optimizer.eps 1"),
    "--schedule.kind": ("", "--schedule.kind cosine"),
    "--schedule.milestones": ("--schedule.kind step", "--schedule.milestones 0.5"),
    "--schedule.milestone-steps": ("--schedule.kind step", "--schedule.milestone-steps 1"),
    "--schedule.gamma": ("", "--schedule.gamma 0.5"),
    "--schedule.power": ("--schedule.kind poly", "--schedule.power 2"),
    "--schedule.warmup-steps": ("", "--schedule.warmup-steps 2"),
    "--schedule.warmup-factor": ("--schedule.warmup-steps 2", "--schedule.warmup-factor 0.5"),
    "--num-position-frequencies": ("", "--num-position-frequencies 3"),
    "--num-direction-frequencies": ("", "--num-direction-frequencies 3"),
    "--num-layers": ("", "--num-layers 3"),
    "--hidden-dim": ("", "--hidden-dim 10"),
    "--density-activation": ("", "--density-activation relu"),
    "--early-skip": ("", "--early-skip"),
    "--ndc-viewdirs": ("--data {llff}", "--ndc-viewdirs"),
    "--init": ("", "--init {run}"),
    "--validate-every": ("--num-validation-views 1", "--validate-every 1"),
    "--num-validation-views": ("--num-validation-views 1", "--num-validation-views 2"),
    "--save-every": ("--num-validation-views 1", "--save-every 1"),
}
MIP_TRAINING = {
    "--data": ("", "--data {other}"),
    "--format": ("", "--format transforms"),
    "--downscale": ("", "--downscale 2"),
    "--background": ("", "--background black"),
    "--near": ("", "--near 1.5"),
    "--far": ("", "--far 8"),
    "--layout": ("--data {llff}", "--layout inward"),
    "--hold-out": ("--data {llff}", "--hold-out center"),
    "--no-viewdirs": ("", "--no-viewdirs"),
    "--no-jitter": ("", "--no-jitter"),
    "--ray-shape": ("", "--ray-shape cylinder"),
    "--num-passes": ("", "--num-passes 3"),
    "--num-samples": ("", "--num-samples 5"),
    "--hidden-dim": ("", "--hidden-dim 10"),
    "--num-layers": ("", "--num-layers 3"),
    "--early-skip": ("", "--early-skip"),
    "--density-noise-std": ("", "--density-noise-std 1"),
    "--density-activation": ("", "--density-activation relu"),
    "--density-bias": ("", "--density-bias 0"),
    "--rgb-padding": ("", "--rgb-padding 0.1"),
    "--resample-padding": ("", "--resample-padding 1"),
    "--num-position-frequencies": ("", "--num-position-frequencies 2"),
    "--min-position-octave": ("", "--min-position-octave 1"),
    "--num-direction-frequencies": ("", "--num-direction-frequencies 1"),
    "--min-direction-octave": ("", "--min-direction-octave 1"),
    "--coarse-loss-weight": ("", "--coarse-loss-weight 1"),
    "--disparity": ("", "--disparity"),
    "--no-stop-gradient": ("--steps 3", "--no-stop-gradient"),
    "--no-integrated-encoding": ("", "--no-integrated-encoding"),
    "--no-loss-multipliers": ("--data {pyramid}", "--no-loss-multipliers"),
    "--single-image-batches": ("", "--single-image-batches"),
    "--batch-size": ("", "--batch-size 17"),
    "--steps": ("", "--steps 3"),
    "--max-grad-norm": ("--optimizer.kind sgd", "--max-grad-norm 1e-3"),
    "--max-grad-value": ("--optimizer.kind sgd", "--max-grad-value 1e-3"),
    "--optimizer.lr": ("", "--optimizer.lr 1e-3"),
    "--optimizer.weight-decay": ("", "--optimizer.weight-decay 0.1"),
    "--schedule.gamma": ("", "--schedule.gamma 0.5"),
    "--schedule.warmup": ("--schedule.warmup-steps 3", "--schedule.warmup linear"),
    "--schedule.warmup-steps": ("", "--schedule.warmup-steps 2"),
    "--schedule.warmup-factor": ("--schedule.warmup-steps 2", "--schedule.warmup-factor 0.5"),
    "--validate-every": ("--num-validation-views 1", "--validate-every 1"),
    "--save-every": ("--num-validation-views 1", "--save-every 1"),
}
WILD_TRAINING = {
    "--data": ("", "--data {other}"),
    "--downscale": ("", "--downscale 2"),
    "--backbone": ("", "--backbone grid"),
    "--batch-size": ("", "--batch-size 17"),
    "--steps": ("", "--steps 3"),
    "--seed": ("", "--seed 1"),
    "--optimizer.kind": ("", "--optimizer.kind sgd"),
    "--optimizer.lr": ("", "--optimizer.lr 1e-3"),
    "--optimizer.betas": ("--steps 3", "--optimizer.betas 0.5 0.9"),
    "--schedule.kind": ("", "--schedule.kind step"),
    "--schedule.gamma": ("--schedule.kind step --schedule.milestones 0.5", "--schedule.gamma 0.5"),
    "--schedule.milestones": ("--schedule.kind step", "--schedule.milestones 0.5"),
    "--validate-every": ("--num-validation-views 1", "--validate-every 1"),
    "--num-validation-views": ("--num-validation-views 1", "--num-validation-views 2"),
    "--save-every": ("--num-validation-views 1", "--save-every 1"),
    "--num-layers": ("", "--num-layers 3"),
    "--hidden-dim": ("", "--hidden-dim 10"),
    "--num-transient-layers": ("", "--num-transient-layers 2"),
    "--num-position-frequencies": ("", "--num-position-frequencies 3"),
    "--num-direction-frequencies": ("", "--num-direction-frequencies 3"),
    "--num-samples": ("", "--num-samples 5"),
    "--num-fine-samples": ("", "--num-fine-samples 5"),
    "--num-fine-passes": ("", "--num-fine-passes 2"),
    "--disparity": ("", "--disparity"),
    "--jitter": ("", "--jitter 0"),
    "--appearance-dim": ("", "--appearance-dim 0"),
    "--transient-dim": ("", "--transient-dim 0"),
    "--no-uncertainty": ("", "--no-uncertainty"),
    "--beta-min": ("", "--beta-min 0.1"),
    "--transient-loss-weight": ("", "--transient-loss-weight 1"),
}
RENDERING = {
    "--path": ("", "--path spheric"),
    "--size": ("", "--size 8 6"),
    "--out": ("", "--out {out}.gif"),
    "--channels": ("", "--channels rgb,depth"),
    "--normals": ("--channels normal", "--normals depth"),
    "--depth-format": ("--depth-format npy", "--depth-format bytes"),
    "--fps": ("--out {out}.gif", "--fps 10"),
    "--view-index": ("", "--view-index 0"),
    "--split": ("--view-index 0", "--split train"),
}
MESHING = {
    "--out": ("", "--out {out}.obj"),
    "--data": ("", "--data {other}"),
    "--resolution": ("", "--resolution 9"),
    "--bounds": ("", "--bounds -1 -1 -1 1 1 0.5"),
    "--density-threshold": ("", "--density-threshold 1e-9"),
    "--color-source": ("", "--color-source radiance"),
    "--components": ("", "--components 1000000"),
}
VOLUMES = {
    "--out": ("", "--out {out}/volume.raw"),
    "--resolution": ("", "--resolution 5"),
    "--center": ("", "--center 0 0 0.25"),
    "--cube-size": ("", "--cube-size 3"),
}
# Of each step of localization: what both are given, and what only one is.
LOCALIZING = {
    ("density", "--out"): ("", "--out {out}/density.npz"),
    ("density", "--num-cells"): ("", "--num-cells 200"),
    ("density", "--margin"): ("", "--margin 1"),
    ("density", "--density-threshold"): ("", "--density-threshold 1e-9"),
    ("select", "--out"): ("", "--out {out}/views.json"),
    ("select", "--places"): ("", "--places path"),
    ("select", "--num-views"): ("", "--num-views 4"),
    ("select", "--spacing"): ("", "--spacing 0.3"),
    ("select", "--min-clearance"): ("--num-views 30", "--min-clearance 1.5"),
    ("select", "--max-camera-distance"): ("--num-views 30", "--max-camera-distance 0.5"),
    ("select", "--rotation-range"): ("", "--rotation-range 20"),
    ("select", "--seed"): ("", "--seed 1"),
    ("synthesize", "--out"): ("", "--out {out}/sequence"),
    ("synthesize", "--appearance"): ("", "--appearance mean"),
    ("synthesize", "--seed"): ("", "--seed 1"),
    ("synthesize", "--size"): ("", "--size 8 6"),
}
SIMPLE_TRAINING = {
    "--init": ("", "--init {start}"),
    "--num-octaves": ("", "--num-octaves 3"),
    "--num-position-frequencies": ("", "--num-position-frequencies 4"),
    "--num-layers": ("", "--num-layers 2"),
    "--hidden-dim": ("", "--hidden-dim 10"),
    "--num-samples": ("", "--num-samples 5"),
    "--density-activation": ("", "--density-activation relu"),
    "--weight-init": ("", "--weight-init normal"),
    "--bounds": ("", "--bounds depth"),
    "--sampling": ("", "--sampling official"),
}
META_TRAINING = {
    "--data": ("", "--data {tinted}"),
    "--config": ("", "--config {start}/config.json"),
    "--num-views": ("", "--num-views 2"),
    "--epochs": ("", "--epochs 0.5"),
    "--outer.lr": ("", "--outer.lr 1e-3"),
    "--inner.optimizer.lr": ("", "--inner.optimizer.lr 0.1"),
    "--inner.steps": ("", "--inner.steps 1"),
    "--inner.batch-size": ("", "--inner.batch-size 9"),
    "--sample-with-replacement": ("--steps 3", "--sample-with-replacement"),
    "--meta-batch-size": ("", "--meta-batch-size 1"),
    "--vmap-batch-size": ("", "--vmap-batch-size 2"),
    "--algorithm": ("", "--algorithm maml"),
}
ADAPTING = {
    "--num-support-images": "--num-support-images 2",
    "--adapt-learning-rate": "--adapt-learning-rate 0.1",
    "--adapt-batch-size": "--adapt-batch-size 9",
    "--adapt-steps": "--adapt-steps 1",
    "--held-out-frames": "--held-out-frames 3 5",
    "--initializations": "--initializations meta random",
    "--save-adapted": "--save-adapted",
}
# Each of these has a test of its own below.
SINGLE = {
    *((train, flag) for train in ("train nerf", "train mip-nerf", "train nerf-w") for flag in ("--out", "--resume")),
    ("train nerf", "--no-cache"),
    *(("eval", flag) for flag in ("--split", "--data", "--checkpoint", "--downscale", "--chunk")),
    *(("eval", flag) for flag in ("--appearance", "--right-half", "--masks")),
    ("render", "--appearance"),
    ("render", "--chunk"),
    ("train mip-nerf", "--device"),
    *(
        ("synthesize-data", flag)
        for flag in ("--from", "--num-scales", "--premultiply-alpha", "--kind", "--seed", "--format")
    ),
}
SINGLE |= {("export cameras", "--format"), ("localize synthesize", "--chunk")}
SINGLE |= {("download", "--out"), ("download", "--scenes"), ("export weights", "--out"), ("export weights", "--half")}

SMALL = (
    "--steps 2 --batch-size 16 --hidden-dim 8 --num-layers 4 --num-samples 4 --schedule.warmup-steps 0 "
    "--validate-every 0 "
    "--num-validation-views 0 --bf16 off --device cpu"
)
WILD = (
    "--steps 2 --grid-num-levels 2 --grid-log2-hashmap-size 8 --grid-hidden-dim 4 --grid-occupancy-resolution 8 "
    "--bf16 off --device cpu "
    "--grid-samples-per-step 64"
)
OWN = {
    "nerf": "--num-fine-samples 4 --num-position-frequencies 2 --num-direction-frequencies 2",
    "mip-nerf": "--num-position-frequencies 3 --num-direction-frequencies 2",
    "nerf-w": "--backbone mlp --num-fine-samples 4 --num-position-frequencies 2 --num-direction-frequencies 2 "
    "--appearance-dim 3 --transient-dim 2",
    "simple-nerf": "--num-position-frequencies 3 --num-octaves 2",
}
META = (
    "--steps 2 --meta-batch-size 2 --num-views 3 --inner.steps 2 --inner.batch-size 16 "
    "--few-shot.held-out-frames 3 6 --few-shot.loop.steps 2 "
    "--num-validation-tasks 0 --seed 5 --batch-size 16 --hidden-dim 8 --num-layers 4 --num-samples 4 "
    "--num-position-frequencies 3 --num-octaves 2 --bf16 off "
    "--device cpu"
)


def rows():
    """The rows of the tables on all pages: original, Lumifield, note."""
    found = []
    for page in PAGES:
        for table in TABLE.findall(page.read_text(encoding="utf-8")):
            found += [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return found


def options(cell):
    """The options of a cell as pairs of command and option; training commands include the method."""
    spans = [span.split() for span in re.findall(r"`([^`]+)`", cell) if not span.startswith("torchrun")]
    commands = [" ".join(span[:2]) if span[0] in ("train", "export", "localize") else span[0] for span in spans]
    pairs = zip(commands, spans, strict=True)
    return {(command, word) for command, span in pairs for word in span if word.startswith("--")}


def lumifield(command, *parts, **places):
    """Runs a command, with the places filled in."""
    main.main([*command.split(), *(word.format(**places) for part in parts for word in part.split())])


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Small scenes and a run."""
    folder = tmp_path_factory.mktemp("places")
    small = {
        "image_width": 16,
        "num_train": 8,
        "num_val": 2,
        "num_test": 2,
        "samples_per_pixel": 1,
        "ground_truth": False,
    }
    synthesize_data(StillLife(**small), folder / "blender")
    synthesize_data(StillLife(**small, seed=1), folder / "other")
    synthesize_data(StillLife(**small, format="llff"), folder / "llff")
    found = {name: folder / name for name in ("blender", "other", "llff", "pyramid", "run")}
    found["capture"] = dtu(folder / "capture", n=9)
    shutil.copy(found["capture"] / "cameras_sphere.npz", found["capture"] / "cameras_large.npz")
    edited(found["capture"] / "cameras_large.npz", **{f"scale_mat_{row}": sphere(4.0) for row in range(9)})
    found["frames"] = seven_scenes(folder / "frames", ring(3))
    lumifield("synthesize-data multiscale --from {blender} --out {pyramid}".format(**found))
    lumifield("train nerf", "--data {blender} --out {run}", SMALL, OWN["nerf"], "--seed 7", **found)
    found["objects"], found["tinted"] = balls(folder / "objects").data, balls(folder / "tinted").data
    (found["tinted"].parent / "balls_splits.json").write_text(json.dumps({"train": ["d", "e"], "test": ["a"]}))
    found["start"] = folder / "start"
    lumifield("meta-train simple-nerf", "--data {objects} --out {start}", META, **found)
    return found


def started(out, places, *parts):
    """The state that a meta-training leaves."""
    plain = "" if any("--config" in part for part in parts) else META
    lumifield("meta-train simple-nerf", "--data {objects} --out {out}", plain, *parts, out=out, **places)
    return load_file(out / "state" / "last.safetensors")


def trained(out, places, *parts, method="nerf"):
    """What a training leaves: its weights, its validation and its steps."""
    lumifield(f"train {method}", "--data {blender} --out {out}", SMALL, OWN[method], *parts, out=out, **places)
    weights = load_file(out / "weights.safetensors")
    log = {file.stem: json.loads(file.read_text()) for file in (out / "log").glob("*.json")}
    history = [(look["step"], look["psnr"]) for look in log.get("history", [])]
    return weights, history, log["summary"]["steps"]


def same(a, b):
    """Whether two trainings left the same."""
    weights = a[0].keys() == b[0].keys() and all(torch.equal(a[0][name], b[0][name]) for name in a[0])
    return weights and a[1:] == b[1:]


def rendered(folder, places, *parts):
    """The files that a rendering leaves."""
    out = folder / "film"
    lumifield("render {run}".format(**places), "--out {out} --num-frames 2 --size 8 8", *parts, out=out, **places)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def psnrs(run, /, *parts, **places):
    """The scores of each image."""
    lumifield(f"eval {run} --no-save-images", *parts, **places)
    written = max((run / "eval").rglob("metrics.json"), key=lambda file: file.stat().st_mtime_ns)
    return [image["psnr"] for image in json.loads(written.read_text())["per_image"]]


def test_every_row_names_an_option_or_says_why_it_was_removed():
    assert {page.stem for page in PAGES} == SYSTEMS
    for original, here, note in rows():
        if here == "removed":
            assert note, original
        elif not here.startswith("`torchrun"):
            assert options(here), original


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_table_row_of_a_page_is_read(page):
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    tables = TABLE.findall(page.read_text(encoding="utf-8"))
    assert len(lines) == sum(len(table.splitlines()) + 2 for table in tables)


def test_every_option_of_the_table_is_tried_here():
    tried = {("train nerf", flag) for flag in TRAINING} | {("train mip-nerf", flag) for flag in MIP_TRAINING}
    tried |= {("train nerf-w", flag) for flag in WILD_TRAINING}
    tried |= {("render", flag) for flag in RENDERING} | {("export mesh", flag) for flag in MESHING} | SINGLE
    tried |= {("export volume", flag) for flag in VOLUMES}
    tried |= {(f"localize {step}", flag) for step, flag in LOCALIZING}
    tried |= {("train simple-nerf", flag) for flag in SIMPLE_TRAINING}
    # test_migration_metanlrpp.py tries these.
    tried |= {("train nlr", flag) for flag in SURFACES} | {("pretrain-features", flag) for flag in FEATURES}
    tried |= {("meta-train", "--use-method-rates")}
    tried |= {("meta-train", flag) for flag in META_TRAINING} | {("eval", flag) for flag in ADAPTING}
    assert set().union(*(options(here) for _, here, _ in rows())) == tried


def test_the_same_options_leave_the_same(places, tmp_path):
    assert same(trained(tmp_path / "a", places), trained(tmp_path / "b", places))
    (tmp_path / "c").mkdir()
    (tmp_path / "d").mkdir()
    assert rendered(tmp_path / "c", places) == rendered(tmp_path / "d", places)


@pytest.mark.parametrize("flag", TRAINING)
def test_an_option_of_train_changes_the_run(flag, places, tmp_path):
    common, change = TRAINING[flag]
    before = trained(tmp_path / "before", places, common)
    assert not same(before, trained(tmp_path / "after", places, common, change))


@pytest.mark.parametrize("flag", SIMPLE_TRAINING)
def test_an_option_of_a_simple_nerf_training_changes_the_run(flag, places, tmp_path):
    common, change = SIMPLE_TRAINING[flag]
    before = trained(tmp_path / "before", places, common, method="simple-nerf")
    assert not same(before, trained(tmp_path / "after", places, common, change, method="simple-nerf"))


@pytest.mark.parametrize("flag", META_TRAINING)
def test_an_option_of_meta_train_changes_the_start(flag, places, tmp_path):
    common, change = META_TRAINING[flag]
    before, again = (started(tmp_path / name, places, common) for name in ("before", "again"))
    after = started(tmp_path / "after", places, common, change)
    assert all(torch.equal(before[name], again[name]) for name in before)
    differs = any(not torch.equal(before[name], after[name]) for name in before)
    # The settings of the very run leave the same: they have come through.
    assert differs != (flag == "--config")


@pytest.mark.parametrize("flag", ADAPTING)
def test_an_option_of_adaptation_changes_the_scores(flag, places):
    found = []
    for option in ("", "", ADAPTING[flag]):
        lumifield("eval {start} --no-save-images".format(**places), option)
        metrics = json.loads((places["start"] / "eval" / "test" / "metrics.json").read_text())
        kept = (places["start"] / "eval" / "test" / "e" / "scene").is_dir()
        found.append((metrics["psnr"], metrics["n_images"], sorted(metrics["initializations"]), kept))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("flag", MIP_TRAINING)
def test_an_option_of_a_mip_nerf_training_changes_the_run(flag, places, tmp_path):
    common, change = MIP_TRAINING[flag]
    before = trained(tmp_path / "before", places, common, method="mip-nerf")
    assert not same(before, trained(tmp_path / "after", places, common, change, method="mip-nerf"))


@pytest.mark.parametrize("flag", WILD_TRAINING)
def test_an_option_of_a_nerf_w_training_changes_the_run(flag, places, tmp_path):
    common, change = WILD_TRAINING[flag]
    before = trained(tmp_path / "before", places, common, method="nerf-w")
    assert not same(before, trained(tmp_path / "after", places, common, change, method="nerf-w"))


def test_options_of_views_in_the_wild(places, tmp_path, monkeypatch):
    monkeypatch.setattr(appearance_fit, "FIT_STEPS", 2)
    run, masks = tmp_path / "run", tmp_path / "masks"
    trained(run, places, method="nerf-w")
    fitted, mean, half, given = (
        psnrs(run, option) for option in ("", "--appearance mean", "--appearance mean --right-half", "--appearance r_1")
    )
    assert len({tuple(scores) for scores in (fitted, mean, half, given)}) == 4
    masks.mkdir()
    for index in range(2):
        Image.fromarray(255 * np.eye(16, dtype=np.uint8)).save(masks / f"r_{index}.png")
    assert psnrs(run, "--appearance mean --masks {masks}", masks=masks) != mean
    films = []
    for name, option in (("plain", ""), ("one", "--appearance r_0"), ("two", "--appearance r_0 r_5")):
        (tmp_path / name).mkdir()
        films.append(rendered(tmp_path / name, places | {"run": run}, option))
    (tmp_path / "own").mkdir()
    films.append(rendered(tmp_path / "own", places | {"run": run}, "--channels transient --appearance r_0"))
    assert len({tuple(film.values()) for film in films}) == 4


def test_the_device_of_a_mip_nerf_training(places, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        trained(tmp_path / "run", places, "--device nowhere", method="mip-nerf")
    assert "device: found 'nowhere'" in capsys.readouterr().err


def test_the_pyramid_is_that_of_the_scene_asked_for(places, tmp_path):
    for name in ("blender", "other"):
        lumifield(f"synthesize-data multiscale --from {places[name]} --out {tmp_path / name}")
    first, second, again = (
        (folder / "images_train" / "000_d3.png").read_bytes()
        for folder in (tmp_path / "blender", tmp_path / "other", places["pyramid"])
    )
    assert first == again != second


def test_options_of_pyramids(places, tmp_path):
    images = {}
    for name, option in (("four", ""), ("three", "--num-scales 3"), ("premultiplied", "--premultiply-alpha")):
        lumifield(f"synthesize-data multiscale --from {places['blender']} --out {tmp_path / name} {option}")
        folder = tmp_path / name / "images_train"
        images[name] = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name[-6:-4] for name in images["three"]} == {"d0", "d1", "d2"}
    assert images["three"].items() < images["four"].items()
    assert images["premultiplied"].keys() == images["four"].keys()
    assert images["premultiplied"] != images["four"]


@pytest.mark.parametrize("flag", RENDERING)
def test_an_option_of_render_changes_the_files(flag, places, tmp_path):
    common, change = RENDERING[flag]
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    before = rendered(tmp_path / "before", places, common)
    assert before != rendered(tmp_path / "after", places, common, change)


def meshed(out, places, *parts):
    """The files of a mesh at the median density of the box, or None where there is none."""
    out.mkdir()
    density = read_run(places["run"]).method.density(
        2 * torch.rand(999, 3, generator=torch.Generator().manual_seed(0)) - 1
    )
    common = f"--out {out}/mesh.ply --resolution 8 --bounds -1 -1 -1 1 1 1 --components all"
    common += f" --density-threshold {float(density.median())}"
    try:
        lumifield("export mesh {run}".format(**places), common, *parts, out=out / "mesh", **places)
    except SystemExit:
        return None
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("flag", MESHING)
def test_an_option_of_export_mesh_changes_the_files(flag, places, tmp_path):
    common, change = MESHING[flag]
    before = meshed(tmp_path / "before", places, common)
    assert before is not None
    assert before == meshed(tmp_path / "again", places, common)
    assert before != meshed(tmp_path / "after", places, common, change)


def voluminous(out, places, *parts):
    """The files of a volume."""
    out.mkdir()
    cube = "--resolution 4 --center 0 0 0 --cube-size 2"
    lumifield("export volume {run}".format(**places), f"--out {out}/volume.vol", cube, *parts, out=out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("flag", VOLUMES)
def test_an_option_of_export_volume_changes_the_files(flag, places, tmp_path):
    common, change = VOLUMES[flag]
    before = voluminous(tmp_path / "before", places, common)
    assert before == voluminous(tmp_path / "again", places, common)
    assert before != voluminous(tmp_path / "after", places, common, change)


@pytest.fixture(scope="module")
def located(places):
    """A run of images with looks of their own, and what the steps of localization leave in it."""
    run = places["run"].with_name("wild")
    lumifield("train nerf-w", f"--data {places['blender']} --out {run}", WILD)
    steps = (
        "density {run} --num-cells 300 --density-threshold 1e9 --margin 2",
        "select {run} --num-views 3",
        "synthesize {run}",
    )
    for step in steps:
        lumifield(f"localize {step}".format(run=run))
    return run


def localized(out, run, step, *parts):
    """What a step leaves: its own files, and those of the options."""
    shutil.copytree(run, out / "run")
    if step == "synthesize":
        shutil.rmtree(out / "run/localize/sequence")
    common = {
        "density": "--num-cells 300 --density-threshold 1e9 --margin 2",
        "select": "--num-views 3",
        "synthesize": "",
    }[step]
    lumifield(f"localize {step} {out / 'run'} {common}", *parts, out=out)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("step", "flag"), LOCALIZING)
def test_an_option_of_localization_changes_the_files(step, flag, located, tmp_path):
    common, change = LOCALIZING[step, flag]
    before = localized(tmp_path / "before", located, step, common)
    assert before == localized(tmp_path / "again", located, step, common)
    assert before != localized(tmp_path / "after", located, step, common, change)


def test_the_chunk_of_a_synthesis_changes_the_passes(located, tmp_path, monkeypatch):
    sizes, whole = set(), view.render_in_chunks

    def noted(method, rays, context, chunk, *rest):
        sizes.add(chunk)
        return whole(method, rays, context, chunk, *rest)

    monkeypatch.setattr(view, "render_in_chunks", noted)
    localized(tmp_path, located, "synthesize", "--chunk 50")
    assert sizes == {50}


def test_the_format_of_exported_cameras(places, tmp_path):
    for name, option in (("told.ply", ""), ("asked.json", "--format frusta"), ("told.json", "")):
        lumifield("export cameras {run}".format(**places), f"--out {tmp_path / name}", option)
    told, asked, other = ((tmp_path / name).read_bytes() for name in ("told.ply", "asked.json", "told.json"))
    assert told == asked != other


def test_options_of_export_weights(places, tmp_path):
    for name, option in (("whole", ""), ("half", "--half")):
        lumifield("export weights {run}".format(**places), f"--out {tmp_path / name}", option)
    whole, half = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "half"))
    assert {value.dtype for value in whole.values()} == {torch.float32}
    assert {value.dtype for value in half.values()} == {torch.float16}
    films = []
    for name, run in (("before", places["run"]), ("after", tmp_path / "whole")):
        (tmp_path / name).mkdir()
        films.append(rendered(tmp_path / name, {"run": run}))
    assert films[0] == films[1]


@pytest.mark.parametrize("method", OWN)
def test_out_and_resume_of_train(places, tmp_path, method):
    run = tmp_path / "a" / "run"
    first = trained(run, places, method=method)
    with pytest.raises(SystemExit, match="2"):
        trained(run, places, "--steps 4", method=method)
    later = trained(run, places, "--steps 4 --resume", method=method)
    assert (first[2], later[2]) == (2, 4)


def test_options_of_eval(places, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(places["run"], run)
    base = psnrs(run)
    assert psnrs(run, "--split train") != base
    assert psnrs(run, "--data {other}", **places) != base
    assert psnrs(run, "--downscale 2") != base
    assert psnrs(run, "--downscale 1") == base
    trained(tmp_path / "second", places, "--seed 8")
    shutil.copy(tmp_path / "second" / "weights.safetensors", run)
    assert psnrs(run) != base
    assert psnrs(run, "--checkpoint last") == base


def test_the_chunk_changes_the_passes_and_not_the_result(places, tmp_path, monkeypatch):
    sizes, whole = set(), view.render_in_chunks

    def noted(method, rays, context, chunk, *rest):
        sizes.add(chunk)
        return whole(method, rays, context, chunk, *rest)

    monkeypatch.setattr(view, "render_in_chunks", noted)
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    base, before = psnrs(places["run"]), rendered(tmp_path / "before", places, "--depth-format npy")
    assert sizes == {view.default_chunk(torch.device("cpu"))}
    sizes.clear()
    after = rendered(tmp_path / "after", places, "--depth-format npy --chunk 50")
    assert psnrs(places["run"], "--chunk 50") == pytest.approx(base, abs=0.01)
    assert sizes == {50}
    assert before.keys() == after.keys()
    for name in before:
        a, b = (pixels(tmp_path / part / name) for part in ("before", "after"))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1.0)
    with pytest.raises(SystemExit, match="2"):
        psnrs(places["run"], "--chunk 0")


def pixels(file):
    """The numbers of an image or of raw depth."""
    return torch.from_numpy(np.load(file) if file.suffix == ".npy" else np.asarray(Image.open(file), np.float32))


def test_a_published_checkpoint_becomes_a_run_that_can_be_scored_and_rendered(places, tmp_path):
    method = Nerf(
        num_samples=4,
        num_fine_samples=4,
        hidden_dim=8,
        num_layers=4,
        num_position_frequencies=2,
        num_direction_frequencies=2,
        density_activation="relu",
    )
    network = replace(method, early_skip=True).build(ball())
    torch.save({"state_dict": published(network), "epoch": 15}, tmp_path / "epoch.ckpt")
    run = tmp_path / "run"
    fitting = "--density-activation relu --early-skip --init {init} --steps 0"
    trained(run, places, fitting.format(init=tmp_path / "epoch.ckpt"))
    weights = load_file(run / "weights.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    assert len(psnrs(run)) == 2
    (tmp_path / "film").mkdir()
    assert len(rendered(tmp_path / "film", places | {"run": run})) == 2


def test_options_of_perturbed_scenes(places, tmp_path):
    for name, option in (("plain", ""), ("occluder", "--kind occluder"), ("seed", "--seed 1")):
        out = tmp_path / name
        lumifield("synthesize-data perturbed", "--from {blender} --out {out}", option, out=out, **places)
    folders = (places["blender"], *(tmp_path / name for name in ("plain", "occluder", "seed")))
    assert len({(folder / "train/r_3.png").read_bytes() for folder in folders}) == 4


def test_other_layouts_are_those_of_the_scene_asked_for(places, tmp_path):
    for layout, file in (("learnit", "c2w_mats.npy"), ("colmap", "dense/sparse/images.bin")):
        found = set()
        for name in ("blender", "other"):
            out = tmp_path / layout / name
            lumifield("synthesize-data converted", f"--format {layout} --from {places[name]} --out {out}")
            found.add((out / file).read_bytes())
        assert len(found) == 2


def test_no_cache_keeps_nothing(places, tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MIN_CACHED_PIXELS", 1)
    monkeypatch.setenv("LUMIFIELD_CACHE", str(tmp_path / "cache"))
    without = trained(tmp_path / "a", places, "--no-cache")
    assert not (tmp_path / "cache").exists()
    assert same(trained(tmp_path / "b", places), without)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_options_of_download(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with run_server(FaultyServer(make_zip({f"set/{scene}/a.txt": b"a" for scene in ("lego", "ship")}))) as server:
        sets = (PublishedDataset("blender", "", "", "", (DatasetArchive("a.zip", ("lego", "ship"), server.url),)),)
        monkeypatch.setattr(download, "DATASETS", sets)
        lumifield("download blender", "--out {out}", out=tmp_path / "all")
        lumifield("download blender", "--out {out} --scenes ship", out=tmp_path / "one")
    assert sorted(path.name for path in tmp_path.glob("all/*")) == ["lego", "ship"]
    assert sorted(path.name for path in tmp_path.glob("one/*")) == ["ship"]


def test_every_set_of_the_table_is_one_that_can_be_asked_for():
    spans = [span.split() for _, here, _ in rows() for span in re.findall(r"`([^`]+)`", here)]
    named_sets = {span[1] for span in spans if span[0] == "download"}
    assert named_sets == {chosen.name for chosen in download.DATASETS} - {"nerf-example"}
