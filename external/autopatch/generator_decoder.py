"""What the variables of a generator were, and what of them belongs to the rest of the script.

A saved position says each object once. What a generator only refers to is the object that the new
process has where it is said (a model, a list of examples), and otherwise is made from its data.
"""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .decoder import Decoder
from .values import Mismatch, is_mutable, is_restorable, same_kind

if TYPE_CHECKING:
    from .way_back import WayBack

Place = tuple[dict[str, Any], Callable[[], Any]]
"""A saved value, and what returns the object that is there now."""


class GeneratorDecoder(Decoder):
    """Decodes the variables of generators, of one inside another as well.

    Args:
        way: On which the script is led to the saved position.
    """

    def __init__(self, way: "WayBack") -> None:
        super().__init__(way.saved.get("shared", []), lambda name: True)
        self._way = way
        self._places: dict[int, Place] = {}
        self._asked: set[int] = set()  # by `knows`, which has not answered yet

    def decode(self, node: Any, current: Any = None) -> Any:
        """As every decoder; what is said elsewhere is found, wherever that is."""
        if isinstance(node, dict) and "n" in node:
            made = self._made.get(node["n"])
            if made is not None:
                return made
            if node["k"] == "ref":
                return self._referred(node["n"], current)
        return super().decode(node, current)

    def knows(self, number: int) -> bool:
        """Return whether a value that is said elsewhere is there, or can be made from its data."""
        node, there = self._place(number)
        if there is not None:
            return True
        if number in self._asked:  # it holds itself, which only what is made empty can
            return is_mutable(node)
        self._asked.add(number)
        try:
            return is_restorable(node, self.knows)
        finally:
            self._asked.discard(number)

    def _place(self, number: int) -> tuple[dict[str, Any], Any]:
        """Return what is said of a value, and what is there now; None: nothing."""
        if not self._places:
            self._find_places()
        node, get = self._places.get(number, ({"k": "opaque"}, lambda: None))
        with contextlib.suppress(LookupError, AttributeError, TypeError):
            return node, get()
        return node, None

    def _referred(self, number: int, current: Any) -> Any:
        node, there = self._place(number)
        is_rebound = node["k"] == "tensor" and not node["rg"]  # as its saved value is restored
        if node["k"] in ("opaque", "constant", "callable"):
            found = current if there is None else there
        elif there is not None and is_mutable(node) and not is_rebound and same_kind(node, there):
            found = there
        else:
            return super().decode(node, None if is_restorable(node) else current)
        if found is None:
            raise Mismatch(f"a value of kind {node['k']} that a generator has, and nothing else")
        self._made[number] = found
        return found

    def _find_places(self) -> None:
        way = self._way
        for key, variables in way.saved["modules"].items():
            self._walk_variables(variables, _item(lambda: way.tracker.namespaces, key))
        for index, entry in enumerate(way.saved["entries"]):
            frame = _item(lambda: way.frames, index)
            self._walk_variables(entry["variables"], _attribute(frame, "f_locals"))
            self._walk(entry["loops"], _nowhere)

    def _walk_variables(self, variables: dict[str, Any], get: Callable[[], Any]) -> None:
        for name, node in variables.items():
            self._walk(node, _item(get, name))

    def _walk(self, node: Any, get: Callable[[], Any]) -> None:
        """Note the places of all values in `node`, which `get` returns."""
        if isinstance(node, list | tuple):
            for each in node:
                self._walk(each, _nowhere)
        if not isinstance(node, dict) or node.get("k") == "ref":
            return
        kind = node.get("k")
        if kind is not None and "n" in node:
            self._places.setdefault(node["n"], (node, get))
        for part, inner in node.items():
            if part == "v" and kind in ("list", "tuple", "deque"):
                for index, each in enumerate(inner):
                    self._walk(each, _item(get, index))
            elif part == "v" and kind == "dict":
                for key, each in inner:
                    self._walk(key, _nowhere)
                    self._walk(each, _item(get, key))
            elif part == "a" and isinstance(inner, dict):
                for name, each in inner.items():
                    self._walk(each, _attribute(get, name))
            else:
                self._walk(inner, _nowhere)


def _nowhere() -> None:
    return None


def _item(get: Callable[[], Any], key: Any) -> Callable[[], Any]:
    return lambda: get()[key]


def _attribute(get: Callable[[], Any], name: str) -> Callable[[], Any]:
    return lambda: getattr(get(), name)
