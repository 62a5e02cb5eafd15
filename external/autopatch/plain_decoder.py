"""Saved values, put back where no class of torch or of the user is needed; see `values`."""

import collections
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from . import generators
from .callables import parts_of, put_part
from .values import Mismatch, class_of, is_restorable, same_kind
from .values_by_name import from_text, named

_DICTS = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "Counter": collections.Counter,
}


class PlainDecoder:
    """Puts saved values into the containers, arrays and generators that the script has made.

    Args:
        shared: The tensors of modules and optimizers.
        wanted: Says whether an attribute of that name may change after construction.
    """

    def __init__(self, shared: list[torch.Tensor], wanted: Callable[[str], bool]) -> None:
        self._shared = shared
        self._wanted = wanted
        self._made: dict[int, Any] = {}
        self._taken: set[int] = set()
        self.later: list[Callable[[], None]] = []

    def decode(self, node: Any, current: Any = None) -> Any:
        """Return the value of `node`: `current`, changed in place, where that is possible."""
        if not isinstance(node, dict):
            return node
        kind = node["k"]
        if kind == "ref":
            return self._made.get(node["n"], current)
        if kind in ("opaque", "constant"):
            if "n" in node:
                self._made[node["n"]] = current
            return current
        fits = current is not None and same_kind(node, current) and id(current) not in self._taken
        value = getattr(self, "_" + kind.replace(" ", "_"))(node, current if fits else None)
        self._made.setdefault(node["n"], value)
        return value

    def _take(self, node: dict[str, Any], value: Any) -> Any:
        """Note the object of a node before what is in it, which may refer to it."""
        self._made[node["n"]] = value
        self._taken.add(id(value))
        return value

    def _list(self, node: dict[str, Any], current: Any) -> Any:
        value = self._take(node, [] if current is None else current)
        old = list(value)
        old += [None] * (len(node["v"]) - len(old))
        value[:] = [self.decode(each, was) for each, was in zip(node["v"], old, strict=False)]
        return value

    def _tuple(self, node: dict[str, Any], current: Any) -> Any:
        old = list(current or ())
        old += [None] * (len(node["v"]) - len(old))
        items = [self.decode(each, was) for each, was in zip(node["v"], old, strict=False)]
        if "t" not in node:
            return tuple(items)
        kind = type(current) if current is not None else class_of(node["t"])
        return kind._make(items)  # type: ignore[attr-defined]

    def _set(self, node: dict[str, Any], current: Any) -> Any:
        value = self._take(node, set() if current is None else current)
        items = [self.decode(each) for each in node["v"]]
        if set(items) != value:
            value.clear()
            value.update(items)
        return value

    def _frozenset(self, node: dict[str, Any], current: Any) -> Any:
        return frozenset(self.decode(each) for each in node["v"])

    def _deque(self, node: dict[str, Any], current: Any) -> Any:
        value = self._take(
            node, collections.deque(maxlen=node["most"]) if current is None else current
        )
        old = list(value) + [None] * len(node["v"])
        items = [self.decode(each, was) for each, was in zip(node["v"], old, strict=False)]
        value.clear()
        value.extend(items)
        return value

    def _dict(self, node: dict[str, Any], current: Any) -> Any:
        if current is None and node["t"] == "defaultdict":
            raise Mismatch("a defaultdict that the script does not make before")
        value = self._take(node, _DICTS[node["t"]]() if current is None else current)
        items = []
        for key_node, each in node["v"]:
            key = self.decode(key_node)
            items.append((key, self.decode(each, value.get(key))))
        value.clear()
        for key, each in items:
            value[key] = each
        return value

    def _bytes(self, node: dict[str, Any], current: Any) -> bytes:
        return str(node["v"]).encode("latin-1")

    def _complex(self, node: dict[str, Any], current: Any) -> complex:
        return complex(*node["v"])

    def _range(self, node: dict[str, Any], current: Any) -> range:
        return range(*node["v"])

    def _slice(self, node: dict[str, Any], current: Any) -> slice:
        return slice(*node["v"])

    def _tensor(self, node: dict[str, Any], current: Any) -> Any:
        if not node["rg"]:
            return self._take(node, node["v"])
        saved = self._shared[node["s"]]
        if current is None:
            raise Mismatch("a parameter that the script does not make before")
        if current.shape != saved.shape or current.dtype != saved.dtype:
            raise Mismatch(
                f"a parameter of shape {tuple(current.shape)} and type {current.dtype}, saved was "
                f"{tuple(saved.shape)} and {saved.dtype}"
            )
        with torch.no_grad():
            current.detach().copy_(saved)
        grad = node["grad"]
        current.grad = None if grad is None else grad.to(current.device)
        return self._take(node, current)

    def _named(self, node: dict[str, Any], current: Any) -> Any:
        try:
            found = named(node["v"])
        except AttributeError as error:
            raise Mismatch(f"{node['v']} is not there any more") from error
        return self._callable(node, found)

    def _callable(self, node: dict[str, Any], current: Any) -> Any:
        if current is None:  # a function that an iteration makes, as this one will again
            return None
        value = self._take(node, current)
        parts = parts_of(value)
        for name, each in node.get("a", {}).items():
            old = parts.get(name)
            if isinstance(each, dict) and each["k"] in ("opaque", "constant"):
                continue
            new = self.decode(each, old)
            rebound = self._wanted(name.partition(" ")[2]) or not is_restorable(each)
            if new is not old and rebound:
                put_part(value, name, new)
        return value

    def _text(self, node: dict[str, Any], current: Any) -> Any:
        return from_text(node["v"])

    def _array(self, node: dict[str, Any], current: Any) -> Any:
        flat = node["v"].numpy().view(np.dtype(node["t"]))
        value = flat.reshape(node["shape"]).copy()
        if current is not None and current.shape == value.shape and current.flags.writeable:
            current[...] = value
            value = current
        return self._take(node, value)

    def _numpy_scalar(self, node: dict[str, Any], current: Any) -> Any:
        return node["v"].numpy().view(np.dtype(node["t"]))[0]

    def _torch_generator(self, node: dict[str, Any], current: Any) -> Any:
        value = self._take(node, torch.Generator() if current is None else current)
        value.set_state(node["v"])
        return value

    def _numpy_generator(self, node: dict[str, Any], current: Any) -> Any:
        value = self._take(node, np.random.default_rng() if current is None else current)
        value.bit_generator.state = generators.to_numpy(node["v"])
        return value

    def _numpy_state(self, node: dict[str, Any], current: Any) -> Any:
        value = self._take(node, np.random.RandomState() if current is None else current)
        value.set_state(generators.to_numpy(node["v"]))
        return value

    def _python_generator(self, node: dict[str, Any], current: Any) -> Any:
        if current is None:
            raise Mismatch("a random.Random that the script does not make before")
        current.setstate(generators.to_python(node["v"]))
        return self._take(node, current)
