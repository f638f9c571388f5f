import io
import json
import math
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from rich.console import Console

from lumifield.methods.base import Method, Rendered, TrainingContext
from lumifield.runs.checkpoint import CheckpointSaver, Validation
from lumifield.runs.state import Budget, RunState
from lumifield.runtime.rng import Rng
from lumifield.training import monitor
from lumifield.training.fit import StepReport
from lumifield.training.monitor import Monitor, ViewValidator
from scenes import NERF, ball

SCENE = ball(3, 8)


class Writer:
    """Keeps what TensorBoard is told."""

    def __init__(self) -> None:
        self.scalars: dict[str, dict[int, float]] = {}
        self.images: dict[str, torch.Tensor] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.setdefault(name, {})[step] = value

    def add_image(self, name: str, image: torch.Tensor, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.images[name] = image


def report_of(error: float, fraction: float = 0.25) -> StepReport:
    truth = torch.zeros(4, 3)
    return StepReport({"rgb": error, "extra": 0.5}, truth + math.sqrt(error), truth, 4, 12, 0.5, fraction)


def state_at(step: int, seconds: float, method: Method | None = None):
    method = method or torch.nn.Linear(2, 1)
    clock = SimpleNamespace(seconds=seconds)
    return Mock(spec=RunState, step=step, rays=4 * step, clock=clock, method=method)


def watching(writer, *, terminal: bool = False) -> tuple[Monitor, io.StringIO]:
    said = io.StringIO()
    return Monitor(writer, Budget(100), Console(file=said, width=200, force_terminal=terminal)), said


@pytest.fixture(autouse=True)
def _loose(monkeypatch):
    """Stand-ins for a state and a writer are no instances of their types."""
    for owner in (Monitor, ViewValidator):
        for name in ("__init__", "__call__", "_line", "_scalars", "look", "_views"):
            if hasattr(getattr(owner, name, None), "__wrapped__"):
                monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)


def test_the_norm_of_the_gradient_is_told():
    writer = Writer()
    watch, _ = watching(writer)
    state = state_at(monitor.SCALARS_EVERY, 1.0)
    state.method.weight.grad = torch.tensor([[3.0, 4.0]])
    state.method.bias.grad = torch.tensor([12.0])
    watch(state, report_of(0.01))
    assert writer.scalars["train/gradient_norm"] == {monitor.SCALARS_EVERY: 13}


def test_the_line_has_step_psnr_speed_and_the_time_left():
    watch, said = watching(Writer())
    watch(state_at(50, 10.0), report_of(0.01))
    assert said.getvalue() == "step     50  psnr 20.00 dB         20 rays/s     10 s     30 s left\n"


def test_without_a_terminal_a_line_comes_every_twenty_seconds():
    watch, said = watching(Writer())
    for second in range(0, 60):
        watch(state_at(second + 1, float(second)), report_of(0.01))
    assert said.getvalue().count("\n") == 3


def test_on_a_terminal_the_line_goes_away():
    watch, said = watching(Writer(), terminal=True)
    watch(state_at(1, 1.0), report_of(0.01))
    watch.close()
    assert "step      1" in said.getvalue()


def test_the_psnr_is_smoothed_and_leaves_broken_steps_out():
    watch, _ = watching(Writer())
    watch(state_at(1, 0.0), report_of(0.1))
    watch(state_at(2, 0.0), report_of(math.nan))
    watch(state_at(3, 0.0), report_of(0.2))
    assert watch.train_psnr == pytest.approx(-10 * math.log10(0.98 * 0.1 + 0.02 * 0.2), abs=1e-4)


def test_the_psnr_of_a_perfect_step_is_the_highest():
    watch, _ = watching(Writer())
    assert watch.train_psnr == 0
    watch(state_at(1, 0.0), report_of(0.0))
    assert watch.train_psnr == 100


def test_scalars_are_noted_every_hundred_steps():
    writer = Writer()
    watch, _ = watching(writer)
    for step in (99, 100, 101, 200):
        watch(state_at(step, 10.0), report_of(0.01))
    assert all(set(values) == {100, 200} for values in writer.scalars.values())
    assert {name: values[100] for name, values in writer.scalars.items()} == pytest.approx(
        {
            "loss/rgb": 0.01,
            "loss/extra": 0.5,
            "train/psnr": 20.0,
            "train/rate": 0.5,
            "train/rays": 4,
            "train/samples_per_ray": 3.0,
            "train/gradient_norm": 0.0,
            "train/rays_per_second": 40.0,
        },
        rel=1e-5,
    )


class Gray(Method):
    """One gray everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, rays, context):
        assert not isinstance(context, TrainingContext)
        assert not self.training
        return Rendered(self.value + torch.zeros(len(rays), 3), rays.far, torch.ones(len(rays)))


def looking(folder, scene=SCENE, every: int = 10, history=None, keep_latest=False):
    kept, said, writer = [], [], Writer()
    validate = None if scene is None else ViewValidator(scene, writer, said.append)
    latest = {"keep_latest": keep_latest, "validate_every": every, "save_every": 0}
    saver = CheckpointSaver(folder, history or [], validate, **latest)
    saver._save_weights = lambda state: kept.append(state.step)
    return saver, kept, said, writer


def gray_errors(value: float) -> list[float]:
    return [float(((SCENE.ground_truth(index) - value) ** 2).mean()) for index in range(len(SCENE))]


def gray_psnr(value: float) -> float:
    return sum(-10 * math.log10(error) for error in gray_errors(value)) / len(SCENE)


def gray_loss(value: float) -> float:
    return sum(gray_errors(value)) / len(SCENE)


def test_views_are_looked_at_every_so_many_steps_and_the_best_are_kept(tmp_path):
    look, kept, said, writer = looking(tmp_path)
    for step, value in ((5, 0.1), (10, 0.2), (20, 0.8), (30, 0.5)):
        method = Gray(value).train()
        look(state_at(step, 60.0 + step, method), report_of(0.1))
        assert method.training
    expected = [gray_psnr(value) for value in (0.2, 0.8, 0.5)]
    assert kept == [
        step for step, psnr, best in zip((10, 20, 30), expected, (0, *expected), strict=False) if psnr > best
    ]
    history = json.loads((tmp_path / "log" / "history.json").read_text())
    assert [entry["psnr"] for entry in history] == pytest.approx(expected)
    assert [(entry["step"], entry["seconds"], entry["rays"]) for entry in history] == [
        (10, 70, 40),
        (20, 80, 80),
        (30, 90, 120),
    ]
    assert said[0] == f"step 10: validation psnr {expected[0]:.2f} dB after 70 s"
    assert list(writer.scalars["val/psnr"]) == [10, 20, 30]
    assert writer.scalars["val/loss"] == pytest.approx({10: gray_loss(0.2), 20: gray_loss(0.8), 30: gray_loss(0.5)})
    assert writer.images["val/ground_truth_rendering_depth"].shape == (8, 24, 3)


def test_where_photographs_have_appearances_the_last_weights_are_kept(tmp_path):
    look, kept, _, _ = looking(tmp_path, keep_latest=True)
    for step, value in ((10, 0.5), (20, 0.0)):
        look(state_at(step, 1.0, Gray(value)), report_of(0.1))
    assert gray_psnr(0.0) < gray_psnr(0.5)
    assert kept == [10, 20]


def test_the_same_step_is_looked_at_once(tmp_path):
    look, _, said, _ = looking(tmp_path)
    state = state_at(10, 1.0, Gray(0.5))
    look(state, report_of(0.1))
    look.validate(state)
    assert len(said) == 1


def test_without_views_the_last_weights_are_the_best(tmp_path):
    look, kept, said, _ = looking(tmp_path, scene=None)
    look(state_at(10, 1.0, Gray(0.5)), report_of(0.1))
    assert kept == []
    look.validate(state_at(11, 1.0, Gray(0.5)))
    look.validate(state_at(12, 1.0, Gray(0.5)))
    assert kept == [11, 12]
    assert said == []
    assert not list(tmp_path.iterdir())


def test_what_was_best_before_a_resumption_stays_best(tmp_path):
    look, kept, _, _ = looking(tmp_path, history=[Validation(3, 1.0, 5, 90.0)])
    look.validate(state_at(10, 1.0, Gray(0.5)))
    assert kept == []
    assert len(json.loads((tmp_path / "log" / "history.json").read_text())) == 2


def test_pixels_that_do_not_count_are_left_out(tmp_path):
    mask = torch.zeros(len(SCENE.images.pixels), dtype=torch.bool)
    mask[:: 8 * 8] = True  # the first pixel of each view is background, white
    scene = replace(SCENE, images=replace(SCENE.images, mask=mask))
    look, _, _, _ = looking(tmp_path, scene=scene)
    look.validate(state_at(10, 1.0, Gray(0.9)))
    assert look.history[0].psnr == pytest.approx(20, abs=1e-4)


def test_looking_is_deterministic_and_leaves_the_random_numbers_alone(tmp_path):
    torch.manual_seed(0)
    method, rng = NERF.build(SCENE), Rng(torch.Generator().manual_seed(1))
    look, _, _, _ = looking(tmp_path)
    before = torch.get_rng_state(), rng.generator.get_state()
    for step in (1, 2):
        look.validate(state_at(step, 1.0, method))
    first, second = (entry.psnr for entry in look.history)
    assert first == second
    assert torch.equal(before[0], torch.get_rng_state())
    assert monitor.SMOOTHING < 1
