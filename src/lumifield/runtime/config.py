"""Settings to JSON and back: frozen dataclasses of numbers, strings, paths and other dataclasses."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields, is_dataclass
from math import inf
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lumifield.errors import DataError

Settings = TypeVar("Settings")


def to_plain(settings: Any) -> Any:
    """JSON representation of a settings dataclass."""
    if is_dataclass(settings):
        return {f.name: to_plain(getattr(settings, f.name)) for f in fields(settings)}
    if isinstance(settings, tuple):
        return [to_plain(value) for value in settings]
    return str(settings) if isinstance(settings, Path) else settings


def check_min(settings: Any, **minima: int | float) -> None:
    """Raises `DataError` if a setting, or an element of a tuple, is below its minimum or infinite; ignores None."""
    for name, minimum in minima.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            expected, fix = ("a finite number", "lower it") if number == inf else (f"at least {minimum:g}", "raise it")
            if not minimum <= number < inf:
                raise DataError(hyphenated_name(type(settings)), name, f"{number:g}", expected, fix)


def hyphenated_name(kind: type) -> str:
    """Name of a settings class as the command line spells it, e.g. mip-nerf for `MipNerf`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def mapping(plain: Any, file: Path, key: str) -> dict[str, Any]:
    """A JSON object; raises `DataError` for anything else."""
    if not isinstance(plain, dict):
        raise DataError(file, key, repr(plain), "an object of settings", "correct the value")
    return plain


def from_plain(kind: type[Settings], plain: Any, file: Path) -> Settings:
    """Settings from their JSON representation; raises `DataError` for a key or value that does not fit."""
    plain = mapping(plain, file, hyphenated_name(kind))
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in plain:
        if key not in known:
            raise DataError(file, "key", repr(key), f"one of {', '.join(known)}", "remove or correct it")
    for name, field in known.items():
        if name not in plain and field.default is MISSING and field.default_factory is MISSING:
            raise DataError(file, "key", f"no {name!r}", f"a value of type {hints[name]}", "add it")
    return kind(**{key: _value(hints[key], value, file, key) for key, value in plain.items()})


def _value(hint: Any, plain: Any, file: Path, key: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _union_value(arguments, plain, file, key)
    if origin is Literal and plain in arguments:
        return plain
    if origin is tuple and isinstance(plain, list) and (arguments[-1] is ... or len(plain) == len(arguments)):
        return tuple(_value(arguments[0], value, file, key) for value in plain)
    if is_dataclass(hint) and isinstance(plain, dict):
        return from_plain(hint, plain, file)  # type: ignore[arg-type]
    if hint is Path and isinstance(plain, str):
        return Path(plain)
    if hint is float and isinstance(plain, int | float) and not isinstance(plain, bool):
        return float(plain)
    if hint in (int, str, bool) and type(plain) is hint:
        return plain
    wanted = " or ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise DataError(file, key, repr(plain), wanted, "correct the value")


def _union_value(members: tuple[Any, ...], plain: Any, file: Path, key: str) -> Any:
    """The value as the first member of a union that accepts it."""
    if plain is None and NoneType in members:
        return None
    *others, last = (member for member in members if member is not NoneType)
    for member in others:
        try:
            return _value(member, plain, file, key)
        except DataError:
            continue
    return _value(last, plain, file, key)


def read_json(path: Path) -> Any:
    """Content of a JSON file; raises `DataError` if it is missing or invalid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, "file", "nothing", "a JSON file", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, "file", f"an unreadable file ({error})", "a JSON file", "check the file") from None
    except json.JSONDecodeError as error:
        where = f"an error in line {error.lineno} ({error.msg})"
        raise DataError(path, "JSON", where, "valid JSON", "repair or restore the file") from None
