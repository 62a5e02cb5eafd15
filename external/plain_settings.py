"""Hyperparameters as a line of JSON can hold them: what is not plain data becomes its text."""

import dataclasses
import enum
import os
from collections.abc import Mapping
from typing import Any

_PLAIN = (str, int, float, bool, type(None))
_DEEPEST = 8


def plain_settings(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a copy that JSON can hold: dictionaries, lists and dataclasses stay nested.

    Tensors and arrays of one number become it; everything else becomes its text, and so does what
    is nested deeper than eight levels or in itself.
    """
    return {str(name): _plain(value, 1) for name, value in values.items()}


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level: `{"optimizer": {"lr": 1}}` is `{"optimizer.lr": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(flat_settings(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return _plain(value.value, depth)
    if type(value) in _PLAIN:
        return value
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {str(name): _plain(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(each, depth + 1) for each in value]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = dataclasses.fields(value)
            return {each.name: _plain(getattr(value, each.name), depth + 1) for each in fields}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return _plain(value.item(), depth)
    return str(value)
