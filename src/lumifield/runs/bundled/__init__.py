"""Bundled initializations for `--init NAME`: meta-learned or pre-trained weights in fp16, each a portable scene."""

from __future__ import annotations

from pathlib import Path

from lumifield.errors import DataError

FOLDER = Path(__file__).parent
CONFIG = "config.json"


def list_initializations() -> list[str]:
    """Names of the bundled initializations."""
    return sorted(config.parent.name for config in FOLDER.glob(f"*/{CONFIG}"))


def resolve_initialization(init: Path) -> Path:
    """Path of a run folder, a file, or the bundled initialization of this name; raises `DataError` for none of them.

    A folder with the name of a bundled initialization that is not a run, such as a data set of chairs, is skipped.
    """
    if str(init) in list_initializations() and not (init / CONFIG).is_file():
        return FOLDER / init
    if init.exists():
        return init
    expected = f"a run, or one of {', '.join(list_initializations())}"
    raise DataError(init, "--init", "nothing", expected, "check the path or the name")
