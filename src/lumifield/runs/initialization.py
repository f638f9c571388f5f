"""Initialization of a method from another run, a bundled initialization, or a published checkpoint."""

from __future__ import annotations

from pathlib import Path

from lumifield.errors import DataError
from lumifield.methods import method_name
from lumifield.methods.base import Method
from lumifield.runs import bundled, run_folder


def initialize_from(method: Method, init: Path) -> None:
    """Loads the adaptable parameters of a run, a bundled initialization, or a published checkpoint into `method`.

    Raises `DataError` if a parameter is missing or has another shape.
    """
    init = bundled.resolve_initialization(init)
    if init.is_file():
        method.load_published(init)
        return
    other_kind, kind = method_name(run_folder.read_config(init).method), method_name(method.settings)
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
