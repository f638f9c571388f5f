"""Assertions on refused input: the field and the value, not the sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lumifield.errors import DataError


@contextmanager
def refuses(
    field: str, found: str = "", *, path: object = None, expected: str = ""
) -> Iterator[pytest.ExceptionInfo[DataError]]:
    """The block raises `DataError` for `field`; `found`, `path` and `expected` occur in what it states."""
    with pytest.raises(DataError) as caught:
        yield caught
    error = caught.value
    assert error.field == field
    assert found in error.found
    assert expected in error.expected
    assert path is None or str(path) in error.path
