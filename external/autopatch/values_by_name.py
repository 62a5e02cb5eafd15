"""Values that a new process finds or makes from a text: enum members, functions, paths, dates."""

import datetime
import decimal
import enum
import fractions
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

_TEXTS: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    pathlib.PosixPath: (str, pathlib.Path),
    pathlib.WindowsPath: (str, pathlib.Path),
    pathlib.PurePosixPath: (str, pathlib.PurePosixPath),
    decimal.Decimal: (str, decimal.Decimal),
    fractions.Fraction: (str, fractions.Fraction),
    datetime.datetime: (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.timedelta: (
        lambda value: str(value // datetime.timedelta(microseconds=1)),
        lambda text: datetime.timedelta(microseconds=int(text)),
    ),
    torch.device: (str, torch.device),
    torch.dtype: (str, lambda text: getattr(torch, text.removeprefix("torch."))),
}
_BY_NAME = {f"{kind.__module__}:{kind.__qualname__}": kind for kind in _TEXTS}


def name_of(value: Any) -> str | None:
    """Return the name by which `named` finds this very object in a new process, or None."""
    if isinstance(value, enum.Enum):
        name = f"{type(value).__module__}:{type(value).__qualname__}.{value.name}"
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        name = f"{value.__module__}:{value.__qualname__}"
    else:
        return None
    try:
        return name if named(name) is value else None
    except AttributeError:
        return None


def named(name: str) -> Any:
    """Return the object of a name.

    Raises:
        AttributeError: There is none.
    """
    module, _, qualified = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    return found


def text_of(value: Any) -> list[str] | None:
    """Return what `from_text` makes an equal value of, or None."""
    kind = type(value)
    return (
        [f"{kind.__module__}:{kind.__qualname__}", _TEXTS[kind][0](value)]
        if kind in _TEXTS
        else None
    )


def from_text(text: list[str]) -> Any:
    """Return what `text_of` was given."""
    return _TEXTS[_BY_NAME[text[0]]][1](text[1])
