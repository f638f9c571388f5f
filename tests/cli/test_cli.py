"""The words of the command line: what each command is made of, and what a wrong one is told."""

import json
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

import lumifield.api.run
import lumifield.api.training
import lumifield.bench.benchmark
import lumifield.evaluation.evaluate
import lumifield.rendering.render
import lumifield.runs.run_folder
import lumifield.synthetic
import lumifield.training.job
from commands import SENTENCE, called, refusal
from lumifield.cli import main
from lumifield.data import Source
from lumifield.evaluation.metrics import Metrics
from lumifield.methods import Instant, Nerf
from lumifield.methods.base import Method, Traits
from lumifield.runs.run_config import RunConfig
from lumifield.runs.run_folder import TrainingSummary
from lumifield.runtime.config import to_plain
from lumifield.synthetic import StillLife
from lumifield.training import Train, TrainingError
from lumifield.training.job import TrainingJob


@pytest.fixture
def trained(monkeypatch) -> list:
    """What `train` was asked for: jobs, and whether to resume."""
    jobs = []
    monkeypatch.setattr(
        lumifield.api.training, "run_training", lambda job, resume, console, callbacks: jobs.append((job, resume))
    )
    return jobs


@pytest.fixture
def loaded(monkeypatch) -> SimpleNamespace:
    """Stands for a run that `load` gave; notes with what."""
    run = SimpleNamespace(source=None, config=RunConfig(Instant()), method=Mock(spec=Method, traits=Traits()))

    def load(folder, which, *, device, chunk):
        run.folder, run.which, run.chunk = folder, which, chunk
        return run

    monkeypatch.setattr(lumifield.api.run, "read_run", load)
    return run


def test_train_takes_the_default_method_and_settings(trained):
    called("train", "--data", "photos", "--out", "run")
    assert trained == [(TrainingJob(Instant(), Source(Path("photos")), Train(), Path("run")), False)]


def test_train_takes_settings_of_every_part(trained):
    called(
        *("train", "nerf", "--data", "photos", "--out", "run", "--hidden-dim", "64", "--optimizer.kind", "radam"),
        *("--schedule.kind", "step", "--schedule.milestones", "0.5", "0.75", "--downscale", "4", "--steps", "7"),
    )
    job, _ = trained[0]
    assert isinstance(job.method, Nerf)
    assert (job.method.hidden_dim, job.method.optimizer.kind) == (64, "radam")
    assert (job.method.schedule.kind, job.method.schedule.milestones) == ("step", (0.5, 0.75))
    assert (job.source.downscale, job.settings.steps) == (4, 7)


def config(folder: Path, **parts) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(parts))
    return file


def test_a_config_gives_what_the_command_line_does_not(trained, tmp_path):
    method = {"kind": "nerf"} | to_plain(Nerf(hidden_dim=32, num_layers=4))
    file = config(tmp_path, method=method, source={"data": "photos", "downscale": 2}, train={"seed": 3, "steps": 9})
    called("train", "--config", file, "--out", "run")
    called("train", f"--config={file}", "--out", "run", "--steps", "5", "--downscale", "8")
    called("train", "nerf", "--config", file, "--out", "run", "--num-layers", "2")
    source = Source(Path("photos"), downscale=2)
    assert trained[0][0] == TrainingJob(Nerf(hidden_dim=32, num_layers=4), source, Train(seed=3, steps=9), Path("run"))
    assert (trained[1][0].settings, trained[1][0].source.downscale) == (Train(seed=3, steps=5), 8)
    assert trained[2][0].method == Nerf(hidden_dim=32, num_layers=2)


def test_a_config_without_data_leaves_it_to_the_command_line(tmp_path):
    file = config(tmp_path, source={"downscale": 0}, train={"seed": 3})
    command = [sys.executable, "-m", "lumifield", "train", "--config", str(file), "--out", str(tmp_path / "run")]
    without, given = (
        subprocess.run([*command, *data], capture_output=True, text=True) for data in ((), ("--data", str(tmp_path)))
    )
    assert (without.returncode, given.returncode) == (2, 2)
    assert "--data" in without.stderr
    assert f"{tmp_path}: downscale: found 0" in given.stderr


def test_a_resumption_takes_the_settings_of_the_run(trained, tmp_path):
    config(tmp_path, format=1, lumifield="0", method={"kind": "nerf", "hidden_dim": 32}, source={"data": "/photos"})
    called("train", "--resume", "--out", tmp_path, "--steps", "50")
    job = TrainingJob(Nerf(hidden_dim=32), Source(Path("/photos")), Train(steps=50), tmp_path)
    assert trained == [(job, True)]


def test_a_training_that_starts_from_a_run_has_its_method(trained, tmp_path):
    config(
        tmp_path,
        format=1,
        lumifield="0",
        method={"kind": "nerf", "hidden_dim": 32, "num_layers": 4},
        source={},
        meta={},
    )
    called("train", "--data", "photos", "--init", tmp_path, "--out", "run")
    called("train", "nerf", "--data", "photos", "--init", tmp_path, "--out", "run", "--num-layers", "2")
    called("train", "instant", "--data", "photos", "--init", tmp_path, "--out", "run")
    methods = [Nerf(hidden_dim=32, num_layers=4), Nerf(hidden_dim=32, num_layers=2), Instant()]
    jobs = [TrainingJob(method, Source(Path("photos")), Train(init=tmp_path), Path("run")) for method in methods]
    assert [job for job, _ in trained] == jobs


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"methods": {}}, "key: found 'methods'"),
        ({"method": {"kind": "gaussian"}}, "method kind: found 'gaussian'"),
        ({"method": {"kind": "nerf", "levels": 3}}, "key: found 'levels'"),
        ({"method": [1]}, r"method: found \[1\]"),
        ({"train": {"steps": "many"}}, "steps: found 'many'"),
        ({"source": 3}, "source: found 3"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(parts, message, trained, tmp_path, capsys):
    file = config(tmp_path, **({"source": {"data": "photos"}} | parts))
    assert re.search(f"config.json: {message}", refusal(capsys, "train", "--config", file, "--out", "run"))
    assert trained == []


def test_settings_that_cannot_be_are_one_sentence(trained, capsys):
    given = ("train", "nerf", "--data", "photos", "--out", "run")
    assert "nerf: num_samples: found 1" in refusal(capsys, *given, "--num-samples", "1")
    assert "train: steps: found -1" in refusal(capsys, *given, "--steps", "-1")
    assert trained == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("train", "--data", "d", "--out", "o", "--stepz", "3"), "--stepz"),
        (("train", "--data", "d", "--out", "o", "--format", "collmap"), "--format"),
        (("train", "--data", "d", "--out", "o", "--steps", "few"), "--steps"),
        (("train", "gaussian", "--data", "d", "--out", "o"), "gaussian"),
        (("train", "--data", "d"), "--out"),
        (("eval",), "RUN"),
        (("eval", "run", "--splits", "val"), "--splits"),
        (("render", "run", "--size", "3"), "--size"),
        (("render", "run", "--depth-format", "exr"), "--depth-format"),
        (("bench", "tpu", "--data", "d"), "tpu"),
        (("synthesize-data", "cube", "--out", "o"), "cube"),
        (("trian",), "trian"),
    ],
)
def test_a_wrong_word_is_named(words, named, trained, capsys):
    with pytest.raises(SystemExit, match="2"):
        called(*words)
    said = capsys.readouterr().err
    assert named in said
    assert "Traceback" not in said
    assert trained == []


def metrics_of(folder: Path, *, split: str = "test", right_half: bool = False) -> Metrics:
    """Metrics of two views; the fields that are not printed are empty."""
    scores = dict.fromkeys(("psnr_masked_image", "lpips", "mask_iou", "average_error"))
    rates = dict.fromkeys(("n_train_images", "train_rays_per_second", "render_rays_per_second", "data"))
    durations = {"train_seconds": 0.0, "train_steps": 0, "render_seconds": 0.0}
    content = {"per_scale": {}, "per_image": (), "protocol": {}, "method": "instant", "lpips_reason": "offline"}
    said = {"psnr": 30.123, "ssim": 0.9, "n_images": 2, "split": split, "right_half": right_half, "folder": folder}
    return Metrics(**scores | rates | durations | content | said)  # type: ignore[arg-type]


def test_eval(loaded, monkeypatch, capsys, tmp_path):
    asked = []

    def evaluate(run, split, *, scoring, save_images, download_lpips, progress):
        asked.append((run, split, scoring.appearance, scoring.right_half, save_images))
        progress(1, 2)
        folder = lumifield.evaluation.evaluate.evaluation_folder(run, split, scoring)
        return metrics_of(folder, split=split, right_half=scoring.right_half)

    monkeypatch.setattr(lumifield.evaluation.evaluate, "evaluate", evaluate)
    called("eval", tmp_path)
    said = capsys.readouterr().out.split("\n")
    assert said[-4:] == ["test, 2 views: psnr 30.12 dB, ssim 0.9", "no lpips: offline", said[-2], ""]
    assert said[-2] == str(tmp_path / "eval" / "test" / "report.html")
    assert (asked.pop(), loaded.which) == ((loaded, "test", "mean", False, True), "best")
    called("eval", tmp_path, "--split", "val", "--no-save-images", "--checkpoint", "last", "--chunk", "7")
    assert (asked.pop(), loaded.which, loaded.chunk) == ((loaded, "val", "mean", False, False), "last", 7)
    called("eval", tmp_path, "--appearance", "affine")
    assert asked.pop() == (loaded, "test", "affine", True, True)
    assert "test, 2 right halves: psnr" in capsys.readouterr().out
    called("eval", tmp_path, "--right-half")
    assert asked.pop() == (loaded, "test", "mean", True, True)


def test_eval_looks_for_the_photographs_where_it_is_told(monkeypatch, tmp_path):
    from scenes import INSTANT, ball

    run = lumifield.runs.run_folder.LoadedRun(
        *(
            tmp_path,
            INSTANT.build(ball()),
            RunConfig(Instant()),
            Source(Path("old"), downscale=2),
            {},
            torch.device("cpu"),
            TrainingSummary(),
        )
    )
    seen = []
    monkeypatch.setattr(lumifield.api.run, "read_run", lambda *_, **__: run)
    monkeypatch.setattr(
        lumifield.evaluation.evaluate,
        "evaluate",
        lambda run, *_, **__: seen.append(run.source) or metrics_of(folder=tmp_path),
    )
    called("eval", tmp_path, "--data", "new")
    called("eval", tmp_path, "--downscale", "4")
    assert seen == [Source(Path("new"), downscale=2), Source(Path("old"), downscale=4)]


def test_render(loaded, monkeypatch, tmp_path, capsys):
    asked = {}
    monkeypatch.setattr(
        lumifield.rendering.render,
        "make_path_cameras",
        lambda run, *words, **more: asked.update(path=words, **more) or "cameras",
    )

    def render_path(run, cameras, out, **options):
        options.pop("progress")(1, 1)
        asked.update(cameras=cameras, out=out, **options)

    monkeypatch.setattr(lumifield.rendering.render, "render_camera_path", render_path)
    called(
        *("render", "run", "--out", "film.mp4", "--path", "spiral", "--num-frames", "9", "--size", "40", "30"),
        *("--channels", "rgb,depth", "--depth-format", "pfm", "--fps", "12", "--normals", "depth"),
        *("--appearance", "noon", "dusk"),
    )
    assert asked == {
        "path": ("spiral", 9, (40, 30)),
        "through": ("noon", "dusk"),
        "cameras": "cameras",
        "out": Path("film.mp4"),
        "options": lumifield.rendering.render.RenderOptions(("rgb", "depth"), "depth", ("noon", "dusk")),
        "depth_format": "pfm",
        "fps": 12,
    }
    assert capsys.readouterr().out.endswith("film.mp4\n")


def test_render_one_view(loaded, monkeypatch, capsys):
    still = lumifield.rendering.render.ViewFiles((Path("a.png"), Path("b.png")), 1.234, 30.5)
    asked = []
    monkeypatch.setattr(
        lumifield.rendering.render,
        "render_split_view",
        lambda run, *words, **options: asked.append((*words, options)) or still,
    )
    called("render", "run", "--view-index", "3", "--split", "val", "--size", "8", "6", "--chunk", "9")
    assert (asked, loaded.chunk) == (
        [("val", 3, None, {"size": (8, 6), "options": lumifield.rendering.render.RenderOptions()})],
        9,
    )
    assert capsys.readouterr().out == "1.23 s, psnr 30.50 dB: a.png, b.png\n"


@pytest.mark.parametrize("channels", ["foo", "rgb,foo", "", "rgb, depth"])
def test_an_unknown_channel_is_one_sentence(loaded, monkeypatch, capsys, channels):
    monkeypatch.setattr(lumifield.rendering.render, "make_path_cameras", lambda *_, **__: None)
    said = refusal(capsys, "render", "run", "--out", "film.mp4", "--channels", channels)
    unknown = next(name for name in channels.split(",") if name != "rgb")
    assert f"--channels: channel: found {unknown!r}" in said


def test_render_has_to_know_where_to(loaded, capsys):
    assert "--out: output: found nothing" in refusal(capsys, "render", "run")


def test_synthesize_data(monkeypatch):
    asked = []
    monkeypatch.setattr(lumifield.synthetic, "synthesize_data", lambda kind, out, note: asked.append((kind, out)))
    called("synthesize-data", "still-life", "--out", "scene", "--image-width", "32", "--format", "llff")
    assert asked == [(StillLife(image_width=32, format="llff"), Path("scene"))]


def test_synthesize_data_of_several_sizes(monkeypatch):
    import lumifield.synthetic.multiscale

    asked = []
    monkeypatch.setattr(lumifield.synthetic.multiscale, "write_multiscale_scene", lambda *words: asked.append(words))
    options = ("--num-scales", "3", "--premultiply-alpha")
    called("synthesize-data", "multiscale", "--from", "lego", "--out", "scene", *options)
    assert asked == [(Path("lego"), Path("scene"), lumifield.synthetic.multiscale.MultiscaleSettings(3, True))]


def test_bench(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(lumifield.bench.benchmark, "run_benchmark", lambda *words: asked.append(words))
    monkeypatch.setattr(lumifield.bench.benchmark, "format_benchmark", lambda result: "a table")
    called("bench", "cpu", "--data", "lego", "--minutes", "0.5", "--seed", "2", "--out", "results")
    assert asked == [(Source(Path("lego")), 0.5, 2, Path("results"), "cpu")]
    assert capsys.readouterr().out == "a table\n"


def test_info(capsys):
    called("info")
    said = capsys.readouterr().out
    assert said.startswith(f"lumifield {lumifield.__version__}, Python ")
    assert "kernels" in said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "lumifield: interrupted\n"),
        (TrainingError("the loss is not finite at step 3"), 1, "lumifield: the loss is not finite at step 3\n"),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, said):
    def stopped(*_, **__):
        raise error

    monkeypatch.setattr(lumifield.api.training, "run_training", stopped)
    with pytest.raises(SystemExit) as left:
        called("train", "--data", "photos", "--out", "run")
    assert left.value.code == code
    assert capsys.readouterr().err == said


def test_faults_of_the_program_are_not_hidden(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(lumifield.api.training, "run_training", broken)
    with pytest.raises(ZeroDivisionError):
        called("train", "--data", "photos", "--out", "run")


def test_the_module_is_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lumifield", "eval", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert SENTENCE.fullmatch(done.stderr), done.stderr
    assert main.main.__module__ == "lumifield.cli.main"


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    command = [sys.executable, "-m", "lumifield", "train", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode == 141


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no such settings")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    program = """
import resource, torch
from lumifield.environment import keep_freed_memory
keep_freed_memory()
def faults_of(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        larger, smaller = torch.zeros(5_000_000), torch.zeros(3_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults_of(20) for _ in range(4)))
"""
    pages = 20 * 4 * 8_000_000 / resource.getpagesize()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.01 * pages
