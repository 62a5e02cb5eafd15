"""Tensors that only an optimizer's step changes, and being asked before it does."""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook


class Pending(Protocol):
    """Something that still needs the tensors as they are."""

    def hold(self) -> None:
        """Return when they may change."""


class OptimizerWatch:
    """Knows every optimizer that has stepped since it was made, whoever made that.

    Torch calls a hook before each step of every optimizer. There a pending copy is waited for: at
    once, or, with a closure that computes the gradients, when that is done. Optimizers of torch
    call theirs before they change anything; of another's `step` this is not known.
    """

    def __init__(self) -> None:
        self.pending: Pending | None = None
        self._optimizers: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        weak = weakref.ref(self)  # or else torch's list of hooks keeps it for ever

        def before_step(optimizer: Any, args: Any, kwargs: Any) -> Any:
            watch = weak()
            return watch and watch._before_step(optimizer, args, kwargs)

        handle = register_optimizer_step_pre_hook(before_step)
        self.close = weakref.finalize(self, handle.remove)

    def __reduce__(self) -> tuple[type["OptimizerWatch"], tuple[()]]:
        return OptimizerWatch, ()  # another process has optimizers of its own

    def owned(self) -> dict[int, list[torch.Tensor]]:
        """Return the parameters and states of the optimizers, by the key of their storage."""
        found: dict[int, dict[int, torch.Tensor]] = defaultdict(dict)
        for optimizer in list(self._optimizers):
            for tensor in _tensors_of(optimizer):
                if tensor.layout == torch.strided and tensor.device.type != "meta":
                    found[storage_key(tensor.untyped_storage())][id(tensor)] = tensor
        return {key: list(tensors.values()) for key, tensors in found.items()}

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """Be torch's hook: args are those of `step`, with the optimizer as the first."""
        self._optimizers.add(optimizer)
        pending = self.pending
        if pending is None:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None or not _evaluates_first(optimizer):
            pending.hold()
            return None
        evaluate = _then(closure, pending.hold)
        if len(args) > 1:
            return (args[0], evaluate, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluate}


def storage_key(storage: torch.UntypedStorage) -> int:
    """Return what is the same for all tensors that view `storage`, while one of them lives."""
    return int(storage._cdata)


def _tensors_of(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
    for state in optimizer.state.values():
        if isinstance(state, dict):
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _evaluates_first(optimizer: torch.optim.Optimizer) -> bool:
    return type(optimizer).step.__module__.startswith("torch.optim.")


def _then(closure: Callable[[], Any], hold: Callable[[], None]) -> Callable[[], Any]:
    def evaluate() -> Any:
        loss = closure()
        hold()
        return loss

    return evaluate
