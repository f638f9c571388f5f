"""Learned starts that come with the package, each a portable scene with parameters of 16 bits, for `--init NAME`."""

from __future__ import annotations

from pathlib import Path

from lumifield.errors import DataError

FOLDER = Path(__file__).parent
CONFIG = "config.json"


def names() -> list[str]:
    """The starts that there are."""
    return sorted(config.parent.name for config in FOLDER.glob(f"*/{CONFIG}"))


def found(init: Path) -> Path:
    """What `init` says: a run folder or a file, or else the start of that name; raises `DataError` for neither.

    A folder of that name that is no run, such as the images of chairs, is not meant.
    """
    if str(init) in names() and not (init / CONFIG).is_file():
        return FOLDER / init
    if init.exists():
        return init
    expected = f"a run, or one of {', '.join(names())}" if names() else "a run"
    raise DataError(init, "the start", "missing", expected, "check the path")
