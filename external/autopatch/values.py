"""The values of variables as plain data that `torch.load(weights_only=True)` opens.

A scalar is itself; everything else is a dictionary whose "k" says what it is. An object is saved
once ("n" is its number) and referred to from then on, so that what was one object is one again.
"""

import collections
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from . import generators, iterators, loader_iterators
from .kinds_of_values import attributes, is_large, kind_of, module_attributes
from .users import USERS

_DICTS = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "Counter": collections.Counter,
}
MADE_BY_SCRIPT = ("module", "optimizer", "loader", "scaler", "stateful", "iterator")
"""What only the script itself can make; then it is given its saved values."""

_RESTORABLE = {"list", "dict", "tuple", "set", "frozenset", "bytes", "complex", "deque", "range"}


class Encoder:
    """Encodes the values of one save.

    Args:
        constant: Says of a large array or tensor that it has not changed since the script began.
        lean: Leave out the tensors of modules and optimizers: another rank saves the same.
    """

    def __init__(self, constant: Callable[[Any], bool], *, lean: bool = False) -> None:
        self._constant = constant
        self._numbers: dict[int, int] = {}
        self._keep: list[Any] = []
        self._in_data = 0
        self.lean = lean
        self.shared: list[torch.Tensor] = []  # of modules and optimizers, in their order
        self.optimizers: set[int] = set()
        self.unknown: list[tuple[str, str]] = []  # what, why

    def encode(self, value: Any) -> Any:
        """Return `value` as plain data."""
        if iterators_like(value):
            return self._iterator(value)
        kind = kind_of(value)
        if kind == "scalar":
            return value
        if kind == "opaque":
            return {"k": "opaque", "t": _type_name(value)}
        if id(value) in self._numbers:
            return {"k": "ref", "n": self._numbers[id(value)]}
        if self._in_data and is_large(value):
            return {"k": "opaque", "t": "data"}
        number = self._numbers[id(value)] = len(self._numbers)
        self._keep.append(value)
        node: dict[str, Any] = {"k": kind, "n": number}
        getattr(self, "_" + kind.replace(" ", "_"))(value, node)
        return node

    def tensor_of(self, tensor: torch.Tensor) -> Any:
        """Return a tensor of a module or an optimizer, as the number of a shared one."""
        self.shared.append(tensor.detach())
        return len(self.shared) - 1

    def _list(self, value: Any, node: dict[str, Any]) -> None:
        node["v"] = [self.encode(each) for each in value]

    _set = _frozenset = _list

    def _tuple(self, value: Any, node: dict[str, Any]) -> None:
        self._list(value, node)
        if type(value) is not tuple:
            node["t"] = _type_name(value)

    def _deque(self, value: Any, node: dict[str, Any]) -> None:
        self._list(value, node)
        node["most"] = value.maxlen

    def _dict(self, value: Any, node: dict[str, Any]) -> None:
        node["t"] = type(value).__name__
        node["v"] = [[self.encode(key), self.encode(each)] for key, each in value.items()]

    def _bytes(self, value: bytes, node: dict[str, Any]) -> None:
        node["v"] = value.decode("latin-1")

    def _complex(self, value: complex, node: dict[str, Any]) -> None:
        node["v"] = [value.real, value.imag]

    def _range(self, value: Any, node: dict[str, Any]) -> None:
        node["v"] = [value.start, value.stop, value.step]

    _slice = _range

    def _tensor(self, value: torch.Tensor, node: dict[str, Any]) -> None:
        node["rg"] = value.requires_grad and value.is_leaf
        if node["rg"]:
            node["s"] = self.tensor_of(value)
            node["grad"] = None if value.grad is None else value.grad.detach()
        elif self._constant(value):
            node["k"] = "constant"
        else:
            node["v"] = value.detach()

    def _array(self, value: Any, node: dict[str, Any]) -> None:
        if self._constant(value):
            node["k"] = "constant"
            return
        contiguous = np.ascontiguousarray(value)
        node["t"] = contiguous.dtype.str
        node["shape"] = list(value.shape)
        node["v"] = torch.from_numpy(contiguous.reshape(-1).view(np.uint8).copy())

    def _numpy_scalar(self, value: Any, node: dict[str, Any]) -> None:
        self._array(np.asarray(value), node)

    def _module(self, value: torch.nn.Module, node: dict[str, Any]) -> None:
        node["t"] = _type_name(value)
        node["training"] = value.training
        for short, own in (("p", value._parameters), ("m", value._modules)):
            node[short] = {n: self.encode(each) for n, each in own.items() if each is not None}
        node["b"] = {n: self._buffer(b) for n, b in value._buffers.items() if b is not None}
        node["a"] = {n: self.encode(each) for n, each in module_attributes(value).items()}

    def _buffer(self, value: torch.Tensor) -> Any:
        if id(value) in self._numbers:
            return {"k": "ref", "n": self._numbers[id(value)]}
        number = self._numbers[id(value)] = len(self._numbers)
        self._keep.append(value)
        return {"k": "tensor", "n": number, "rg": False, "v": value.detach()}

    def _optimizer(self, value: torch.optim.Optimizer, node: dict[str, Any]) -> None:
        self.optimizers.add(id(value))
        node["groups"] = [
            {name: self.encode(each) for name, each in group.items() if name != "params"}
            for group in value.param_groups
        ]
        parameters = [each for group in value.param_groups for each in group["params"]]
        node["params"] = [self.encode(each) for each in parameters]
        node["state"] = [
            {name: self._of_state(each) for name, each in value.state[p].items()}
            if p in value.state
            else None
            for p in parameters
        ]

    def _of_state(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return {"k": "shared", "s": self.tensor_of(value)}
        return self.encode(value)

    def _scaler(self, value: Any, node: dict[str, Any]) -> None:
        node["v"] = self.encode(value.state_dict())

    _stateful = _scaler

    def _torch_generator(self, value: torch.Generator, node: dict[str, Any]) -> None:
        node["v"] = value.get_state()

    def _numpy_generator(self, value: Any, node: dict[str, Any]) -> None:
        node["v"] = generators.of_numpy(value.bit_generator.state)

    def _numpy_state(self, value: Any, node: dict[str, Any]) -> None:
        node["v"] = generators.of_numpy(value.get_state(legacy=False))

    def _python_generator(self, value: Any, node: dict[str, Any]) -> None:
        node["v"] = generators.of_python(value.getstate())

    def _loader(self, value: Any, node: dict[str, Any]) -> None:
        node["generator"] = self.encode(value.generator)
        node["sampler"] = self.encode(value.sampler)
        node["batches"] = self.encode(value.batch_sampler)
        self._in_data += 1
        node["data"] = self.encode(value.dataset)
        self._in_data -= 1
        stays = getattr(value, "_iterator", None)
        if stays is not None and loader_iterators.is_one(stays):
            node["workers"] = loader_iterators.describe(stays)

    def _object(self, value: Any, node: dict[str, Any]) -> None:
        node["t"] = _type_name(value)
        node["a"] = {name: self.encode(each) for name, each in attributes(value).items()}

    def _iterator(self, value: Any) -> Any:
        if id(value) in self._numbers:
            return {"k": "ref", "n": self._numbers[id(value)]}
        number = self._numbers[id(value)] = len(self._numbers)
        self._keep.append(value)
        node: dict[str, Any] = {"k": "iterator", "n": number}
        try:
            if loader_iterators.is_one(value):
                node["loader"] = self.encode(getattr(value, loader_iterators.MARK).loader)
                node["at"] = iterators.describe(value, None, self.encode)
            elif isinstance(value, iterators.Again) or (
                isinstance(value, types.GeneratorType) and iterators.OWN.is_one(value)
            ):
                node["at"] = iterators.describe(value, None, self.encode)
            elif isinstance(value, iterators.Counted):
                node["at"] = {"k": "counted", "used": value.count}
            else:
                raise iterators.NotDescribable(f"an iterator of type {type(value).__name__}")
        except iterators.NotDescribable as error:
            return {"k": "opaque", "t": _type_name(value), "why": str(error)}
        return node


def iterators_like(value: Any) -> bool:
    """Return whether a variable holds an iterator."""
    return isinstance(value, types.GeneratorType | iterators.Counted | iterators.Again) or (
        loader_iterators.is_one(value)
        or (isinstance(value, collections.abc.Iterator) and type(value).__module__ == "builtins")
    )


def is_restorable(node: Any) -> bool:
    """Return whether a value can be made from its data alone, without the script's help."""
    if not isinstance(node, dict):
        return True
    kind = node["k"]
    if kind in ("tensor", "array", "numpy scalar", "slice"):
        return not node.get("rg")
    if kind == "dict":
        return all(is_restorable(key) and is_restorable(each) for key, each in node["v"])
    return kind in _RESTORABLE and (
        kind in ("bytes", "complex", "range") or all(is_restorable(each) for each in node["v"])
    )


def is_mutable(node: Any) -> bool:
    """Return whether the object itself may change, not only what a name is bound to."""
    return isinstance(node, dict) and node["k"] not in (
        *("tuple", "frozenset", "bytes", "complex", "range", "slice", "numpy scalar", "constant"),
        *("opaque",),
    )


def _type_name(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}:{kind.__qualname__}"


class Mismatch(Exception):
    """A saved value does not fit what the script has made; the message says which."""


class Decoder:
    """Puts saved values into the objects that the script has made anew.

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
        fits = current is not None and _same_kind(node, current) and id(current) not in self._taken
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
        kind = type(current) if current is not None else _class_of(node["t"])
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

    def _array(self, node: dict[str, Any], current: Any) -> Any:
        flat = node["v"].numpy().view(np.dtype(node["t"]))
        value = flat.reshape(node["shape"]).copy()
        if current is not None and current.shape == value.shape and current.flags.writeable:
            current[...] = value
            value = current
        return self._take(node, value)

    def _numpy_scalar(self, node: dict[str, Any], current: Any) -> Any:
        return node["v"].numpy().view(np.dtype(node["t"]))[0]

    def _module(self, node: dict[str, Any], current: Any) -> Any:
        if current is None:
            raise Mismatch(f"a module {node['t']} that the script does not make before")
        value = self._take(node, current)
        value.training = node["training"]
        for short, own in (("p", value._parameters), ("m", value._modules)):
            if set(node[short]) != {name for name, each in own.items() if each is not None}:
                raise Mismatch(f"a module {node['t']} with other parts than the saved one")
            for name, each in node[short].items():
                found = self.decode(each, own[name])
                if found is not own[name]:
                    own[name] = found
        for name, each in node["b"].items():
            self._put_buffer(value, name, each)
        self._put_attributes(value, node["a"], all_of_them=False)
        return value

    def _put_buffer(self, module: torch.nn.Module, name: str, node: dict[str, Any]) -> None:
        own = module._buffers
        if node["k"] == "ref":
            own[name] = self._made[node["n"]]
            return
        saved, old = node["v"], own.get(name)
        if old is not None and old.shape == saved.shape and old.dtype == saved.dtype:
            with torch.no_grad():
                old.copy_(saved)
            saved = old
        own[name] = self._made[node["n"]] = saved

    def _optimizer(self, node: dict[str, Any], current: Any) -> Any:
        if current is None or len(node["groups"]) != len(current.param_groups):
            raise Mismatch("an optimizer with other parameter groups than the saved one")
        value = self._take(node, current)
        for group, saved in zip(value.param_groups, node["groups"], strict=True):
            for name, each in saved.items():
                if not (isinstance(each, dict) and each["k"] == "opaque"):
                    group[name] = self.decode(each, group.get(name))
        parameters = [each for group in value.param_groups for each in group["params"]]
        if len(parameters) != len(node["params"]):
            raise Mismatch("an optimizer with other parameters than the saved one")
        value.state.clear()
        for parameter, own, state in zip(parameters, node["params"], node["state"], strict=True):
            self.decode(own, parameter)
            if state is not None:
                value.state[parameter] = {
                    name: self._of_state(each, parameter) for name, each in state.items()
                }
        return value

    def _of_state(self, node: Any, parameter: torch.Tensor) -> Any:
        if isinstance(node, dict) and node["k"] == "shared":
            saved = self._shared[node["s"]]
            on_device = saved.dim() > 0 or saved.device.type != "cpu"
            return saved.to(parameter.device).clone() if on_device else saved.clone()
        return self.decode(node)

    def _scaler(self, node: dict[str, Any], current: Any) -> Any:
        if current is None:
            raise Mismatch(f"a {node['k']} object that the script does not make before")
        current.load_state_dict(self.decode(node["v"]))
        return self._take(node, current)

    _stateful = _scaler

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

    def _loader(self, node: dict[str, Any], current: Any) -> Any:
        if current is None:
            raise Mismatch("a DataLoader that the script does not make before")
        value = self._take(node, current)
        if "workers" in node:
            loader_iterators.rebuild_workers(node["workers"], value)
        for name, own in (
            ("generator", value.generator),
            ("sampler", value.sampler),
            ("batches", value.batch_sampler),
            ("data", value.dataset),
        ):
            self.decode(node[name], own)
        return value

    def _object(self, node: dict[str, Any], current: Any) -> Any:
        if current is not None:
            value = self._take(node, current)
            self._put_attributes(value, node["a"], all_of_them=not USERS.is_class(type(value)))
            return value
        kind = _class_of(node["t"])
        if not USERS.is_class(kind):
            raise Mismatch(f"an object of {node['t']} that the script does not make before")
        value = self._take(node, object.__new__(kind))
        self._put_attributes(value, node["a"], all_of_them=True)
        return value

    def _put_attributes(self, value: Any, saved: dict[str, Any], *, all_of_them: bool) -> None:
        for name, node in saved.items():
            if isinstance(node, dict) and node["k"] == "opaque":
                continue
            old = getattr(value, name, None)
            new = self.decode(node, old)
            if new is old or not (all_of_them or is_mutable(node) or self._wanted(name)):
                continue
            if isinstance(value, torch.nn.Module):
                value.__dict__[name] = new
            else:
                object.__setattr__(value, name, new)

    def _iterator(self, node: dict[str, Any], current: Any) -> Any:
        at = node["at"]
        if at["k"] == "loader":
            loader = self.decode(node["loader"])
            return self._take(node, iterators.rebuild(at, loader, 0))
        if current is None:
            raise Mismatch("an iterator that the script does not make before")
        return self._take(node, iterators.rebuild(at, current, 0))


def _class_of(name: str) -> type:
    module, _, qualified = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        raise Mismatch(f"{name} is no class any more")
    return found


def _same_kind(node: dict[str, Any], current: Any) -> bool:
    if node["k"] == "iterator":
        return iterators_like(current)
    if kind_of(current) != node["k"]:
        return False
    if node["k"] == "dict":
        return bool(type(current).__name__ == node["t"])
    if node["k"] in ("object", "module"):
        return bool(_type_name(current) == node["t"])
    return True
