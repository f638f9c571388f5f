"""What a person sees of a run: a live line, TensorBoard, validation views and history.json."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from lumifield.data.scene import Scene
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import write_json
from lumifield.runtime.image_io import mean_squared_error, psnr, quantile_range
from lumifield.training.fit import Budget, Report, State

SMOOTHING = 0.98
SCALARS_EVERY = 100
LINE_EVERY_SECONDS = 0.5
PLAIN_LINE_EVERY_SECONDS = 20.0


class Monitor:
    """A line with step, PSNR of the training rays, rays/s and time left; scalars to TensorBoard."""

    def __init__(self, writer: SummaryWriter, budget: Budget, console: Console) -> None:
        self._writer, self._budget, self._console = writer, budget, console
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._error: float | None = None
        self._shown = -math.inf
        if self._live:
            self._live.start()

    def __call__(self, state: State, report: Report) -> None:
        """Notes one step."""
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
        """Takes the live line away."""
        if self._live:
            self._live.stop()

    @property
    def train_psnr(self) -> float:
        """PSNR of the last training rays [dB]."""
        return psnr(1.0 if self._error is None else self._error)

    def _line(self, state: State, report: Report) -> str:
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

    def _scalars(self, state: State, report: Report) -> None:
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {"train/psnr": self.train_psnr, "train/rate": report.rate, "train/rays": report.rays}
        values |= {"train/samples_per_ray": report.samples / report.rays}
        gradients = [one.grad for one in state.method.parameters() if one.grad is not None]
        values |= {"train/gradient_norm": float(torch.nn.utils.get_total_norm(gradients))}
        values |= {"train/rays_per_second": state.rays / max(state.clock.seconds, 1e-9)}
        for name, value in values.items():
            self._writer.add_scalar(name, value, state.step)


class Validator:
    """Looks at validation views without jitter or noise, has the best weights kept, and notes the history."""

    def __init__(
        self,
        scene: Scene | None,
        every: int,
        folder: Path,
        writer: SummaryWriter,
        say: Callable[[str], None],
        history: list[dict[str, Any]],
        keep: Callable[[State], None],
    ) -> None:
        self._scene, self._every, self._folder, self._writer, self._say = scene, every, folder, writer, say
        self.history = history
        self._keep = keep
        self._looked = -1

    @property
    def best(self) -> float:
        """The best PSNR so far [dB], minus infinity before the first look."""
        return max((entry["psnr"] for entry in self.history), default=-math.inf)

    def __call__(self, state: State, report: Report) -> None:
        """Looks every so many steps."""
        if self._scene is not None and self._every and state.step % self._every == 0:
            self.look(state)

    def look(self, state: State) -> None:
        """Renders the views and keeps the weights if they are the best so far; without views the last are the best."""
        if self._scene is None:
            self._keep(state)
        if self._scene is None or self._looked == state.step:
            return
        self._looked = state.step
        value, loss = self._views(state)
        # An image of no known appearance cannot tell which weights are better: the last are kept.
        if value > self.best or state.method.appearance:
            self._keep(state)
        entry = {"step": state.step, "seconds": state.clock.seconds, "rays": state.rays, "psnr": value}
        self.history.append(entry)
        write_json(self._folder / "history.json", self.history)
        self._writer.add_scalar("val/psnr", value, state.step)
        self._writer.add_scalar("val/loss", loss, state.step)
        self._say(f"step {state.step}: validation psnr {value:.2f} dB after {state.clock.seconds:.0f} s")

    def _views(self, state: State) -> tuple[float, float]:
        """Means over the views of PSNR [dB] and of the squared error."""
        scene, method = self._scene, state.method
        assert scene is not None
        method.eval()
        device = next(method.parameters()).device
        errors = []
        for index in range(len(scene)):
            view, truth = render_view(method, scene, index, device=device), scene.ground_truth(index)
            errors.append(mean_squared_error(view.rgb.clamp(0, 1), truth, scene.valid_mask(index)))
            if index == 0:
                depth = view.depth_image(*quantile_range(view.depth[view.solid])).float() / 255
                triptych = torch.cat([truth, view.rgb.clamp(0, 1), depth], 1)
                self._writer.add_image("val/truth_prediction_depth", triptych, state.step, dataformats="HWC")
        method.train()
        return sum(map(psnr, errors)) / len(errors), sum(errors) / len(errors)
