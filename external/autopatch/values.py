"""The values of variables as plain data that `torch.load(weights_only=True)` opens.

A scalar is itself; everything else is a dictionary whose "k" says what it is. An object is saved
once ("n" is its number) and referred to from then on, so that what was one object is one again.
`encoder` makes such data, `decoder` puts it back; here is what both know of it.
"""

import collections
import functools
import types
from collections.abc import Callable
from typing import Any

from . import iterators, loader_iterators
from .kinds_of_values import kind_of
from .values_by_name import named

MADE_BY_SCRIPT = ("module", "optimizer", "loader", "scaler", "stateful", "iterator")
"""What only the script itself can make; then it is given its saved values."""

_RESTORABLE = {
    "list",
    "dict",
    "tuple",
    "set",
    "frozenset",
    "bytes",
    "complex",
    "deque",
    "range",
} | {
    "named",
    "text",
}


class Mismatch(Exception):
    """A saved value does not fit what the script has made; the message says which."""


def iterators_like(value: Any) -> bool:
    """Return whether a variable holds an iterator."""
    kind: Any = type(value)  # mypy takes no class for hashable
    return _are_iterators(kind) or loader_iterators.is_one(value)


@functools.lru_cache(1024)
def _are_iterators(kind: type) -> bool:
    if issubclass(kind, (types.GeneratorType, iterators.Counted, iterators.Again)):
        return True
    of_python = kind.__module__ in ("builtins", "itertools")
    return of_python and issubclass(kind, collections.abc.Iterator)


def is_restorable(node: Any, known: Callable[[int], bool] = lambda number: False) -> bool:
    """Return whether a value can be made from its data alone, without the script's help.

    Args:
        node: The value.
        known: Says so of a value that is said elsewhere, by its number.
    """
    if not isinstance(node, dict):
        return True
    kind = node["k"]
    if kind == "ref":
        return known(node["n"])
    if kind in ("tensor", "array", "numpy scalar", "slice"):
        return not node.get("rg")
    if kind == "dict":
        pairs = node["v"]
        return all(is_restorable(k, known) and is_restorable(v, known) for k, v in pairs)
    return kind in _RESTORABLE and (
        kind in ("bytes", "complex", "range", "named", "text")
        or all(is_restorable(each, known) for each in node["v"])
    )


def is_mutable(node: Any) -> bool:
    """Return whether the object itself may change, not only what a name is bound to."""
    return isinstance(node, dict) and node["k"] not in (
        *("tuple", "frozenset", "bytes", "complex", "range", "slice", "numpy scalar", "constant"),
        *("opaque", "named", "text"),
    )


def type_name(value: Any) -> str:
    """Return what `class_of` finds the type of a value by."""
    kind = type(value)
    return f"{kind.__module__}:{kind.__qualname__}"


def class_of(name: str) -> type:
    """Return the class that `type_name` has named.

    Raises:
        Mismatch: There is none now.
    """
    found = named(name)
    if not isinstance(found, type):
        raise Mismatch(f"{name} is no class any more")
    return found


def same_kind(node: dict[str, Any], current: Any) -> bool:
    """Return whether a value may be changed to what `node` says."""
    if node["k"] == "iterator":
        return iterators_like(current)
    if kind_of(current) != node["k"]:
        return False
    if node["k"] == "dict":
        return bool(type(current).__name__ == node["t"])
    if node["k"] in ("object", "module"):
        return bool(type_name(current) == node["t"])
    return True
