"""Checkpoints of a long run: validation, the best weights, and the state from which it resumes exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic

from torch import Tensor

from lumifield.runs import run_folder
from lumifield.runs.run_folder import TrainingSummary
from lumifield.runs.state import Module, RunState, TrainingClock
from lumifield.runtime.config import from_plain, read_json
from lumifield.runtime.files import write_json

HISTORY = "log/history.json"


@dataclass(frozen=True)
class Validation:
    """One validation: step, training time, rays, and mean PSNR [dB], for meta-learning also before adaptation."""

    step: int
    seconds: float
    rays: int
    psnr: float
    start: float | None = None


class StateSaver(Generic[Module]):
    """Saves the whole state at fixed intervals of steps (0: only at the end)."""

    def __init__(self, out: Path, save_every: int, history: list[Validation] | None = None) -> None:
        self.history = [] if history is None else history
        self._out, self._save_every = out, save_every

    def __call__(self, state: RunState[Module], report: object = None) -> None:
        """Saves if this step is due."""
        if self._save_every and state.step % self._save_every == 0:
            self.save(state)

    def save(self, state: RunState[Module]) -> None:
        """Writes the whole state."""
        write_json(self._out / run_folder.SUMMARY, without_missing(self._summary(state)))
        write_state(self._out / run_folder.STATE, state, self.history)

    def _summary(self, state: RunState[Module]) -> TrainingSummary:
        return TrainingSummary(state.clock.seconds, state.rays, state.step)


class CheckpointSaver(StateSaver[Module]):
    """Also validates, and saves the best weights, at fixed intervals of steps (0: only at the end).

    `validate` scores the current weights. Without it, or with `keep_latest`, the latest weights are saved as the best.
    """

    def __init__(
        self,
        out: Path,
        history: list[Validation],
        validate: Callable[[RunState[Module]], Validation] | None,
        *,
        validate_every: int,
        save_every: int,
        num_train_images: int | None = None,
        keep_latest: bool = False,
    ) -> None:
        super().__init__(out, save_every, history)
        self._validate, self._validate_every, self._keep_latest = validate, validate_every, keep_latest
        self._num_train_images, self._last_step = num_train_images, -1

    @property
    def best(self) -> float:
        """Best validation PSNR so far [dB], minus infinity before the first validation."""
        return max((validation.psnr for validation in self.history), default=-math.inf)

    def __call__(self, state: RunState[Module], report: object = None) -> None:
        """Validates and saves if this step is due."""
        if self._validate is not None and self._validate_every and state.step % self._validate_every == 0:
            self.validate(state)
        super().__call__(state, report)

    def validate(self, state: RunState[Module]) -> None:
        """Scores the weights, once per step, and saves them if they are the best so far, or if nothing scores them."""
        if self._validate is None:
            self._save_weights(state)
            return
        if self._last_step == state.step:
            return
        self._last_step = state.step
        validation = self._validate(state)
        if validation.psnr > self.best or self._keep_latest:
            self._save_weights(state)
        self.history.append(validation)
        write_json(self._out / HISTORY, history_to_plain(self.history))

    def save(self, state: RunState[Module]) -> None:
        """Validates, then writes the whole state."""
        self.validate(state)
        super().save(state)

    def _save_weights(self, state: RunState[Module]) -> None:
        run_folder.write_tensors(self._out / run_folder.WEIGHTS, state.method.state_dict())

    def _summary(self, state: RunState[Module]) -> TrainingSummary:
        return replace(super()._summary(state), n_train_images=self._num_train_images)


def write_state(file: Path, state: RunState[Module], history: list[Validation]) -> None:
    """Writes everything from which a run resumes exactly."""
    moments, optimizer = flatten_optimizer_state(state.optimizer.state_dict())
    tensors = {f"weights.{name}": value for name, value in state.method.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in moments.items()}
    tensors["generator"] = state.rng.generator.get_state()
    about = {"optimizer": optimizer, "rate_factor": state.rate_factor, "step": state.step, "rays": state.rays}
    about |= {"seconds": state.clock.seconds, "history": history_to_plain(history)}
    run_folder.write_tensors(file, tensors, about)


def restore_state(file: Path, state: RunState[Module]) -> list[Validation]:
    """Restores a saved state into `state` and returns the validation history."""
    tensors, about = run_folder.read_tensors(file)
    run_folder.load_weights(state.method, run_folder.tensors_with_prefix(tensors, "weights."), file)
    moments = run_folder.tensors_with_prefix(tensors, "optimizer.")
    state.optimizer.load_state_dict(unflatten_optimizer_state(moments, about["optimizer"]))
    state.rng.generator.set_state(tensors["generator"])
    state.step, state.rays, state.rate_factor = about["step"], about["rays"], about["rate_factor"]
    state.clock = TrainingClock(about["seconds"])
    return history_from_plain(about["history"], file)


def read_history(folder: Path) -> list[Validation]:
    """Validation history of a run; empty if it has none."""
    file = folder / HISTORY
    return history_from_plain(read_json(file), file) if file.is_file() else []


def history_to_plain(history: list[Validation]) -> list[dict[str, float | int]]:
    """JSON of a validation history."""
    return [without_missing(row) for row in history]


def without_missing(record: Validation | TrainingSummary) -> dict[str, float | int]:
    """Fields of a record that are not None."""
    return {name: value for name, value in asdict(record).items() if value is not None}


def history_from_plain(plain: list[dict[str, float | int]], file: Path) -> list[Validation]:
    """The inverse of `history_to_plain`; raises `DataError` for other content."""
    return [from_plain(Validation, row, file) for row in plain]


def flatten_optimizer_state(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of a torch optimizer as named tensors and JSON metadata."""
    tensors, plain = {}, {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                plain[f"{index}.{key}"] = value
    return tensors, {"groups": state["param_groups"], "values": plain}


def unflatten_optimizer_state(tensors: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten_optimizer_state`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in (tensors | about["values"]).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in about["groups"]]
    return {"state": state, "param_groups": groups}
