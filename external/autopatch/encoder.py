"""Values of variables, made plain data for a checkpoint; see `values`."""

import itertools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from ..exact import gradient_layout
from . import generators, iterators, loader_iterators
from .builtin_iterators import left_of, tells_what_is_left
from .callables import parts_of
from .kinds_of_values import (
    SCALARS,
    attributes,
    is_emptied,
    is_large,
    is_of_the_process,
    kind_of,
    module_attributes,
)
from .values import iterators_like, type_name
from .values_by_name import name_of, text_of

_PLAIN = frozenset({type(None), *SCALARS})


class Encoder:
    """Encodes the values of one save.

    Args:
        constant: Says of a large array or tensor that it has not changed since the script began.
        may_change: Says whether an attribute of that name is set outside of constructors.
    """

    def __init__(
        self,
        constant: Callable[[Any], bool],
        may_change: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._constant = constant
        self._may_change = may_change
        self._numbers: dict[int, int] = {}
        self._keep: list[Any] = []
        self._in_data = 0
        self.shared: list[torch.Tensor] = []  # of modules and optimizers, in their order
        self.optimizers: set[int] = set()
        self.unknown: list[str] = []  # what cannot be saved, and has been met

    def encode(self, value: Any) -> Any:
        """Return `value` as plain data."""
        if type(value) in _PLAIN:  # most are
            return value
        known = self._numbers.get(id(value))
        if known is not None:
            return {"k": "ref", "n": known}
        if iterators_like(value):
            return self._iterator(value)
        kind = kind_of(value)
        if kind == "opaque":
            if is_emptied(value):
                self.unknown.append(
                    f"{value.name!r} is open for writing, and a new process that opens it as this "
                    "one did begins with an empty file"
                )
            return {"k": "opaque", "t": type_name(value)}
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
        if _PLAIN.issuperset(map(type, value)):  # a history, most often, and a long one
            node["v"] = list(value)
        else:
            node["v"] = [self.encode(each) for each in value]

    _set = _frozenset = _list

    def _tuple(self, value: Any, node: dict[str, Any]) -> None:
        self._list(value, node)
        if type(value) is not tuple:
            node["t"] = type_name(value)

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
        node["t"] = type_name(value)
        node["training"] = value.training
        if isinstance(value, DistributedDataParallel):
            node["layout"] = gradient_layout.layout_of(value)
            if gradient_layout.may_change(value) and not gradient_layout.can_be_kept(value):
                self.unknown.append(
                    "DistributedDataParallel with static_graph lays gradients out anew after its "
                    "second step, so that three or more ranks add them in another order in the "
                    "first steps after an interruption; leave static_graph away"
                )
        for short, own in (("p", value._parameters), ("m", value._modules)):
            node[short] = {n: self.encode(each) for n, each in own.items() if each is not None}
        node["b"] = {n: self._buffer(b) for n, b in value._buffers.items() if b is not None}
        node["a"] = self._attributes(value, module_attributes(value))

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

    def _named(self, value: Any, node: dict[str, Any]) -> None:
        node["v"] = name_of(value)
        self._callable(value, node)

    def _callable(self, value: Any, node: dict[str, Any]) -> None:
        if parts := parts_of(value):
            node["a"] = {name: self.encode(each) for name, each in parts.items()}

    def _text(self, value: Any, node: dict[str, Any]) -> None:
        node["v"] = text_of(value)

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
        node["t"] = type_name(value)
        node["a"] = self._attributes(value, attributes(value))

    def _attributes(self, value: Any, own: dict[str, Any]) -> dict[str, Any]:
        found = {name: self.encode(each) for name, each in own.items()}
        for name, node in found.items():
            lost = isinstance(node, dict) and node["k"] == "opaque" and self._may_change(name)
            if lost and not is_of_the_process(own[name]):
                self.unknown.append(
                    f"{type(value).__name__}.{name} is a {node['t']}, whose changes are not saved"
                )
        return found

    def _iterator(self, value: Any) -> Any:
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
            elif tells_what_is_left(value):
                node["at"] = {"k": "left", "left": left_of(value)}
            elif isinstance(value, itertools.count):
                node["at"] = {"k": "count", "at": list(value.__reduce__()[1])}
            elif isinstance(value, iterators.Counted):
                node["at"] = {"k": "counted", "used": value.count}
            else:
                raise iterators.NotDescribable(f"an iterator of type {type(value).__name__}")
        except iterators.NotDescribable as error:
            self.unknown.append(f"{error}, which does not tell where it is")
            return {"k": "opaque", "t": type_name(value)}
        return node
