"""Where the iterator of a loop stands, and making a fresh one stand there.

An iterator is described as plain data; it is rebuilt from what the same expression gives in a new
process. Nothing is counted while a script runs: built-in iterators and those of loaders know where
they are.
"""

import collections
import itertools
import operator
import sys
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

_LISTS: tuple[type, ...] = (type(iter([])),)
_SAMPLES: tuple[Any, ...] = (
    *(range(1), range(1 << 70), (), "", "é", b"", bytearray(), {}, {}.values(), {}.items()),
    *(set(), collections.deque(), collections.OrderedDict(), reversed([]), reversed(range(1))),
)
_SIZED = tuple(type(iter(each)) for each in (*_SAMPLES, reversed([]), itertools.repeat(1, 1)))


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


def begin(iterable: Any, take_rng: Callable[[], Any]) -> Loop:
    """Return the loop over `iterable`, whose iterator is made now."""
    it = iter(iterable)
    try:
        return Loop(it, measure(it))
    except NotDescribable:
        return Loop(Counted(it), 0, take_rng())


def measure(it: Any) -> Any:
    """Return numbers that say how far an iterator is.

    Raises:
        NotDescribable: It does not tell.
    """
    kind = type(it)
    if kind in _LISTS:
        rest = it.__reduce__()
        return rest[2] if len(rest) > 2 else -1
    if kind in _SIZED or kind.__name__ == "iterator":
        return -operator.length_hint(it)
    if kind is enumerate:
        inner, count = it.__reduce__()[1]
        return [count, measure(inner)]
    if kind is zip:
        return [measure(each) for each in it.__reduce__()[1]]
    if kind is map:
        return [measure(each) for each in it.__reduce__()[1][1:]]
    if kind is Counted:
        return it.count
    if _is_of_loader(it):
        return it._num_yielded
    if (bar := _progress_bar(it)) is not None:
        return [measure(getattr(bar, "_curitorch", None) or bar.iterable)] if _begun(bar) else [0]
    if isinstance(it, Again) or (isinstance(it, GeneratorType) and OWN.is_one(it)):
        return 0
    raise NotDescribable(f"an iterator of type {kind.__name__}")


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


def describe(it: Any, begun: Any, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """Return where `it` stands, as plain data.

    Args:
        it: The iterator.
        begun: What `measure` returned when its loop began.
        encode: Of `values.Encoder`.
    """
    kind = type(it)
    if kind in _LISTS:
        index = measure(it)
        return {"k": "native", "used": index if index >= 0 else -1}
    if kind in _SIZED or kind.__name__ == "iterator":
        return {"k": "native", "used": measure(it) - begun}
    if kind is enumerate:
        inner, count = it.__reduce__()[1]
        return {
            "k": "enumerate",
            "used": count - begun[0],
            "inner": describe(inner, begun[1], encode),
        }
    if kind in (zip, map):
        parts = it.__reduce__()[1] if kind is zip else it.__reduce__()[1][1:]
        inner_nodes = [describe(p, b, encode) for p, b in zip(parts, begun, strict=True)]
        return {"k": kind.__name__, "inner": inner_nodes}
    if kind is Counted:
        return {"k": "counted", "used": it.count}
    if _is_of_loader(it):
        from . import loader_iterators

        return {"k": "loader", **loader_iterators.describe(it)}
    bar = _progress_bar(it)
    if bar is not None:
        inner = getattr(bar, "_curitorch", None)
        return {"k": "tqdm", "inner": describe(inner, bar._curitorch_begun, encode)}
    if isinstance(it, Again):
        return describe(it.it, begun, encode)
    if isinstance(it, GeneratorType) and OWN.is_one(it):
        return {"k": "generator", "frame": OWN.describe(it, encode)}
    raise NotDescribable(f"an iterator of type {kind.__name__}")


def rebuild(node: dict[str, Any], fresh: Any, back: int = 1) -> Any:
    """Return an iterator that stands where `node` says, less the last `back` items.

    Args:
        node: From `describe`.
        fresh: What the loop's expression gives in this process, not iterated over yet.
        back: How many of the last items it gives again.
    """
    kind = node["k"]
    if kind == "native":
        it = iter(fresh)
        if type(it) in _LISTS and node["used"] < 0:
            collections.deque(it, maxlen=0)
            return it
        return _skip(it, node["used"] - back)
    if kind == "counted":
        return _skip(Counted(iter(fresh)), node["used"] - back)
    if kind == "enumerate":
        inner, start = fresh.__reduce__()[1]
        return enumerate(rebuild(node["inner"], inner, back), start + node["used"] - back)
    if kind == "zip":
        parts = fresh.__reduce__()[1]
        return zip(*(rebuild(n, p, back) for n, p in zip(node["inner"], parts, strict=True)))  # noqa: B905
    if kind == "map":
        function, *parts = fresh.__reduce__()[1]
        pairs = zip(node["inner"], parts, strict=True)
        return map(function, *(rebuild(n, p, back) for n, p in pairs))
    if kind == "loader":
        from . import loader_iterators

        return loader_iterators.rebuild(node, fresh, back)
    if kind == "tqdm":
        bar = fresh if _is_bar(fresh) else _progress_bar(fresh)
        bar.iterable = rebuild(node["inner"], bar.iterable, back)
        bar._curitorch_begun = _shifted(node["inner"], bar.iterable)
        bar._curitorch_given = bar.iterable
        bar.n = bar.initial = max(0, _used(node["inner"]) - back)
        return iter(fresh)
    if kind == "generator":
        item = OWN.advance(fresh, node["frame"])
        return Again(item, fresh) if back else fresh
    raise NotDescribable(f"an iterator of unknown kind {kind!r}")


def begun_of(node: dict[str, Any], it: Any, back: int = 1) -> Any:
    """Return what `measure` had returned before a rebuilt iterator was used at all."""
    return _shifted(node, it, back)


def _shifted(node: dict[str, Any], it: Any, back: int = 1) -> Any:
    kind = node["k"]
    if kind == "native":
        return measure(it) - (node["used"] - back) if type(it) not in _LISTS else 0
    if kind == "enumerate":
        inner, count = it.__reduce__()[1]
        return [count - (node["used"] - back), _shifted(node["inner"], inner, back)]
    if kind in ("zip", "map"):
        parts = it.__reduce__()[1] if kind == "zip" else it.__reduce__()[1][1:]
        return [_shifted(n, p, back) for n, p in zip(node["inner"], parts, strict=True)]
    return 0


def _used(node: dict[str, Any]) -> int:
    if "used" in node:
        return int(node["used"])
    inner = node.get("inner")
    if isinstance(inner, list):
        return min(_used(each) for each in inner)
    return _used(inner) if inner else int(node.get("yielded", 0))


def _skip(it: Any, count: int) -> Any:
    if count > 0:
        collections.deque(itertools.islice(it, count), maxlen=0)
    return it


def _is_of_loader(it: Any) -> bool:
    if "torch.utils.data" not in sys.modules:
        return False
    from . import loader_iterators

    return loader_iterators.is_one(it)


def _is_bar(value: Any) -> bool:
    return any(each.__name__ == "tqdm" for each in type(value).__mro__)


def _progress_bar(it: Any) -> Any:
    """Return the tqdm whose generator `it` is, or None."""
    if isinstance(it, GeneratorType) and it.gi_code.co_name == "__iter__" and it.gi_frame:
        owner = it.gi_frame.f_locals.get("self")
        return owner if owner is not None and _is_bar(owner) else None
    return None


def _begun(bar: Any) -> bool:
    return getattr(bar, "_curitorch", None) is not None


def begin_bar(bar: Any) -> None:
    """Make the iterator of a tqdm known, before its own generator makes one."""
    given = getattr(bar, "_curitorch_given", None)
    if given is not None and given is bar.iterable:
        bar._curitorch = given
        bar._curitorch_given = None
        return
    it = iter(bar.iterable)
    try:
        bar._curitorch_begun = measure(it)
    except NotDescribable:
        it = Counted(it)
        bar._curitorch_begun = 0
    bar._curitorch = bar.iterable = it
