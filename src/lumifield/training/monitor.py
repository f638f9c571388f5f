"""Monitoring of a training run: live status line, TensorBoard, and validation views."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from lumifield.data.scene import Scene
from lumifield.rendering.view import render_view
from lumifield.runs.checkpoint import Validation
from lumifield.runs.state import Budget
from lumifield.runtime.colormaps import quantile_range
from lumifield.runtime.image_metrics import mean_squared_error, psnr
from lumifield.training.fit import StepReport, TrainingState

SMOOTHING = 0.98
SCALARS_EVERY = 100
LINE_EVERY_SECONDS = 0.5
PLAIN_LINE_EVERY_SECONDS = 20.0


class Monitor:
    """Status line with step, PSNR of the training rays, rays per second and time left; scalars to TensorBoard."""

    def __init__(self, writer: SummaryWriter, budget: Budget, console: Console) -> None:
        self._writer, self._budget, self._console = writer, budget, console
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._error: float | None = None
        self._shown = -math.inf
        if self._live:
            self._live.start()

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Updates the line and the scalars after a step."""
        error = float(((report.predicted - report.ground_truth) ** 2).mean())
        if math.isfinite(error):
            self._error = error if self._error is None else SMOOTHING * self._error + (1 - SMOOTHING) * error
        if state.step % SCALARS_EVERY == 0:
            self._scalars(state, report)
        every = LINE_EVERY_SECONDS if self._live else PLAIN_LINE_EVERY_SECONDS
        if state.clock.seconds - self._shown > every:
            self._shown = state.clock.seconds
            self._show(self._line(state, report))

    def close(self) -> None:
        """Removes the live line."""
        if self._live:
            self._live.stop()

    @property
    def train_psnr(self) -> float:
        """Smoothed PSNR of recent training rays [dB]."""
        return psnr(1.0 if self._error is None else self._error)

    def _line(self, state: TrainingState, report: StepReport) -> str:
        seconds = state.clock.seconds
        left = f"{seconds / report.fraction * (1 - report.fraction):5.0f}" if report.fraction > 0 else "    ?"
        return (
            f"step {state.step:6d}  psnr {self.train_psnr:5.2f} dB  {state.rays / max(seconds, 1e-9):9,.0f} rays/s  "
            f"{seconds:5.0f} s  {left} s left"
        )

    def _show(self, line: str) -> None:
        if self._live:
            self._live.update(Text(line))
        else:
            self._console.print(line, highlight=False)

    def _scalars(self, state: TrainingState, report: StepReport) -> None:
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {"train/psnr": self.train_psnr, "train/rate": report.learning_rate_factor, "train/rays": report.rays}
        values |= {"train/samples_per_ray": report.samples / report.rays}
        gradients = [one.grad for one in state.method.parameters() if one.grad is not None]
        values |= {"train/gradient_norm": float(torch.nn.utils.get_total_norm(gradients))}
        values |= {"train/rays_per_second": state.rays / max(state.clock.seconds, 1e-9)}
        for name, value in values.items():
            self._writer.add_scalar(name, value, state.step)


class ViewValidator:
    """Renders validation views without jitter or noise, and records their mean PSNR."""

    def __init__(self, scene: Scene, writer: SummaryWriter, print_line: Callable[[str], None]) -> None:
        self._scene, self._writer, self._print = scene, writer, print_line

    def __call__(self, state: TrainingState) -> Validation:
        """Scores the current weights."""
        value, loss = self._score_views(state)
        self._writer.add_scalar("val/psnr", value, state.step)
        self._writer.add_scalar("val/loss", loss, state.step)
        self._print(f"step {state.step}: validation psnr {value:.2f} dB after {state.clock.seconds:.0f} s")
        return Validation(state.step, state.clock.seconds, state.rays, value)

    def _score_views(self, state: TrainingState) -> tuple[float, float]:
        """Mean PSNR [dB] and mean squared error over the views."""
        scene, method = self._scene, state.method
        method.eval()
        device = next(method.parameters()).device
        errors = []
        for index in range(len(scene)):
            view, ground_truth = render_view(method, scene, index, device=device), scene.ground_truth(index)
            errors.append(mean_squared_error(view.rgb.clamp(0, 1), ground_truth, scene.valid_mask(index)))
            if index == 0:
                depth = view.depth_image(*quantile_range(view.depth[view.hit_mask])).float() / 255
                triptych = torch.cat([ground_truth, view.rgb.clamp(0, 1), depth], 1)
                self._writer.add_image("val/ground_truth_rendering_depth", triptych, state.step, dataformats="HWC")
        method.train()
        return sum(map(psnr, errors)) / len(errors), sum(errors) / len(errors)
