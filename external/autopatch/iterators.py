"""Where the iterator of a loop stands, and making a fresh one stand there.

An iterator is described as plain data; it is rebuilt from what the same expression gives in a new
process. Nothing is counted while a script runs: built-in iterators and those of loaders know where
they are.
"""

import collections
import itertools
import operator
import sys
from collections.abc import Callable
from types import GeneratorType
from typing import Any

from .builtin_iterators import LISTS, SIZED
from .progress_bars import is_bar, is_begun, progress_bar
from .wrapped_iterators import OWN, Again, Counted, Loop, NotDescribable


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
    if kind in LISTS:
        rest = it.__reduce__()
        return rest[2] if len(rest) > 2 else -1
    if kind in SIZED or kind.__name__ == "iterator":
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
    if (bar := progress_bar(it)) is not None:
        return [measure(getattr(bar, "_curitorch", None) or bar.iterable)] if is_begun(bar) else [0]
    if isinstance(it, Again) or (isinstance(it, GeneratorType) and OWN.is_one(it)):
        return 0
    raise NotDescribable(f"an iterator of type {kind.__name__}")


def describe(it: Any, begun: Any, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """Return where `it` stands, as plain data.

    Args:
        it: The iterator.
        begun: What `measure` returned when its loop began.
        encode: Of `values.Encoder`.
    """
    kind = type(it)
    if kind in LISTS:
        index = measure(it)
        return {"k": "native", "used": index if index >= 0 else -1}
    if kind in SIZED or kind.__name__ == "iterator":
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
    bar = progress_bar(it)
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
        if type(it) in LISTS and node["used"] < 0:
            collections.deque(it, maxlen=0)
            return it
        return _skip(it, node["used"] - back)
    if kind == "left":
        it = iter(fresh)
        return _skip(it, operator.length_hint(it) - node["left"])
    if kind == "count":
        return itertools.count(*node["at"])
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
        bar = fresh if is_bar(fresh) else progress_bar(fresh)
        bar.iterable = rebuild(node["inner"], bar.iterable, back)
        bar._curitorch_begun = _shifted(node["inner"], bar.iterable)
        bar._curitorch_given = bar.iterable
        bar.n = bar.initial = max(0, _used(node["inner"]) - back)
        return iter(fresh)
    if kind == "generator":
        generator = iter(fresh)  # what is iterated over may be an object whose __iter__ is one
        item = OWN.advance(generator, node["frame"])
        return Again(item, generator) if back else generator
    raise NotDescribable(f"an iterator of unknown kind {kind!r}")


def begun_of(node: dict[str, Any], it: Any, back: int = 1) -> Any:
    """Return what `measure` had returned before a rebuilt iterator was used at all."""
    return _shifted(node, it, back)


def _shifted(node: dict[str, Any], it: Any, back: int = 1) -> Any:
    kind = node["k"]
    if kind == "native":
        return measure(it) - (node["used"] - back) if type(it) not in LISTS else 0
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


__all__ = [
    "OWN",
    "Again",
    "Counted",
    "Loop",
    "NotDescribable",
    "begin",
    "begin_bar",
    "begun_of",
    "describe",
    "measure",
    "rebuild",
]
