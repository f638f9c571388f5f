"""NumPy files with pickled objects, restricted to plain data."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lumifield.errors import DataError

# Constructors of arrays, NumPy scalars and bytes.
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _Refused(Exception):
    """The pickle contains more than plain data."""


class _Plain(pickle.Unpickler):
    """Unpickles dictionaries, lists, strings, numbers and arrays only."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        # Name of the module before NumPy 2.
        module = module_name.replace("numpy.core.", "numpy._core.")
        if (module, global_name) not in ALLOWED:
            raise _Refused(f"{module_name}.{global_name}")
        return super().find_class(module, global_name)


def read_dictionary(path: Path) -> dict[str, Any]:
    """The dictionary in a `.npy` file; raises `DataError` for anything but plain data, without loading it."""
    expected, fix = "a dictionary of plain data", "convert the file with the program that wrote it"
    try:
        with path.open("rb") as file:
            content = _content(file)
    except FileNotFoundError:
        raise DataError(path, "file", "missing", expected, "restore it") from None
    except _Refused as refused:
        expected = "nothing but dictionaries, lists, strings, numbers and arrays"
        raise DataError(path, "content", f"a pickle with {refused}", expected, fix) from None
    # Damaged pickles raise arbitrary exceptions.
    except Exception as error:
        raise DataError(path, "content", f"damaged ({error})", expected, "copy the file again") from None
    if not isinstance(content, dict):
        raise DataError(path, "content", f"a {type(content).__name__}", expected, fix)
    return content


def _content(file: BinaryIO) -> Any:
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, kind = header[version](file)
    if not kind.hasobject:
        raise ValueError(f"numbers of shape {shape}")
    array = _Plain(file).load()
    return array.item() if isinstance(array, np.ndarray) and array.shape == () else array
