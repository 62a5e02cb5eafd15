"""What a metric may be, and how tensors and NumPy's numbers become plain ones."""

import math
import operator
from collections.abc import Mapping
from typing import Any

from .errors import PeriFlowError

_PLAIN = {float, int, str, bool, type(None)}


def plain_metrics(message: object) -> dict[str, Any]:
    """Return a copy of `message` that is plain JSON data, apart from NaN and infinities.

    Raises:
        PeriFlowError: It is no dictionary, or holds what is neither number, text nor JSON.
    """
    if type(message) is not dict and not isinstance(message, Mapping):  # the second one is slow
        raise PeriFlowError(
            f"metric() got a {type(message).__name__}, expected a dictionary such as "
            "{'loss': 0.25}."
        )
    values = {}
    for name, value in message.items():
        if type(name) is not str:
            raise PeriFlowError(
                f"metric() got the name {name!r}, expected a string. Write {str(name)!r}."
            )
        values[name] = value if type(value) in _PLAIN else _plain(value, name)
    return values


def whole_number(value: object, *, what: str) -> int:
    """Return `value` as an int; NumPy's integers are some.

    Raises:
        PeriFlowError: It is something else, such as 3.0, "3" or True.
    """
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise PeriFlowError(f"{what} is {value!r}, expected a whole number, or None.")


def _plain(value: Any, name: str) -> Any:
    """Return `value` of a type that JSON does not have as what it stands for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{name}[{key!r}]") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{name}[{at}]") for at, each in enumerate(value)]
    if isinstance(value, bool | int | float | str) or value is None:
        return _base(value)
    if callable(getattr(value, "item", None)):  # tensors of any dtype, NumPy's scalars and arrays
        return _item(value, name)
    raise PeriFlowError(
        f"metric() got a {type(value).__name__} for {name!r}, expected a number, text, or lists "
        "and dictionaries of them."
    )


def _base(value: Any) -> Any:
    """Return a value of a subclass, such as NumPy's float64 or an IntEnum, as its base's."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _item(value: Any, name: str) -> Any:
    size = math.prod(getattr(value, "shape", ()))
    if size != 1:
        raise PeriFlowError(
            f"metric() got {size} values for {name!r}, expected one. Take their mean, or "
            "tolist() if all are meant."
        )
    number = value.item()  # a CPU-GPU sync for a tensor on a GPU
    if type(number) not in _PLAIN:
        raise PeriFlowError(
            f"metric() got a {type(number).__name__} for {name!r}, expected a number or text."
        )
    return number
