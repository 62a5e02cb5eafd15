"""A loop's iterator, where Python's own does not do: counted, or with an item to give again."""

from collections.abc import Callable, Iterator
from typing import Any


class Loop:
    """One run of a `for` loop: `it` is what it iterates over."""

    __slots__ = ("begun", "it", "rng")

    def __init__(self, it: Any, begun: Any, rng: Any = None) -> None:
        self.it = it
        self.begun = begun
        self.rng = rng


class Counted:
    """Counts what an iterator of unknown kind has given."""

    __slots__ = ("count", "it")

    def __init__(self, it: Iterator[Any]) -> None:
        self.it = it
        self.count = 0

    def __iter__(self) -> "Counted":
        return self

    def __next__(self) -> Any:
        item = next(self.it)
        self.count += 1
        return item


class NotDescribable(Exception):
    """Where an iterator stands cannot be known; the message says what it is."""


class Again:
    """An iterator whose last item is given again, first of all."""

    __slots__ = ("it", "item")

    def __init__(self, item: Any, it: Iterator[Any]) -> None:
        self.item = [item]
        self.it = it

    def __iter__(self) -> "Again":
        return self

    def __next__(self) -> Any:
        return self.item.pop() if self.item else next(self.it)


class OwnGenerators:
    """What is done with the generators of the user's own functions; the patch sets it."""

    is_one: Callable[[Any], bool] = staticmethod(lambda generator: False)
    describe: Callable[[Any, Any], Any]
    advance: Callable[[Any, Any], Any]  # returns the item that it gave last


OWN = OwnGenerators()
