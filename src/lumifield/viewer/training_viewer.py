"""Training callback that shows the scene in the browser while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lumifield.runs.run_folder import CAMERAS, LoadedRun, RunConfig, TrainingSummary, read_split_cameras
from lumifield.training.fit import StepReport, TrainingState
from lumifield.viewer.server import Viewer


class TrainingViewer:
    """Callback of a training that serves a viewer from the first step until `close`.

    Renders between two steps, for at most half of the time. Views at rest are rendered again every `refresh_seconds`.
    """

    def __init__(
        self,
        folder: Path,
        report_status: Callable[[str], None],
        port: int = 8080,
        *,
        refresh_seconds: float = 2.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.viewer: Viewer | None = None
        self._folder, self._report_status, self._port = folder, report_status, port
        self._refresh_seconds, self._clock = refresh_seconds, clock
        self._next_render = self._last_refresh = 0.0

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Renders the next image if the training has had as much time as the last image."""
        start = self._clock()
        if start < self._next_render:
            return
        viewer = self._update_viewer(state)
        if start - self._last_refresh > self._refresh_seconds:
            self._last_refresh = start
            viewer.queue.invalidate_views()
        state.method.eval()
        try:
            viewer.render_next(timeout=0.0)
        finally:
            state.method.train()
        now = self._clock()
        self._next_render = 2 * now - start

    def close(self) -> None:
        """Stops the server."""
        if self.viewer is not None:
            self.viewer.close()

    def _update_viewer(self, state: TrainingState) -> Viewer:
        """The viewer of the current method, started at the first call; training may restart with a new method."""
        if self.viewer is None:
            scenes, device = read_split_cameras(self._folder / CAMERAS), state.rng.generator.device
            config, summary = RunConfig(state.method.settings), TrainingSummary()
            run = LoadedRun(self._folder, state.method, config, None, scenes, device, summary)
            self.viewer = Viewer(run, self._port)
            self._report_status(f"viewer at {self.viewer.address}")
        self.viewer.run = replace(self.viewer.run, method=state.method)
        return self.viewer
