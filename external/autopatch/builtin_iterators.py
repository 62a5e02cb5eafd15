"""Iterators of Python's own kinds, which know how many items they have left."""

import collections
import itertools
import operator
from typing import Any

LISTS: tuple[type, ...] = (type(iter([])),)
_SAMPLES: tuple[Any, ...] = (
    *(range(1), range(1 << 70), (), "", "é", b"", bytearray(), {}, {}.values(), {}.items()),
    *(set(), collections.deque(), collections.OrderedDict(), reversed([]), reversed(range(1))),
)
SIZED = tuple(type(iter(each)) for each in (*_SAMPLES, reversed([]), itertools.repeat(1, 1)))


def tells_what_is_left(it: Any) -> bool:
    """Return whether a built-in iterator knows how many items it has left."""
    return type(it) in LISTS or type(it) in SIZED


def left_of(it: Any) -> int:
    """Return how many items an iterator has left that tells so."""
    return operator.length_hint(it)
