"""Meta-training as a run: it helps, it resumes exactly, two processes do what one does, and bad input is told."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from commands import refusal
from lumifield.cli import main
from lumifield.data.scene_collection import list_tasks
from lumifield.errors import DataError
from lumifield.meta import FewShot, InnerLoop, MetaTrain
from lumifield.meta import meta_training as meta_run
from lumifield.meta.meta_training import MetaJob, run_meta_training, sample_episodes
from lumifield.methods import method_name
from lumifield.optim import Optimizer
from lumifield.runs import run_folder
from lumifield.runs.run_folder import read_run
from made_collections import TINY, balls
from scenes import INSTANT

LOOP = InnerLoop(steps=3, batch_size=16, optimizer=Optimizer(kind="sgd", lr=0.1, momentum=0.0))
QUICK = MetaTrain(
    steps=4,
    meta_batch_size=2,
    num_views=3,
    inner=LOOP,
    few_shot=FewShot(num_support_images=1, held_out_frames=(3, 6), loop=LOOP),
    validation_steps=2,
    num_validation_views=1,
    device="cpu",
)
OPTIONS = (
    "--steps 4 --meta-batch-size 2 --num-views 3 --inner.steps 3 --inner.batch-size 16 --inner.optimizer.lr 0.1 "
    "--few-shot.held-out-frames 3 6 "
    "--num-validation-tasks 0 --device cpu --num-samples 8 --hidden-dim 12 --num-layers 2 --num-position-frequencies 5 "
    "--num-octaves 3 --batch-size 24 "
    "--bf16 off"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return balls(tmp_path_factory.mktemp("collection"))


def learned(source, out, meta=QUICK, method=TINY, **options):
    return run_meta_training(MetaJob(method, source, meta, out), **options)


def saved(out):
    return run_folder.read_tensors(out / run_folder.STATE)[0]


@pytest.mark.parametrize("method", [TINY, INSTANT], ids=method_name)
@pytest.mark.parametrize("algorithm", ["reptile", "maml", "first-order-maml"])
def test_every_algorithm_leaves_a_run_that_renders(source, tmp_path, algorithm, method):
    out = learned(source, tmp_path / "run", replace(QUICK, steps=2, algorithm=algorithm), method)
    run = read_run(out)
    assert run.config.training_settings["algorithm"] == algorithm
    assert run.training_summary.steps == 2
    scene = run.scenes["train"]
    assert scene.names == ("000", "001", "002")
    history = json.loads((out / "log" / "history.json").read_text())
    assert [entry["step"] for entry in history] == [2]
    fresh = method.build(list_tasks(source, "train")[0].load_images())
    assert any(not torch.equal(value, fresh.state_dict()[name]) for name, value in saved_weights(out).items())


def saved_weights(out):
    return run_folder.tensors_with_prefix(saved(out), "weights.")


@pytest.mark.parametrize("group", [1, 2])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(source, tmp_path, group, monkeypatch):
    meta = replace(QUICK, vmap_batch_size=group)
    learned(source, tmp_path / "whole", meta)
    step = meta_run.outer_step

    def stopped_after_two(state, *given):
        step(state, *given)
        if state.step == 1:
            state.stopped = True

    monkeypatch.setattr(meta_run, "outer_step", stopped_after_two)
    learned(source, tmp_path / "parts", meta)
    monkeypatch.setattr(meta_run, "outer_step", step)
    assert read_run(tmp_path / "parts").training_summary.steps == 2
    learned(source, tmp_path / "parts", meta, resume=True)
    whole, parts = saved(tmp_path / "whole"), saved(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_tasks_come_once_before_any_comes_again():
    meta = replace(QUICK, meta_batch_size=2)
    seen = [visit.task for step in range(6) for visit in sample_episodes(3, step, meta)]
    assert all(sorted(seen[at : at + 3]) == [0, 1, 2] for at in range(0, 12, 3))
    again = [
        visit.task
        for step in range(40)
        for visit in sample_episodes(3, step, replace(meta, sample_with_replacement=True))
    ]
    assert any(sorted(again[at : at + 3]) != [0, 1, 2] for at in range(0, 78, 3))
    seeds = [visit.seed for step in range(6) for visit in sample_episodes(3, step, meta)]
    assert len(set(seeds)) == 12
    assert sample_episodes(3, 4, meta) == sample_episodes(3, 4, meta) != sample_episodes(3, 4, replace(meta, seed=1))


def test_meta_training_helps_an_unknown_object(source, tmp_path):
    loop = InnerLoop(steps=10, batch_size=48, optimizer=Optimizer(kind="adam", lr=2e-3))
    meta = replace(QUICK, steps=25, num_views=6, inner=loop, outer=Optimizer(kind="sgd", lr=0.5, momentum=0.0))
    meta = replace(meta, validate_every=1, validation_steps=10, few_shot=replace(QUICK.few_shot, loop=loop))
    out = learned(source, tmp_path / "run", meta)
    history = json.loads((out / "log" / "history.json").read_text())
    assert history[-1]["psnr"] > history[0]["psnr"] + 2
    assert history[-1]["psnr"] > history[-1]["start"]


def test_a_broken_inner_loop_leaves_the_start(source, tmp_path, caplog):
    loop = replace(LOOP, optimizer=Optimizer(kind="sgd", lr=1e30, momentum=0.0))
    out = learned(source, tmp_path / "run", replace(QUICK, steps=1, inner=loop, num_validation_tasks=0))
    assert caplog.text.count("diverges: lower its learning rate") == 2
    torch.manual_seed(QUICK.seed)
    fresh = TINY.build(list_tasks(source, "train")[0].load_images())
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in saved_weights(out).items())


def command(source, out, *more):
    return ["meta-train", "simple-nerf", "--data", str(source.data), "--out", str(out), *OPTIONS.split(), *more]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(source, tmp_path):
    starter = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "lumifield",
    ]
    done = subprocess.run(
        [*starter, *command(source, tmp_path / "two")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    main.main(command(source, tmp_path / "one"))
    one, two = saved_weights(tmp_path / "one"), saved_weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)
    counts = [read_run(tmp_path / name).training_summary.rays for name in ("one", "two")]
    assert counts == [4 * 2 * 3 * 16] * 2


def test_the_command_line_resumes_with_the_settings_of_the_run(source, tmp_path, capsys):
    out = tmp_path / "run"
    main.main(command(source, out))
    assert "run folder: found an existing run" in refusal(capsys, *command(source, out))
    main.main(["meta-train", "simple-nerf", "--data", str(source.data), "--out", str(out), "--resume", "--steps", "5"])
    assert read_run(out).training_summary.steps == 5


def test_ctrl_c_leaves_a_whole_run(source, tmp_path):
    given = command(source, tmp_path / "run", "--steps", "1000000", "--save-every", "1")
    process = subprocess.Popen([sys.executable, "-m", "lumifield", *given], stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / run_folder.STATE).is_file():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "saved in" in said
    assert read_run(tmp_path / "run").training_summary.steps >= 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("train simple-nerf --hidden-dim 13", "parameter 'network.trunk.0.weight': found [12, 30]"),
        ("train nerf", "method: found simple-nerf"),
        ("meta-train simple-nerf --hidden-dim 13", "found [12, 30]"),
    ],
)
def test_a_start_of_another_method_or_width_is_refused(source, tmp_path, capsys, options, sentence):
    main.main(command(source, tmp_path / "run"))
    data = source.data / "a" if options.startswith("train") else source.data
    common = ["--data", str(data), "--out", str(tmp_path / "other"), "--init", str(tmp_path / "run")]
    assert sentence in refusal(capsys, *options.split(), *common, "--bf16", "off", "--steps", "1", "--device", "cpu")
    assert not (tmp_path / "other").exists()


def test_an_object_of_the_list_that_is_missing_is_told(tmp_path, capsys):
    source = balls(tmp_path)
    for file in (source.data / "b").iterdir():
        file.unlink()
    (source.data / "b").rmdir()
    said = refusal(capsys, *command(source, tmp_path / "run"))
    assert "scene b of train: found missing" in said


def test_training_starts_from_a_learned_start(source, tmp_path):
    start = learned(source, tmp_path / "start", replace(QUICK, num_validation_tasks=0))
    given = f"train simple-nerf --data {source.data / 'e'} --out {tmp_path / 'run'} --init {start} --steps 0"
    main.main([*given.split(), "--device", "cpu"])
    assert read_run(tmp_path / "run").method.settings == TINY
    weights = run_folder.read_tensors(tmp_path / "run" / run_folder.WEIGHTS)[0]
    best = run_folder.read_tensors(start / run_folder.WEIGHTS)[0]
    assert all(torch.equal(weights[name], best[name]) for name in best)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: FewShot(num_support_images=0), r"num_support_images: found 0"),
        (lambda: FewShot(held_out_frames=(5, 5)), r"held_out_frames: found \(5, 5\)"),
        (lambda: MetaTrain(meta_batch_size=0), r"meta_batch_size: found 0"),
        (lambda: InnerLoop(batch_size=0), r"batch_size: found 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        change()
