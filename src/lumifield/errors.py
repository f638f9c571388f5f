"""The error type for unusable input."""

from __future__ import annotations

from pathlib import Path


class DataError(Exception):
    """A file or folder cannot be used: the path, the field, the value found, the value expected, and a fix.

    Not a `ValueError`, which tyro would report as a mistake in its own options.
    """

    def __init__(self, path: Path | str, field: str, found: str, expected: str, fix: str) -> None:
        self.path, self.field, self.found, self.expected, self.fix = str(path), field, found, expected, fix
        super().__init__(f"{path}: {field}: found {found}, expected {expected}. Fix: {fix}.")
