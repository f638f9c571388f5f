"""The one error for input that cannot be used."""

from __future__ import annotations

from pathlib import Path


class DataError(Exception):
    """A file or folder that cannot be used: where, what was found, what was expected, and the cure, in one sentence.

    It is no `ValueError`: tyro would dress those of settings up as mistakes of its own.
    """

    def __init__(self, path: Path | str, field: str, found: str, expected: str, cure: str) -> None:
        self.path, self.field, self.found, self.expected, self.cure = str(path), field, found, expected, cure
        super().__init__(f"{path}: {field} is {found}, expected {expected}; {cure}.")
