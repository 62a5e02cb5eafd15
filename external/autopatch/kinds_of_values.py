"""Which objects of a script are saved by their contents, and how each kind is looked into."""

import argparse
import collections
import functools
import io
import random
import sys
import types
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from .callables import parts_of
from .users import USERS
from .values_by_name import name_of, text_of

SCALARS = (bool, int, float, str)
_OF_CLASSES = {
    torch.nn.Module: "module",
    torch.optim.Optimizer: "optimizer",
    torch.Generator: "torch generator",
    np.generic: "numpy scalar",
    np.random.Generator: "numpy generator",
    np.random.RandomState: "numpy state",
    random.Random: "python generator",
    torch.amp.GradScaler: "scaler",
    DataLoader: "loader",
    collections.deque: "deque",
}
_OF_RANKS = {"rank", "num_replicas", "num_samples", "total_size"}
_MODULE_OWN = set(torch.nn.Module().__dict__)
_SMALL = 1 << 20  # bytes of data in a data set that are looked at at every save


def kind_of(value: Any) -> str:
    """Return how `value` is saved; `opaque` is not, and has to be made by the script again."""
    kind: Any = type(value)  # mypy takes no class for hashable
    return _kind_of_class(kind) or _kind_of_value(value)


@functools.lru_cache(1024)  # a save asks for each module and each tensor
def _kind_of_class(kind: type) -> str | None:
    """Return how all values of a class are saved; None where they differ."""
    if kind in (type(None), *SCALARS):
        return "scalar"
    if kind in (list, dict, tuple, set, frozenset, bytes, complex, slice, range):
        return kind.__name__
    if issubclass(kind, torch.Tensor):
        return "tensor" if kind in (torch.Tensor, torch.nn.Parameter) else "opaque"
    for each, name in _OF_CLASSES.items():
        if issubclass(kind, each):
            return name
    if kind in (collections.OrderedDict, collections.defaultdict, collections.Counter):
        return "dict"
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return "tuple"
    if kind in (argparse.Namespace, types.SimpleNamespace) or _is_torch_class(kind):
        return "object"
    return None


def _kind_of_value(value: Any) -> str:
    for each, name in _OF_CLASSES.items():
        if isinstance(value, each):  # a proxy says so
            return name
    if isinstance(value, np.ndarray):
        return "opaque" if value.dtype.hasobject else "array"
    if name_of(value) is not None:
        return "named"
    if text_of(value) is not None:
        return "text"
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return "callable" if parts_of(value) else "opaque"
    if isinstance(value, type | types.ModuleType):
        return "opaque"
    if isinstance(value, BaseException):
        return "opaque"
    if USERS.is_class(type(value)):
        return "object"
    if callable(getattr(value, "state_dict", None)) and callable(
        getattr(value, "load_state_dict", None)
    ):
        return "stateful"
    return "opaque"


def _is_torch_class(kind: type) -> bool:
    name = f"{kind.__module__}."
    if name.startswith(("torch.optim.lr_scheduler", "torch.optim.swa_utils")):
        return True
    return issubclass(kind, Sampler) or (
        name.startswith("torch.utils.data.") and issubclass(kind, Dataset)
    )


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that may be saved."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                found[name] = getattr(value, name)
    if isinstance(value, Sampler):
        found = {name: each for name, each in found.items() if name not in _OF_RANKS}
    return found


def module_attributes(value: torch.nn.Module) -> dict[str, Any]:
    """Return what a user's module has besides parameters, buffers and modules."""
    kind: Any = type(value)
    if not _is_users(kind, len(USERS.files)):
        return {}
    return {name: each for name, each in value.__dict__.items() if name not in _MODULE_OWN}


@functools.lru_cache(1024)
def _is_users(kind: type, files: int) -> bool:
    """Return whether the user wrote a class, or one that it is derived from, in so many files."""
    return any(USERS.is_class(each) for each in kind.__mro__)


def is_emptied(value: Any) -> bool:
    """Return whether a value is a file whose opening empties it."""
    if not isinstance(value, io.IOBase) or value.closed or value in (sys.stdout, sys.stderr):
        return False
    mode, name = getattr(value, "mode", ""), getattr(value, "name", None)
    return isinstance(name, str | bytes) and isinstance(mode, str) and bool(set("wx") & set(mode))


def is_of_the_process(value: Any) -> bool:
    """Return whether a value belongs to a process, whose successor has its own: a lock, a file."""
    name = f"{type(value).__module__}."
    return callable(value) or name.startswith(
        ("_thread.", "threading.", "_io.", "tqdm.", "logging.", "contextlib.", "torch.", "_weakref")
    )


def size_of(value: Any) -> int:
    """Return the bytes of an array or a tensor, or something like it of a container."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return int(value.nbytes)
    if isinstance(value, list | dict | tuple | set | frozenset | collections.deque):
        return 64 * len(value)
    return 0


def is_large(value: Any) -> bool:
    """Return whether a value is more than what is looked at at every save in a data set."""
    return size_of(value) > _SMALL
