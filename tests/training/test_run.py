import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lumifield import data
from lumifield.errors import DataError
from lumifield.methods import Instant
from lumifield.optim import Optimizer, Schedule
from lumifield.runs import run_folder
from lumifield.runs.driver import select_device
from lumifield.runs.state import Budget
from lumifield.training import Train
from lumifield.training.fit import StepReport, TrainingState
from lumifield.training.guard import CollapsedError, DivergenceGuard
from lumifield.training.job import DEFAULT_MINUTES, TrainingJob, run_training
from scenes import INSTANT, MIP_NERF, NERF, NLR, ball, published, written

STEPS, HALF = 12, 5
METHODS = {
    "instant": INSTANT,
    "mip-nerf": replace(MIP_NERF, backbone="grid", grid_num_levels=2, grid_log2_hashmap_size=8, grid_hidden_dim=8),
    "nerf": NERF,
    "ranger": replace(NERF, optimizer=Optimizer(kind="ranger", lr=1e-2)),
    "occupied": replace(NERF, occupancy=True, occupancy_resolution=8, num_occupancy_samples=32),
    "nlr": replace(NLR, num_joint_steps=2, shape_update_interval=3),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return written(tmp_path_factory.mktemp("ball"))


def saved(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that a run has saved of its last state."""
    return run_folder.read_tensors(folder / run_folder.STATE)[0]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def command(source, out: Path, *options: str) -> list[str]:
    tiny = [
        "--num-levels",
        "2",
        "--log2-hashmap-size",
        "8",
        "--hidden-dim",
        "8",
        "--occupancy-resolution",
        "8",
        "--samples-per-step",
        "64",
    ]
    given = ["--data", str(source.data), "--out", str(out), *tiny, "--bf16", "off", *options]
    return [sys.executable, "-m", "lumifield", "train", "instant", *given]


def wait_for(file: Path, process: subprocess.Popen) -> None:
    while not file.is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(name, source, tmp_path):
    method, whole = METHODS[name], Train(steps=STEPS, validate_every=4, save_every=HALF)
    run_training(TrainingJob(method, source, whole, tmp_path / "whole"))
    # Stopped in the middle of the same schedule, as Ctrl-C does.
    stop_at(HALF, TrainingJob(method, source, whole, tmp_path / "parts"))
    assert run_folder.read_tensors(tmp_path / "parts" / run_folder.STATE)[1]["step"] == HALF
    run_training(TrainingJob(method, source, whole, tmp_path / "parts"), resume=True)
    assert_same(saved(tmp_path / "whole"), saved(tmp_path / "parts"))
    best = [run_folder.read_tensors(tmp_path / part / run_folder.WEIGHTS)[0] for part in ("whole", "parts")]
    assert_same(*best)
    looks = [json.loads((tmp_path / part / "log/history.json").read_text()) for part in ("whole", "parts")]
    assert [entry["step"] for entry in looks[0]] == [4, 5, 8, 10, 12]
    assert [entry["psnr"] for entry in looks[0]] == [entry["psnr"] for entry in looks[1]]


def stop_at(step: int, job: TrainingJob) -> None:
    """Interrupts a run after `step` steps."""

    def stop(state: TrainingState, _: StepReport) -> None:
        state.stopped = state.step == step

    run_training(job, callbacks=[stop])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(source, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run_training(TrainingJob(INSTANT, source, Train(steps=20, seed=seed), tmp_path / name))
    assert_same(saved(tmp_path / "a"), saved(tmp_path / "b"))
    assert not torch.equal(saved(tmp_path / "a")["weights.grid.table"], saved(tmp_path / "c")["weights.grid.table"])


def test_training_reads_the_train_split_alone(source, tmp_path):
    alone = replace(source, data=tmp_path / "alone")
    shutil.copytree(source.data, alone.data)
    for split in ("val", "test"):
        shutil.rmtree(alone.data / split)
        (alone.data / f"transforms_{split}.json").unlink()
    settings = Train(steps=STEPS, validate_every=3)
    run_training(TrainingJob(INSTANT, source, settings, tmp_path / "with"))
    run_training(TrainingJob(INSTANT, alone, settings, tmp_path / "without"))
    assert_same(saved(tmp_path / "with"), saved(tmp_path / "without"))
    assert (tmp_path / "without" / run_folder.WEIGHTS).is_file()


def test_no_image_of_the_test_split_is_opened(source, tmp_path):
    broken = replace(source, data=tmp_path / "broken")
    shutil.copytree(source.data, broken.data)
    for image in (broken.data / "test").iterdir():
        image.unlink()
    run_training(TrainingJob(INSTANT, broken, Train(steps=2), tmp_path / "run"))
    assert set(run_folder.read_run(tmp_path / "run").scenes) == {"train", "val"}


def test_a_damaged_val_split_is_told_and_does_not_stop_the_training(source, tmp_path, capsys):
    broken = replace(source, data=tmp_path / "broken")
    shutil.copytree(source.data, broken.data)
    (broken.data / "transforms_val.json").write_text("{")
    run_training(TrainingJob(INSTANT, broken, Train(steps=2), tmp_path / "run"), console=Console(width=500))
    assert re.search(
        r"content: found no JSON \(Expecting property name enclosed in double quotes: ", capsys.readouterr().out
    )


def test_the_best_weights_are_kept_beside_the_last(source, tmp_path):
    # A rate that rises until it destroys what was learned.
    bad = replace(INSTANT, schedule=Schedule(warmup_steps=8, warmup_factor=1e-4))
    bad = replace(bad, optimizer=replace(bad.optimizer, lr=5.0))
    run_training(TrainingJob(INSTANT, source, Train(steps=40, validate_every=0), tmp_path / "good"))
    run_training(TrainingJob(bad, source, Train(steps=9, validate_every=1, init=tmp_path / "good"), tmp_path / "run"))
    history = json.loads((tmp_path / "run/log/history.json").read_text())
    best = max(history, key=lambda entry: entry["psnr"])
    assert best["step"] < 9
    views = data.read_scene(source, "val")
    method = run_folder.read_run(tmp_path / "run").method
    assert mean_psnr(method, views) == pytest.approx(best["psnr"], abs=1e-9)
    assert mean_psnr(run_folder.read_run(tmp_path / "run", "last").method, views) == pytest.approx(history[-1]["psnr"])


def mean_psnr(method, views) -> float:
    from lumifield.rendering.view import render_view
    from lumifield.runtime.image_metrics import mean_squared_error, psnr

    seen = [render_view(method, views, i, device=torch.device("cpu")).rgb.clamp(0, 1) for i in range(len(views))]
    return sum(psnr(mean_squared_error(rgb, views.ground_truth(i))) for i, rgb in enumerate(seen)) / len(seen)


def test_init_carries_the_parameters_over(source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(steps=3), tmp_path / "first"))
    still = replace(NERF, optimizer=Optimizer(kind="sgd", lr=0.0))
    run_training(TrainingJob(still, source, Train(steps=1, seed=9, init=tmp_path / "first"), tmp_path / "second"))
    first, second = (run_folder.read_run(tmp_path / name, "last").method.state_dict() for name in ("first", "second"))
    assert_same(first, second)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (INSTANT, "method: found nerf"),
        (
            replace(NERF, hidden_dim=8),
            "parameter 'coarse.trunk.0.weight': found [16, 27]",
        ),
    ],
)
def test_init_from_a_run_of_another_method_or_size_is_refused(method, message, source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(steps=1), tmp_path / "first"))
    with pytest.raises(DataError, match=re.escape(message)):
        run_training(TrainingJob(method, source, Train(steps=1, init=tmp_path / "first"), tmp_path / "second"))
    assert not (tmp_path / "second").exists()


def test_init_needs_no_cameras(source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(steps=1), tmp_path / "first"))
    (tmp_path / "first" / run_folder.CAMERAS).unlink()
    run_training(TrainingJob(NERF, source, Train(steps=0, init=tmp_path / "first"), tmp_path / "second"))
    assert_same(*(run_folder.read_tensors(tmp_path / n / run_folder.WEIGHTS)[0] for n in ("first", "second")))


def test_init_from_no_run_is_refused(source, tmp_path):
    expected = r"nowhere: --init: found nothing"
    with pytest.raises(DataError, match=expected):
        run_training(TrainingJob(NERF, source, Train(steps=1, init=tmp_path / "nowhere"), tmp_path / "second"))


def test_init_is_noted_and_a_resumption_does_not_read_it_again(source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(steps=3), tmp_path / "first"))
    settings = Train(steps=STEPS, init=tmp_path / "first", validate_every=0, save_every=HALF)
    run_training(TrainingJob(NERF, source, settings, tmp_path / "whole"))
    stop_at(HALF, TrainingJob(NERF, source, settings, tmp_path / "parts"))
    noted = json.loads((tmp_path / "parts" / run_folder.CONFIG).read_text())["train"]["init"]
    assert noted == str((tmp_path / "first").resolve())
    shutil.rmtree(tmp_path / "first")
    run_training(TrainingJob(NERF, source, settings, tmp_path / "parts"), resume=True)
    assert_same(saved(tmp_path / "whole"), saved(tmp_path / "parts"))


def test_init_from_a_published_checkpoint_renders_what_its_networks_show(source, tmp_path):
    method = replace(NERF, num_layers=4, density_activation="relu", early_skip=True)
    first = method.build(ball())
    torch.save({"state_dict": published(first)}, tmp_path / "epoch.ckpt")
    run_training(TrainingJob(method, source, Train(steps=0, init=tmp_path / "epoch.ckpt"), tmp_path / "run"))
    assert_same(run_folder.read_run(tmp_path / "run").method.state_dict(), first.state_dict())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (NERF, r"density_activation: found softplus"),
        (INSTANT, r"initialization: found a file"),
        (replace(NERF, occupancy=True), r"initialization: found a file"),
    ],
)
def test_init_from_a_published_checkpoint_that_does_not_fit_is_refused(method, message, source, tmp_path):
    torch.save(published(replace(NERF, num_layers=4).build(ball())), tmp_path / "epoch.ckpt")
    with pytest.raises(DataError, match=message):
        run_training(TrainingJob(method, source, Train(steps=0, init=tmp_path / "epoch.ckpt"), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_resumption_before_the_first_checkpoint_notes_its_settings(source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(steps=1), tmp_path / "run"))
    (tmp_path / "run" / run_folder.STATE).unlink()
    run_training(TrainingJob(replace(NERF, hidden_dim=8), source, Train(steps=2), tmp_path / "run"), resume=True)
    assert run_folder.read_run(tmp_path / "run").method.settings.hidden_dim == 8


def test_a_folder_that_holds_a_run_is_not_overwritten(source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(steps=1), tmp_path / "run"))
    before = (tmp_path / "run" / run_folder.STATE).read_bytes()
    with pytest.raises(DataError, match=r"run folder: found an existing run"):
        run_training(TrainingJob(NERF, source, Train(steps=2), tmp_path / "run"))
    assert (tmp_path / "run" / run_folder.STATE).read_bytes() == before


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (INSTANT, {}, "method: found nerf"),
        (NERF, {"downscale": 2}, "downscale: found 1"),
        (replace(NERF, hidden_dim=8), {}, "hidden_dim: found 16"),
    ],
)
def test_a_resumption_with_other_settings_is_refused(method, changes, message, source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(steps=1), tmp_path / "run"))
    with pytest.raises(DataError, match=re.escape(message)):
        run_training(TrainingJob(method, replace(source, **changes), Train(steps=2), tmp_path / "run"), resume=True)


def test_a_resumption_without_a_run_is_refused(source, tmp_path):
    with pytest.raises(DataError, match=r"run folder: found no config\.json"):
        run_training(TrainingJob(NERF, source, Train(steps=2), tmp_path / "run"), resume=True)
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_from_the_beginning(source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(steps=4), tmp_path / "whole"))
    run_training(TrainingJob(NERF, source, Train(steps=4), tmp_path / "run"))
    (tmp_path / "run" / run_folder.STATE).unlink()
    run_training(TrainingJob(NERF, source, Train(steps=4), tmp_path / "run"), resume=True)
    assert_same(saved(tmp_path / "whole"), saved(tmp_path / "run"))


def test_a_collapsed_start_is_told_and_begins_again_with_the_next_seed(source, tmp_path, monkeypatch, caplog):
    seeds = []

    class Fragile(DivergenceGuard):
        def __call__(self, state, report):
            if not seeds:
                seeds.append(state.rng.generator.initial_seed())
                raise CollapsedError("every ray has shown one color for 200 steps up to step 201")
            seeds.append(state.rng.generator.initial_seed())

    monkeypatch.setattr("lumifield.training.job.DivergenceGuard", Fragile)
    with caplog.at_level(logging.WARNING):
        run_training(TrainingJob(NERF, source, Train(steps=2, seed=5), tmp_path / "run"))
    assert seeds == [5, 6, 6]
    assert "one color for 200 steps up to step 201: starting again with seed 6" in caplog.text
    run_training(TrainingJob(NERF, source, Train(steps=2, seed=6), tmp_path / "other"))
    assert_same(saved(tmp_path / "run"), saved(tmp_path / "other"))


def test_three_collapsed_starts_are_an_error(source, tmp_path, monkeypatch):
    class Dead(DivergenceGuard):
        def __call__(self, state, report):
            raise CollapsedError("flat")

    monkeypatch.setattr("lumifield.training.job.DivergenceGuard", Dead)
    with pytest.raises(CollapsedError, match="training collapsed to one color with 3 different seeds"):
        run_training(TrainingJob(NERF, source, Train(steps=2), tmp_path / "run"))


def test_a_run_has_a_length():
    assert Budget.of(None, None, default_minutes=DEFAULT_MINUTES) == Budget(seconds=300.0)
    assert Budget.of(7, None, default_minutes=DEFAULT_MINUTES) == Budget(7)
    assert Budget.of(None, 0.5, default_minutes=DEFAULT_MINUTES) == Budget(seconds=30.0)
    assert Budget.of(7, 0.5, default_minutes=DEFAULT_MINUTES) == Budget(7, 30.0)


def test_a_device_that_is_not_there_is_refused():
    assert select_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(DataError, match=f"--device: device: found '{name}'"):
            select_device(name)


def test_a_run_by_the_clock_ends_by_the_clock(source, tmp_path):
    run_training(TrainingJob(NERF, source, Train(minutes=0.005), tmp_path / "run"))
    summary = json.loads((tmp_path / "run/log/summary.json").read_text())
    assert summary["steps"] >= 1
    assert summary["seconds"] >= 0.3


def test_the_console_says_how_it_went(source, tmp_path, capsys):
    run_training(TrainingJob(NERF, source, Train(steps=3), tmp_path / "run"), console=Console(width=300))
    said = capsys.readouterr().out
    assert re.search(r"step +1 +psnr +\d+\.\d+ dB +[\d,]+ rays/s", said)
    assert re.search(r"step 3: validation psnr \d+\.\d+ dB after \d+ s", said)
    assert re.search(rf"3 steps, [\d,]+ rays/s, saved in {tmp_path / 'run'}", said)


def test_ctrl_c_leaves_a_whole_run(source, tmp_path):
    out = tmp_path / "run"
    started = command(source, out, "--steps", "1000000", "--save-every", "1", "--validate-every", "0")
    process = subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(out / run_folder.STATE, process)
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints
    _, about = run_folder.read_tensors(out / run_folder.STATE)
    assert f"{about['step']} steps, " in said
    assert json.loads((out / run_folder.SUMMARY).read_text())["steps"] == about["step"]
    assert run_folder.read_run(out).method.rays_per_step() > 0
    assert not [path for path in out.rglob(".*") if path.is_file()]


def test_a_killed_run_has_whole_files_and_goes_on_from_its_last_checkpoint(source, tmp_path):
    out = tmp_path / "run"
    started = command(source, out, "--steps", "1000000", "--save-every", "1", "--validate-every", "1")
    process = subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(out / run_folder.STATE, process)
    # It saves all the time: some of these moments fall into the middle of a file.
    for moment in (0.0, 0.05, 0.03):
        time.sleep(moment)
        for file in (run_folder.STATE, run_folder.WEIGHTS):
            run_folder.read_tensors(out / file)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    last = run_folder.read_tensors(out / run_folder.STATE)[1]
    assert json.loads((out / run_folder.SUMMARY).read_text())["steps"] - last["step"] in (0, 1)
    method = run_folder.read_config(out).method
    assert isinstance(method, Instant)
    run_training(TrainingJob(method, source, Train(steps=last["step"] + 1), out), resume=True)
    assert run_folder.read_tensors(out / run_folder.STATE)[1]["step"] == last["step"] + 1


def test_scene_and_files_agree(source):
    there, meant = data.read_scene(source, "train"), ball(16)
    assert torch.equal(there.cameras.c2w, meant.cameras.c2w[::2])
    assert torch.equal(there.ground_truth(3), meant.ground_truth(6))
