"""Checkpoints of a training run: periodic saving, exact resumption, and initialization from another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lumifield.errors import DataError
from lumifield.methods import method_name
from lumifield.methods.base import Method
from lumifield.runs import bundled, run_folder
from lumifield.runs.driver import require_equal_settings
from lumifield.runtime.config import to_plain
from lumifield.training.fit import StepReport, TrainingClock, TrainingState
from lumifield.training.monitor import Validator


class CheckpointSaver:
    """Validates, and saves the training state and the best weights, at fixed intervals of steps."""

    def __init__(self, out: Path, validator: Validator, save_every: int, num_train_images: int) -> None:
        self._out, self._validator = out, validator
        self._save_every, self._num_train_images = save_every, num_train_images

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Validates and saves if this step is due."""
        self._validator(state, report)
        if self._save_every and state.step % self._save_every == 0:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Validates, then writes the whole training state."""
        self._validator.validate(state)
        summary = {"seconds": state.clock.seconds, "rays": state.rays, "steps": state.step}
        summary |= {"n_train_images": self._num_train_images}
        run_folder.write_json(self._out / run_folder.SUMMARY, summary)
        tensors, about = capture_state(state)
        about |= {"history": self._validator.history}
        run_folder.write_tensors(self._out / run_folder.STATE, tensors, about)


def capture_state(state: TrainingState) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and JSON metadata from which training resumes exactly."""
    moments, about = run_folder.flatten_optimizer_state(state.optimizer.state_dict())
    tensors = {f"weights.{name}": value for name, value in state.method.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in moments.items()}
    tensors["generator"] = state.rng.generator.get_state()
    progress = {"step": state.step, "rays": state.rays, "seconds": state.clock.seconds}
    return tensors, {"optimizer": about, "rate_factor": state.rate_factor} | progress


def restore_state(out: Path, state: TrainingState) -> list[dict[str, Any]]:
    """Restores the saved state of a run into `state` and returns the validation history.

    Raises `DataError` if the run has other method settings.
    """
    file = out / run_folder.STATE
    require_equal_settings(out, to_plain(state.method.settings), run_folder.read_config(out)["method"])
    tensors, about = run_folder.read_tensors(file)
    run_folder.load_weights(state.method, run_folder.tensors_with_prefix(tensors, "weights."), file)
    moments = run_folder.tensors_with_prefix(tensors, "optimizer.")
    state.optimizer.load_state_dict(run_folder.unflatten_optimizer_state(moments, about["optimizer"]))
    state.rng.generator.set_state(tensors["generator"])
    state.step, state.rays, state.rate_factor = about["step"], about["rays"], about["rate_factor"]
    state.clock = TrainingClock(about["seconds"])
    return about["history"]


def initialize_from(method: Method, init: Path) -> None:
    """Loads the adaptable parameters of a run, a bundled initialization, or a published checkpoint into `method`.

    Raises `DataError` if a parameter is missing or has another shape.
    """
    init = bundled.resolve_initialization(init)
    if init.is_file():
        method.load_published(init)
        return
    config, kind = run_folder.read_config(init), method_name(method.settings)
    other_kind = method_name(run_folder.method_settings(config, init / run_folder.CONFIG))
    if other_kind != kind:
        raise DataError(init, "method", other_kind, kind, "initialize from a run of the same method")
    file, own = init / run_folder.WEIGHTS, method.state_dict()
    weights, _ = run_folder.read_tensors(file)
    for name in method.adaptable_parameters():
        found = str(list(weights[name].shape)) if name in weights else "no such tensor"
        if found != str(list(own[name].shape)):
            fix = "initialize from a run with the same method and network sizes"
            raise DataError(file, f"parameter {name!r}", found, f"shape {list(own[name].shape)}", fix)
    method.load_state_dict(own | {name: weights[name] for name in method.adaptable_parameters()})
