"""Copies of state that a checkpoint may hold and still be opened with `weights_only=True`.

That is tensors, numbers, texts and None, in lists, tuples and dictionaries.
"""

from typing import Any

import torch

_ATOMS = (bool, int, float, complex, str, bytes, type(None))


class NotPlain(TypeError):
    """A value is of a kind that only a pickle with code can hold; the message names it."""


def plain(value: Any) -> Any:
    """Return a copy of `value` on the CPU that nobody else changes.

    Raises:
        NotPlain: It holds something else.
    """
    if isinstance(value, torch.Tensor):
        value = _of_this_process(value)
        copied = value.detach().to("cpu")
        return copied.clone() if copied.data_ptr() == value.data_ptr() else copied
    if isinstance(value, dict):
        return {plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if type(value) in _ATOMS:
        return value
    raise NotPlain(f"a {type(value).__module__}.{type(value).__qualname__}")


def _of_this_process(value: Any) -> Any:
    """Return a tensor that lies whole in each of many processes as an ordinary one."""
    placements = getattr(value, "placements", ())
    if placements and all(each.is_replicate() for each in placements):
        return value.to_local()
    return value


def on_device(value: Any, device: torch.device) -> Any:
    """Return what `plain` copied, with its tensors on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: on_device(item, device) for name, item in value.items()}
    if isinstance(value, list):
        return [on_device(item, device) for item in value]
    if isinstance(value, tuple):
        return tuple(on_device(item, device) for item in value)
    return value
