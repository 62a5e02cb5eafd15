"""One text for nested settings, to be hashed: equal settings, equal text; other settings, another.

    {"!digits.params:Optimizer": {"lr": 0.001, "name": "adam"}}

Field names, the classes' modules and qualified names, and every value stand in it, keys are
sorted, floats are written by repr. So two nested settings whose values are swapped differ
(curifactory sums the hashes of the bare names and values: there they collide).

A field that equals its default is left out, so that a field which is added later changes no
hash of what was computed before. The price: a default must never be changed, as what relied on
it would keep its hash; add a field instead. A list and a tuple of the same values are the same.
"""

import dataclasses
import enum
import json
import types
from collections.abc import Mapping, Set
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from numbers import Integral
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EXACT_REPR = (bytes, complex, range, date, time, timedelta, Decimal, Fraction, UUID)
BOOKKEEPING = frozenset({"name", "hash", "overwrite", "hash_representations"})


def canonical(value: object, *, where: str = "The value") -> str:
    """Return the text of `value`; `where` names it in messages.

    Settings that carry curifactory's `hash_representations` are taken at their word: what is None
    there is left out, a function there gives the value. Of a nested parameter set curifactory's
    own four fields (its name, hash …) are left out.

    Raises:
        TypeError: Something in it has no text that is the same in every process.
    """
    return _text(_plain(value, where))


def _text(plain: object) -> str:
    return json.dumps(plain, sort_keys=True)


def _plain(value: object, where: str) -> object:
    """Turn `value` into JSON data, other data for every other value; a key with ! is a mark."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return {f"!{_qualified(type(value))}": value.name}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):  # numpy's as well
        return int(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, EXACT_REPR):
        return {f"!{_qualified(type(value))}": repr(value)}
    if isinstance(value, PurePath):
        return {"!path": value.as_posix()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _mapping(value, where)
    if isinstance(value, Set):
        return {"!set": sorted((_plain(item, where) for item in value), key=_text)}
    if isinstance(value, partial):
        parts = [value.func, value.args, value.keywords]
        return {"!partial": [_plain(part, where) for part in parts]}
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return {"!object": _importable(value, where)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f"!{_qualified(type(value))}": _fields(value, where)}
    raise TypeError(
        f"{where} is of type {_qualified(type(value))}, which has no text that is the same in "
        "every process; expected numbers, strings, lists, dictionaries or dataclasses. Write it "
        "with these, or give its field a function in hash_representations (None: not hashed)."
    )


def _mapping(mapping: Mapping[Any, object], where: str) -> object:
    if all(type(key) is str and not key.startswith("!") for key in mapping):
        return {key: _plain(value, f"{where}[{key!r}]") for key, value in mapping.items()}
    pairs = [
        [_plain(key, where), _plain(value, f"{where}[{key!r}]")] for key, value in mapping.items()
    ]
    return {"!dict": sorted(pairs, key=_text)}


def _fields(settings: "DataclassInstance", where: str) -> dict[str, object]:
    """Turn the fields that do not equal their default into JSON data."""
    representations = getattr(settings, "hash_representations", {})
    known = dataclasses.fields(settings)
    skipped = {"hash_representations"}
    if {field.name for field in known} >= BOOKKEEPING:
        skipped |= BOOKKEEPING
    written: dict[str, object] = {}
    for field in known:
        if field.name in skipped:
            continue
        value, inside = getattr(settings, field.name), f"{where}.{field.name}"
        if field.name in representations:
            represent = representations[field.name]
            if represent is not None:
                written[field.name] = _plain(represent(settings, value), inside)
            continue
        plain = _plain(value, inside)
        if _text(plain) != _default_text(field):  # 1 == True == 1.0, and their texts differ
            written[field.name] = plain
    return written


def _default_text(field: "dataclasses.Field[Any]") -> str | None:
    """Return the text of a field's default; None where it has no default, or that has no text."""
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        return None
    try:
        return canonical(default)
    except TypeError:
        return None


def _importable(value: Any, where: str) -> str:  # a class or a function
    """Name a class or function; what has no name of its own is refused, as others share it."""
    if not getattr(value, "__module__", None) or "<" in value.__qualname__:
        raise TypeError(
            f"{where} is {value.__qualname__!r}, a function or class without an importable name, "
            "so that others would share its text. Define it at the top level of a module."
        )
    return _qualified(value)


def _qualified(value: Any) -> str:  # a class or a function
    return f"{value.__module__}:{value.__qualname__}"
