from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

from analytic import Ball
from lumifield.training import Train
from lumifield.training.fit import StepReport, TrainingState
from lumifield.training.job import TrainingJob, run_training
from lumifield.viewer.render_queue import RenderQueue
from lumifield.viewer.training_viewer import TrainingViewer
from scenes import INSTANT, written
from view_requests import VIEW


class ClientFromFirstStep:
    """Training callback: a viewer with one client from the first step, and the heights of its images."""

    def __init__(self, folder, monkeypatch) -> None:
        self.heights: list[int] = []
        self.reports: list[str] = []
        # A clock that always advances leaves time for an image in every step.
        times = iter(range(0, 1_000_000, 1000))
        self.viewer = TrainingViewer(
            folder, self.reports.append, 0, refresh_seconds=0.0, clock=lambda: float(next(times) ** 2)
        )
        complete_task = RenderQueue.complete_task

        def record_height(queue, task, num_rays, seconds):
            self.heights.append(task.height)
            complete_task(queue, task, num_rays, seconds)

        monkeypatch.setattr(RenderQueue, "complete_task", record_height)

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        self.viewer(state, report)
        if state.step == 1:
            self.viewer.viewer.queue.request_view(0, replace(VIEW, height=48))


def test_a_viewed_training_has_the_same_weights(tmp_path, monkeypatch):
    source, settings = written(tmp_path / "data"), Train(steps=6, num_validation_views=0)
    run_training(TrainingJob(INSTANT, source, settings, tmp_path / "alone"))
    client = ClientFromFirstStep(tmp_path / "viewed", monkeypatch)
    with closing(client.viewer):
        run_training(TrainingJob(INSTANT, source, settings, tmp_path / "viewed"), callbacks=[client])
        assert client.reports == [f"viewer at {client.viewer.viewer.address}"]
    # Coarse, final, and the final image again after each step that outdates it.
    assert client.heights[-2:] == [48, 48]
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("alone", "viewed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_rendering_takes_at_most_half_of_the_time(tmp_path, monkeypatch):
    time = SimpleNamespace(now=100.0)
    render_starts = []

    def render_next(timeout: float) -> None:
        render_starts.append(time.now)
        time.now += 3.0

    viewer = TrainingViewer(tmp_path, print, clock=lambda: time.now)
    method = Ball()
    queue = SimpleNamespace(invalidate_views=lambda: None)
    monkeypatch.setattr(viewer, "_update_viewer", lambda state: SimpleNamespace(queue=queue, render_next=render_next))
    for _ in range(10):
        viewer(SimpleNamespace(method=method), None)
        assert method.training
        time.now += 1.0
    assert render_starts == [100, 106, 112, 118]
